"""The backend's old paths to a result, as a load balancer calls their function."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from functions.result_api import app
from local.aws.http_events import make_balancer_event
from ml_service.domain.inputs import resolve_inputs
from ml_service.services.find_results import FindResults
from tests.fakes import InMemoryResultStore
from tests.makers import BUCKET, CATALOG, PARTIAL_NAME, make_payload

ASKED = {
    "Env": "dev",
    "S3Bucket": BUCKET,
    "InputS3Key": "photos/face.png",
    "GroupId": 42,
    "PartialName": PARTIAL_NAME,
}
LIPS = "photo-make-up-lips-thumbnails"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> InMemoryResultStore:
    store = InMemoryResultStore()
    service = FindResults(CATALOG, store, "results")
    monkeypatch.setattr(app, "make_find_results", lambda: service)
    return store


def call(path: str, body: Any = None, method: str = "POST", **headers: str) -> tuple[int, str]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    event = make_balancer_event(method=method, path=path, query="", headers=headers, body=text)
    context = SimpleNamespace(
        function_name="result-api",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:result-api",
        aws_request_id="request-1",
    )
    answer = app.handler(event, context)  # type: ignore[arg-type]
    return answer["statusCode"], answer["body"]


def ask(name: str, **changes: Any) -> Any:
    status, body = call(f"/api/comfyui/{name}", {**ASKED, **changes})
    assert status == 200
    return json.loads(body)


def store(results: InMemoryResultStore, workflow: str, *endings: str, **members: Any) -> list[str]:
    """Results as the job of such a message leaves them."""
    inputs = resolve_inputs(
        CATALOG.workflow(workflow),
        make_payload(workflow, **members),
        partial_name=PARTIAL_NAME,
        input_buckets={BUCKET},
    )
    keys = [f"comfyui-results/{inputs.output_prefix}{ending}" for ending in endings]
    results.files |= dict.fromkeys(keys, b"")
    return keys


def test_the_newest_file_of_a_job_is_found(results: InMemoryResultStore):
    _, newest = store(results, "latent-sync", "_00001_.mp4", "_00002_.mp4")
    answer = ask("comfyui-result", Workflow="latent-sync", InputS3Key="videos/7/clip.mp4")
    assert answer == {"bucket": "results", "key": newest}


def test_a_video_that_is_named_by_its_folder_is_found(results: InMemoryResultStore):
    (key,) = store(results, "latent-sync", "_00001_.mp4", VideoS3Key="videos/7")
    answer = ask("comfyui-result", Workflow="latent-sync", InputS3Key="videos/7")
    assert answer["key"] == key


def test_a_job_without_an_input_file_is_found(results: InMemoryResultStore):
    (key,) = store(results, "flux-prompt", "_00001_.png")
    assert ask("photo-result", PhotoWorkflow="flux-prompt")["key"] == key
    assert ask("photo-result", PhotoWorkflow="flux-prompt", InputS3Key=None)["key"] == key


@pytest.mark.parametrize(
    "other",
    [{"GroupId": 4}, {"PartialName": "another"}, {"InputS3Key": "photos/other.png"}],
)
def test_another_jobs_result_is_not(results: InMemoryResultStore, other: dict[str, Any]):
    store(results, LIPS, "_608x1080_00001_.png")
    assert ask("photo-result", PhotoWorkflow=LIPS, **other)["key"] == "not_found"


def test_several_files_are_told_apart_once_all_are_there(results: InMemoryResultStore):
    keys = store(results, LIPS, "_608x1080_1.png", "_608x418_1.png", "_128x128_1.png")
    assert ask("photo-multi-result", PhotoWorkflow=LIPS)["mainKey"] == "not_found"
    (mask,) = store(results, LIPS, "_mask_1.png")
    assert ask("photo-multi-result", PhotoWorkflow=LIPS) == {
        "bucket": "results",
        "mainKey": keys[0],
        "coverKey": keys[1],
        "thumbnailKey": keys[2],
        "maskKey": mask,
    }


def test_a_workflow_without_a_mask_needs_none(results: InMemoryResultStore):
    name = "photo-make-up-thumbnails"
    prefix = f"comfyui-results/42-{name}-face-{PARTIAL_NAME}"
    keys = [f"{prefix}{size}_1.png" for size in ("_608x1080", "_608x418", "_128x128")]
    results.files |= dict.fromkeys(keys, b"")
    answer = ask("photo-multi-result", PhotoWorkflow=name)
    assert (answer["mainKey"], answer["maskKey"]) == (keys[0], "")


def test_an_unknown_workflow_is_told_in_the_place_of_the_key(results: InMemoryResultStore):
    sentence = "There is no workflow no-such."
    assert ask("comfyui-result", Workflow="no-such")["key"] == sentence
    assert ask("photo-result", PhotoWorkflow="no-such")["key"] == sentence
    assert ask("photo-multi-result", PhotoWorkflow="no-such")["mainKey"] == sentence


def test_status_is_a_text(results: InMemoryResultStore):
    assert call("/status", method="GET") == (200, "ml-service is up")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"\xff", {}, 400),
        ([], {}, 400),
        (ASKED, {}, 400),
        ({**ASKED, "Workflow": "latent-sync", "GroupId": "many"}, {}, 400),
        (b"<a/>", {"Content-Type": "text/xml"}, 415),
    ],
)
def test_a_wrong_request_is_refused_with_what_it_needs(
    results: InMemoryResultStore, body: Any, headers: dict[str, str], status: int
):
    answered, text = call("/api/comfyui/comfyui-result", body, **headers)
    assert answered == status
    assert set(json.loads(text)) == {"code", "message"}


def test_the_jobs_api_is_not_behind_the_load_balancer(results: InMemoryResultStore):
    assert call("/jobs", method="GET")[0] == 404
