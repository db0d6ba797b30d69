"""The backend's contract, against local mode over its one port, with nothing but an SDK."""

import json
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from local.backend import Backend
from local.media_check import check_media
from local.sample_media import make_audio, make_image, make_video

REPLY_SECONDS = 60


def send(backend: Backend, subject: str, **members: Any) -> str:
    """Post a message as the contract has it; returns its PartialName."""
    partial_name = str(uuid.uuid4())
    payload = {
        "Env": "dev",
        "S3Bucket": backend.ready["input_bucket"],
        "GroupId": 7,
        "PartialName": partial_name,
        **members,
    }
    backend.send(
        json.dumps(
            {
                "Subject": subject,
                "MessageId": str(uuid.uuid4()),
                "Payload": json.dumps({k: v for k, v in payload.items() if v is not None}),
                "Timestamp": datetime.now(UTC).isoformat(),
            }
        )
    )
    return partial_name


def find_result(backend: Backend, path: str, **members: Any) -> Any:
    """Ask for a result by the old path, with what its message said."""
    asked = {"Env": "dev", "S3Bucket": backend.ready["input_bucket"], "GroupId": 7, **members}
    url = f"{backend.ready['result_api_url']}/api/comfyui/{path}"
    return requests.post(url, json=asked, timeout=REPLY_SECONDS).json()


@pytest.fixture(scope="module")
def replies() -> dict[str, dict[str, Any]]:
    return {}


@pytest.fixture
def await_reply(backend: Backend, replies: dict[str, dict[str, Any]]) -> Any:
    """Waits for the reply of a PartialName and gives its envelope, ``data`` parsed."""

    def wait(partial_name: str) -> Mapping[str, Any]:
        end = time.monotonic() + REPLY_SECONDS
        queue_url = backend.ready["reply_queue_url"]
        while partial_name not in replies and time.monotonic() < end:
            answer = backend.sqs.receive_message(
                QueueUrl=queue_url, WaitTimeSeconds=1, MaxNumberOfMessages=10
            )
            for message in answer.get("Messages", []):
                envelope = json.loads(message["Body"])
                envelope["data"] = json.loads(envelope["data"])
                name = envelope["data"]["PartialName"]
                assert name not in replies, "a second answer"
                replies[name] = envelope
                backend.sqs.delete_message(
                    QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"]
                )
        assert partial_name in replies, f"no reply within {REPLY_SECONDS} s"
        return replies[partial_name]

    return wait


def test_a_native_message_answers_under_its_job_id(backend: Backend, await_reply: Any):
    job_id = f"native-{uuid.uuid4()}"
    text = 'A "green" kite ___seed___ NEGATIVE_PROMPT_PLACEHOLDER'
    backend.send(json.dumps({"positive_prompt": text, "negative_prompt": "rain", "job_id": job_id}))
    data = await_reply(job_id)["data"]
    assert data["MainKey"].startswith(f"comfyui-results/text-to-image-{job_id}")
    content = backend.read_result(data["MainKey"])
    check_media(content, kind="image")
    assert json.dumps(text)[1:-1].encode() in content, "ComfyUI writes prompts into pictures"


@pytest.mark.reference_graphs
def test_flux_prompt_answers_with_one_picture(backend: Backend, await_reply: Any):
    text = 'A "red" kite\nover the sea'
    name = send(backend, "ComfyUiFluxPromptMessage", PromptText=text)
    envelope = await_reply(name)
    assert envelope["source"] == "ComfyUiResult"
    assert envelope["specversion"] == "1.0"
    assert envelope["type"] == "Frever.Client.Shared.AI.ComfyUi.Contract.ComfyUiResult"
    assert datetime.fromisoformat(envelope["time"]).tzinfo is not None
    uuid.UUID(envelope["id"])
    data = envelope["data"]
    assert data["Bucket"] == backend.ready["result_bucket"]
    assert data["MainKey"].startswith(f"comfyui-results/7-flux-prompt-{name}")
    assert (data["CoverKey"], data["ThumbnailKey"], data["MaskKey"]) == ("", "", "")
    content = backend.read_result(data["MainKey"])
    facts = check_media(content, kind="image")
    assert (facts.width, facts.height) == (608, 1080)
    found = find_result(backend, "photo-result", PhotoWorkflow="flux-prompt", PartialName=name)
    assert found == {"bucket": data["Bucket"], "key": data["MainKey"]}
    # The server writes the prompt into the picture: the very text, in one line.
    assert b'A \\"red\\" kite over the sea' in content


@pytest.mark.reference_graphs
def test_latent_sync_answers_with_a_video_that_has_the_sound(backend: Backend, await_reply: Any):
    backend.put_input("videos/9/video_raw.mp4", make_video(color=(200, 30, 30), seconds=2))
    backend.put_input("audio/voice.mp3", make_audio(seconds=4))
    name = send(
        backend,
        "ComfyUiLatentSyncMessage",
        VideoS3Key="videos/9",
        AudioS3Key="audio/voice.mp3",
        AudioS3Bucket="",
        LevelId=1,
        VideoId=9,
        Version="1",
        VideoDurationSeconds=2,
        StartTimeSeconds=0,
        ResultVideoDurationSeconds=2,
    )
    data = await_reply(name)["data"]
    assert data["MainKey"].startswith(f"comfyui-results/7-latent-sync-video_raw-{name}")
    facts = check_media(backend.read_result(data["MainKey"]), kind="video")
    assert 1.5 <= facts.seconds <= 2.5
    asked = {"Workflow": "latent-sync", "InputS3Key": "videos/9", "PartialName": name}
    found = find_result(backend, "comfyui-result", **asked)
    assert found == {"bucket": data["Bucket"], "key": data["MainKey"]}


def test_make_up_answers_with_every_size_and_the_mask(backend: Backend, await_reply: Any):
    backend.put_input("photos/face.png", make_image(color=(200, 0, 0)))
    backend.put_input("photos/lips.png", make_image(color=(0, 0, 200)))
    name = send(
        backend,
        "ComfyUiPhotoMakeUpLipsThumbnailsMessage",
        InputS3Key="photos/face.png",
        SourceS3Keys=["photos/lips.png"],
        ContextValues=[],
    )
    data = await_reply(name)["data"]
    sizes = {}
    for role in ("MainKey", "CoverKey", "ThumbnailKey", "MaskKey"):
        facts = check_media(backend.read_result(data[role]), kind="image")
        sizes[role] = (facts.width, facts.height)
    assert sizes == {
        "MainKey": (608, 1080),
        "CoverKey": (608, 418),
        "ThumbnailKey": (128, 128),
        "MaskKey": (608, 1080),
    }
    head = backend.s3.head_object(Bucket=data["Bucket"], Key=data["MainKey"])
    assert head["ContentType"] == "image/png"
    workflow = "photo-make-up-lips-thumbnails"
    asked = {"PhotoWorkflow": workflow, "InputS3Key": "photos/face.png", "PartialName": name}
    found = find_result(backend, "photo-multi-result", **asked)
    assert found == {
        "bucket": data["Bucket"],
        "mainKey": data["MainKey"],
        "coverKey": data["CoverKey"],
        "thumbnailKey": data["ThumbnailKey"],
        "maskKey": data["MaskKey"],
    }


@pytest.mark.parametrize(
    ("subject", "members", "error"),
    [
        ("ComfyUiNoSuchMessage", {}, "Subject is unknown"),
        ("ComfyUiFluxPromptMessage", {"GroupId": None}, "GroupId must be"),
        (
            "ComfyUiPhotoMakeUpLipsThumbnailsMessage",
            {"InputS3Key": "photos/face.png"},
            "SourceS3Keys must be",
        ),
        (
            "ComfyUiPhotoMakeUpLipsThumbnailsMessage",
            {"InputS3Key": "photos/none.png", "SourceS3Keys": ["photos/none.png"]},
            "The input image does not exist.",
        ),
        (
            "ComfyUiLatentSyncMessage",
            {"VideoS3Key": "a.mp4", "AudioS3Key": "b.mp3", "AudioS3Bucket": "foreign"},
            "not allowed",
        ),
    ],
)
def test_a_wrong_message_gets_its_error_reply(
    backend: Backend, await_reply: Any, subject: str, members: dict[str, Any], error: str
):
    name = send(backend, subject, **members)
    envelope = await_reply(name)
    assert envelope["source"] == "ComfyUiError"
    assert envelope["type"] == "Frever.Client.Shared.AI.ComfyUi.Contract.ComfyUiError"
    assert error in envelope["data"]["Error"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("this is no JSON", "INVALID_JSON"),
        (json.dumps({"Subject": "ComfyUiFluxPromptMessage", "Payload": "{}"}), "INVALID_MESSAGE"),
    ],
)
def test_a_message_that_nobody_can_be_told_about_is_in_the_dead_letter_queue(
    backend: Backend, body: str, code: str
):
    backend.send(body)
    url = backend.ready["input_queue_url"] + "-deadletter"
    found: list[tuple[str, str]] = []
    end = time.monotonic() + REPLY_SECONDS
    while (body, code) not in found and time.monotonic() < end:
        answer = backend.sqs.receive_message(
            QueueUrl=url,
            WaitTimeSeconds=1,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            VisibilityTimeout=0,
        )
        for message in answer.get("Messages", []):
            attributes = message["MessageAttributes"]
            found.append((message["Body"], attributes["RefusalCode"]["StringValue"]))
            # Other tests use this stage, too.
            backend.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert (body, code) in found, set(found)


def test_fault_01_a_message_sent_twice_is_answered_once(backend: Backend, await_reply: Any):
    partial_name = str(uuid.uuid4())
    payload = {
        "S3Bucket": backend.ready["input_bucket"],
        "GroupId": 1,
        "PartialName": partial_name,
        "PromptText": "twice",
    }
    body = json.dumps(
        {
            "Subject": "ComfyUiFluxPromptMessage",
            "MessageId": str(uuid.uuid4()),
            "Payload": json.dumps(payload),
        }
    )
    backend.send(body)
    backend.send(body)
    first = await_reply(partial_name)
    backend.send(body)
    # The next job's reply comes after anything that the repeats would have caused.
    await_reply(send(backend, "ComfyUiFluxPromptMessage", PromptText="next"))
    assert await_reply(partial_name) is first


def test_every_queue_is_empty_and_every_slot_free_in_the_end(backend: Backend):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        counts = []
        urls = [backend.ready["input_queue_url"]]
        urls += [fleet["task_queue_url"] for fleet in backend.ready["fleets"].values()]
        for url in urls:
            attributes = backend.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            attributes = attributes["Attributes"]
            counts.append(int(attributes["ApproximateNumberOfMessages"]))
            counts.append(int(attributes["ApproximateNumberOfMessagesNotVisible"]))
        slots = [
            instance.jobs
            for fleet in backend.ready["fleets"]
            for instance in backend.fleets.list_instances(fleet)
            if instance.jobs
        ]
        if not any(counts) and not slots:
            return
        time.sleep(0.2)
    raise AssertionError(f"messages {counts}, slots {slots}")


def test_a_result_that_does_not_exist_is_not_there(backend: Backend):
    with pytest.raises(ClientError, match="NoSuchKey"):
        backend.read_result("comfyui-results/none.png")
