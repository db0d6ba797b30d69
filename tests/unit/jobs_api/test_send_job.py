"""Sending a job: once per key, by the rules of a native message."""

from typing import Any

import pytest

from ml_service.services.admit_jobs import find_job_id
from tests.api_world import KITE, PLACE, ApiWorld
from tests.fakes import NOON


def test_a_job_is_recorded_forwarded_and_admission_is_told(api: ApiWorld):
    answer = api.request("POST", "/jobs", KITE)
    assert answer.status == 202
    job_id = answer.json["job_id"]
    assert answer.json == {"job_id": job_id, "status": "QUEUED"}
    assert api.jobs.get(job_id).workflow == "text-to-image"
    (message,) = api.queues["pulid"].visible
    assert find_job_id(message) == job_id
    assert api.admission.kicked == ["pulid"]


def test_two_texts_are_enough(api: ApiWorld):
    answer = api.request("POST", "/jobs", {"positive_prompt": "a red kite", "seed": 7})
    assert answer.status == 202
    assert api.jobs.get(answer.json["job_id"]).seed == 7


def test_two_requests_without_a_key_are_two_jobs(api: ApiWorld):
    ids = {api.request("POST", "/jobs", KITE).json["job_id"] for _ in range(2)}
    assert len(ids) == 2


def test_the_same_key_and_body_are_the_same_job(api: ApiWorld):
    ids = {api.request("POST", "/jobs", KITE, idempotency_key="k").json["job_id"] for _ in range(2)}
    assert len(ids) == 1 == len(api.jobs.jobs)


def test_a_repeat_forwards_a_job_that_still_waits_and_no_other(api: ApiWorld):
    """The first request may have died between record and queue."""
    job_id = api.request("POST", "/jobs", KITE, idempotency_key="k").json["job_id"]
    api.request("POST", "/jobs", KITE, idempotency_key="k")
    assert len(api.queues["pulid"].visible) == 2
    api.jobs.save(api.jobs.get(job_id).admit(**PLACE, at=NOON))
    repeated = api.request("POST", "/jobs", KITE, idempotency_key="k")
    assert (repeated.status, repeated.json["status"]) == (202, "ADMITTED")
    assert len(api.queues["pulid"].visible) == 2


@pytest.mark.parametrize(
    "other",
    [
        {**KITE, "inputs": {"positive_prompt": "a blue kite"}},
        {**KITE, "deadline_seconds": 60},
    ],
)
def test_the_same_key_with_another_body_is_refused(api: ApiWorld, other: Any):
    api.request("POST", "/jobs", KITE, idempotency_key="k")
    answer = api.request("POST", "/jobs", other, idempotency_key="k")
    assert (answer.status, answer.json["code"]) == (422, "CONFLICT")
    assert len(api.jobs.jobs) == 1


def test_a_job_id_is_a_key_too(api: ApiWorld):
    first = api.request("POST", "/jobs", {**KITE, "job_id": "kite-1"})
    assert first.json["job_id"] == "kite-1"
    assert api.request("POST", "/jobs", {**KITE, "job_id": "kite-1"}).status == 202
    answer = api.request("POST", "/jobs", {"positive_prompt": "x", "job_id": "kite-1"})
    assert (answer.status, answer.json["code"]) == (422, "CONFLICT")


def test_a_job_id_and_a_key_together_are_refused(api: ApiWorld):
    answer = api.request("POST", "/jobs", {**KITE, "job_id": "a"}, idempotency_key="k")
    assert answer.status == 422
    assert api.jobs.jobs == {}


def test_a_queue_that_does_not_take_it_is_told_and_a_repeat_mends_it(api: ApiWorld):
    job = {**KITE, "job_id": "kite-1"}
    api.queues["pulid"].refuses = {"kite-1"}
    assert api.request("POST", "/jobs", job).status == 503
    api.queues["pulid"].refuses = set()
    assert api.request("POST", "/jobs", job).status == 202
    assert len(api.queues["pulid"].visible) == 1


def test_a_job_is_accepted_though_admission_cannot_be_told(api: ApiWorld):
    api.admission.breaks = True
    assert api.request("POST", "/jobs", KITE).status == 202


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "INVALID_JSON"),
        (b"\xff", 400, "INVALID_ENCODING"),
        ('{"workflow": "text-to-image", "workflow": "x"}', 400, "INVALID_JSON"),
        ("[]", 422, "INVALID_REQUEST"),
        ("", 422, "INVALID_REQUEST"),
        ({"workflow": "no-such"}, 422, "UNKNOWN_WORKFLOW"),
        ({"workflow": "text-to-image"}, 422, "INVALID_MESSAGE"),
        ({**KITE, "Subject": "ComfyUiFluxPromptMessage"}, 422, "INVALID_REQUEST"),
        ({**KITE, "job_id": "no id"}, 422, "INVALID_REQUEST"),
        ({**KITE, "deadline_seconds": True}, 422, "INVALID_REQUEST"),
        ({"positive_prompt": "x" * 300_000}, 413, "TOO_LARGE"),
    ],
)
def test_a_wrong_body_is_refused_with_the_reason(api: ApiWorld, body: Any, status: int, code: str):
    answer = api.request("POST", "/jobs", body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["message"].endswith(".")
    assert api.jobs.jobs == {}


def test_a_bucket_that_is_not_allowed_is_refused(api: ApiWorld):
    inputs = {"image": {"bucket": "elsewhere", "key": "a.png"}, "promptText": "Hello."}
    answer = api.request("POST", "/jobs", {"workflow": "still-image-text", "inputs": inputs})
    assert (answer.status, answer.json["code"]) == (422, "FORBIDDEN_SOURCE")


@pytest.mark.parametrize(
    "media_type", ["text/xml", "multipart/form-data", "application/x-www-form-urlencoded"]
)
def test_another_media_type_is_refused(api: ApiWorld, media_type: str):
    answer = api.request("POST", "/jobs", "<job/>", content_type=media_type)
    assert (answer.status, answer.json["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
