"""Messages that name their workflow: read, checked, dispatched and answered."""

import json
from datetime import timedelta
from typing import Any

import pytest

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.job_requests import JobRequest, read_job_request
from ml_service.domain.jobs import JobState
from ml_service.domain.messages import (
    Message,
    NativeMessage,
    find_partial_name,
    parse_message,
    read_job_id,
)
from ml_service.services.dispatch_jobs import DispatchStatus
from tests.fakes import NOON
from tests.makers import BUCKET, CATALOG, make_body
from tests.unit.test_dispatch_jobs import World, statuses

PROMPT = {"positive_prompt": "a red kite", "negative_prompt": "rain"}


def body(**members: Any) -> str:
    return json.dumps(members)


def native(workflow: str = "text-to-image", **inputs: Any) -> str:
    return body(workflow=workflow, inputs=inputs, job_id="job-1")


def request(text: str) -> JobRequest:
    return read_job_request(
        text, sqs_message_id="sqs-1", catalog=CATALOG, input_buckets=frozenset({BUCKET})
    )


def refusal(text: str) -> tuple[RefusalCode, str]:
    with pytest.raises(RefusedMessageError) as caught:
        request(text)
    return caught.value.code, caught.value.sentence


def test_the_job_id_names_job_and_results():
    read = request(native(positive_prompt="a red kite"))
    assert (read.job_id, read.partial_name) == ("job-1", "job-1")
    assert read.inputs.output_prefix == "text-to-image-job-1"
    assert read.inputs.values == {"positive_prompt": "a red kite", "negative_prompt": ""}
    assert read.inputs.seed is None


def test_the_sqs_message_id_stands_in_for_an_absent_job_id():
    assert request(body(workflow="text-to-image", inputs=PROMPT)).job_id == "sqs-1"


@pytest.mark.parametrize("prompt_file", [None, "", "workflow_api.json"])
def test_the_flat_body_is_a_picture_from_two_texts(prompt_file: str | None):
    read = request(body(**PROMPT, seed=4, prompt_file=prompt_file, other=1))
    assert read.workflow.workflow == "text-to-image"
    assert read.inputs.values == PROMPT
    assert read.inputs.seed == 4


def test_files_are_named_by_bucket_and_key():
    file = {"bucket": BUCKET, "key": "in/face.png"}
    read = request(native("photo-make-up-lips-thumbnails", image=file, makeup=file))
    prefix = "photo-make-up-lips-thumbnails-face-job-1"
    assert read.inputs.output_prefix == prefix
    assert [media.upload_name for media in read.inputs.media] == [
        f"{prefix}.png",
        f"{prefix}-photo-make-up-lips-thumbnails-source-0.png",
    ]


def test_entries_of_a_list_have_names_of_their_own():
    file = {"bucket": BUCKET, "key": "in/face.png"}
    read = request(native("sonic-text", image=file, contextValue=7, contextValue2=99))
    assert (read.inputs.values["contextValue"], read.inputs.values["contextValue2"]) == (7, 2)


def test_the_deadline_is_the_messages_or_the_manifests():
    assert request(native(positive_prompt="x")).deadline_seconds == 86_400
    text = body(workflow="text-to-image", inputs=PROMPT, deadline_seconds=60)
    assert request(text).deadline_seconds == 60


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (native("nothing"), RefusalCode.UNKNOWN_WORKFLOW, "workflow is unknown"),
        (body(workflow=3), RefusalCode.INVALID_MESSAGE, "workflow must be the name"),
        (body(workflow="", inputs=PROMPT), RefusalCode.UNKNOWN_WORKFLOW, "workflow is unknown"),
        (
            body(**PROMPT, prompt_file="../secrets/workflow_api.json"),
            RefusalCode.UNKNOWN_WORKFLOW,
            "prompt_file must be one of: workflow_api.json",
        ),
        *(
            (body(**PROMPT, prompt_file=path), RefusalCode.UNKNOWN_WORKFLOW, "prompt_file must be")
            for path in (
                "/etc/passwd",
                "workflow_api",
                "pulid/flux-prompt.json",
                "flux-prompt",
                ".",
            )
        ),
        (body(**PROMPT, prompt_file=3), RefusalCode.INVALID_MESSAGE, "prompt_file must be a text"),
        (body(prompt_file="workflow_api.json"), RefusalCode.INVALID_MESSAGE, "inputs.positive_"),
        (native(), RefusalCode.INVALID_MESSAGE, "inputs.positive_prompt must be a text"),
        (native(positive_prompt=" "), RefusalCode.INVALID_MESSAGE, "that is not blank"),
        (native(positive_prompt="x", cfg=3), RefusalCode.INVALID_MESSAGE, "inputs has a member"),
        (native(positive_prompt="x", seed=-1), RefusalCode.INVALID_MESSAGE, "inputs.seed must"),
        (native(positive_prompt="x", seed=2**64), RefusalCode.INVALID_MESSAGE, "inputs.seed must"),
        (native(positive_prompt="x", seed=True), RefusalCode.INVALID_MESSAGE, "inputs.seed must"),
        (body(workflow="text-to-image", inputs=[]), RefusalCode.INVALID_MESSAGE, "inputs must be"),
        (body(**PROMPT, job_id="../x"), RefusalCode.INVALID_MESSAGE, "job_id must be"),
        (body(**PROMPT, deadline_seconds=0), RefusalCode.INVALID_MESSAGE, "deadline_seconds must"),
        (body(**PROMPT, deadline_seconds=1e9), RefusalCode.INVALID_MESSAGE, "deadline_seconds"),
        (
            native("flux-photo-prompt", image="in/face.png"),
            RefusalCode.INVALID_MESSAGE,
            'inputs.image must be {"bucket"',
        ),
        (
            native("flux-photo-prompt", image={"key": "in/face.png"}),
            RefusalCode.INVALID_MESSAGE,
            "inputs.image.bucket must be",
        ),
        (
            native("flux-photo-prompt", image={"bucket": "foreign", "key": "in/face.png"}),
            RefusalCode.FORBIDDEN_SOURCE,
            "inputs.image.bucket names a bucket that is not allowed",
        ),
        (
            native("flux-photo-prompt", image={"bucket": BUCKET, "key": "in/face.gif"}),
            RefusalCode.UNSUPPORTED_MEDIA,
            "inputs.image.key must end in one of",
        ),
        (
            native("flux-photo-prompt"),
            RefusalCode.INVALID_MESSAGE,
            "inputs.image must be the S3 key of an input file",
        ),
    ],
)
def test_a_wrong_native_message_is_refused(text: str, code: RefusalCode, sentence: str):
    found_code, found = refusal(text)
    assert found_code is code
    assert sentence in found


def test_a_refusal_never_quotes_the_message():
    for text in (native(secret=1), native("secret"), body(**PROMPT, prompt_file="secret")):
        assert "secret" not in refusal(text)[1]


def test_an_envelope_stays_one_whatever_else_is_in_it():
    envelope = {**json.loads(make_body()), "workflow": "x", "positive_prompt": "y"}
    assert isinstance(parse_message(body(**envelope), sqs_message_id="sqs-1"), Message)
    assert isinstance(parse_message(body(**PROMPT), sqs_message_id="sqs-1"), NativeMessage)


def test_a_task_message_tells_its_job():
    assert read_job_id(native(positive_prompt="x")) == "job-1"
    assert read_job_id(body(**PROMPT)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (native(), "job-1"),
        (body(**PROMPT, job_id=3), "sqs-1"),
        (body(workflow=None), "sqs-1"),
        ("[]", None),
    ],
)
def test_a_refused_native_message_is_answered_under_its_job_id(text: str, expected: str | None):
    assert find_partial_name(text, sqs_message_id="sqs-1") == expected


def test_a_native_message_is_dispatched_beside_envelopes():
    world = World()
    flat = body(**PROMPT, seed=2**63 + 1, deadline_seconds=60)
    report = world.dispatch(make_body("latent-sync"), flat)
    assert statuses(report) == [DispatchStatus.FORWARDED] * 2
    (task,) = world.queues["pulid"].visible
    assert task.body == flat
    assert task.attributes == {"JobId": {"DataType": "String", "StringValue": "sqs-1"}}
    job = world.jobs.get("sqs-1")
    assert (job.state, job.workflow, job.subject) == (JobState.QUEUED, "text-to-image", "")
    assert (job.seed, job.partial_name) == (2**63 + 1, "sqs-1")
    assert job.deadline == NOON + timedelta(seconds=60)


def test_a_seed_that_is_left_out_is_random():
    world = World()
    world.dispatch(native(positive_prompt="x"))
    assert world.jobs.get("job-1").seed == 7


def test_a_repeated_native_message_is_one_job_and_another_one_is_a_silent_conflict():
    world = World()
    world.dispatch(native(positive_prompt="x"), native(positive_prompt="x"))
    report = world.dispatch(native(positive_prompt="another"))
    assert report.outcomes[0].code is RefusalCode.CONFLICT
    assert world.topic.replies == [], "it would be taken for the first job's answer"


def test_a_wrong_native_message_gets_its_error_reply():
    world = World()
    world.dispatch(native("nothing"))
    assert world.errors() == [
        {"PartialName": "job-1", "Error": "The message's workflow is unknown."}
    ]
