"""Messages, jobs and instances as tests need them: valid, and changed where it matters."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.fleets import Fleet, Instance
from ml_service.domain.hand_offs import HandOff, read_hand_off
from ml_service.domain.inputs import resolve_inputs
from ml_service.domain.jobs import Job, JobState, make_fingerprint
from ml_service.services.dispatch_jobs import DispatchJobs
from ml_service.services.finish_job import FinishJob
from ml_service.services.hand_off_video import HandOffVideo
from tests.fakes import NOON

PROJECT = Path(__file__).parent.parent
CATALOG = load_catalog(PROJECT / "workflows")
BUCKET = "inputs"
PARTIAL_NAME = "0e8a3f0a-6f5c-4c1b-9e57-1d2f6a1c9b11"
QUEUE_ARN = "arn:aws:sqs:us-east-1:123456789012:convert"
JOB_ID = "5b0a5f7e-7a86-4c58-8a8e-6d3a4f2e1c00"

FLEETS = {
    name: Fleet(
        task_queue_url=f"https://sqs/{name}",
        group_name=f"group-{name}",
        threshold=threshold,
        slots_per_instance=2 * threshold + 4,
    )
    for name, threshold in (("lip-sync", 3), ("pulid", 5), ("makeup", 5))
}

SUBJECTS = {
    "flux-prompt": "ComfyUiFluxPromptMessage",
    "latent-sync": "ComfyUiLatentSyncMessage",
    "photo-make-up-lips-thumbnails": "ComfyUiPhotoMakeUpLipsThumbnailsMessage",
}

_MEMBERS: dict[str, dict[str, Any]] = {
    "flux-prompt": {"PromptText": "a red kite over the sea"},
    "latent-sync": {
        "VideoS3Key": "videos/7/clip.mp4",
        "AudioS3Key": "audio/voice.mp3",
        "LevelId": 7,
        "VideoId": 9,
        "Version": "1",
        "VideoDurationSeconds": 4,
        "StartTimeSeconds": 1,
        "ResultVideoDurationSeconds": 3,
    },
    "photo-make-up-lips-thumbnails": {
        "InputS3Key": "photos/face.png",
        "SourceS3Keys": ["photos/lips.png"],
        "ContextValues": [],
    },
}


def make_payload(workflow: str = "flux-prompt", **changes: Any) -> dict[str, Any]:
    """A payload; a change to None leaves the member out, as the sender does."""
    payload = {
        "Env": "dev",
        "S3Bucket": BUCKET,
        "GroupId": 42,
        "PartialName": PARTIAL_NAME,
        **_MEMBERS[workflow],
        **changes,
    }
    return {name: value for name, value in payload.items() if value is not None}


def make_body(
    workflow: str = "flux-prompt", *, payload: dict[str, Any] | None = None, **changes: Any
) -> str:
    """An SQS body."""
    envelope = {
        "Subject": SUBJECTS[workflow],
        "MessageId": JOB_ID,
        "Payload": json.dumps(make_payload(workflow) if payload is None else payload),
        "Timestamp": "2026-11-21T12:00:00Z",
        **changes,
    }
    return json.dumps({name: value for name, value in envelope.items() if value is not None})


def make_job(
    workflow: str = "flux-prompt", *, state: JobState = JobState.QUEUED, **changes: Any
) -> Job:
    """A job record as dispatch writes it."""
    manifest = CATALOG.workflow(workflow)
    payload = make_payload(workflow)
    return Job(
        **{
            "job_id": JOB_ID,
            "state": state,
            "subject": manifest.subject,
            "partial_name": PARTIAL_NAME,
            "fingerprint": make_fingerprint(manifest.subject, payload),
            "received_at": NOON,
            "deadline": NOON + timedelta(hours=24),
            "expires_at": int(NOON.timestamp()) + 90 * 86400,
            "workflow": workflow,
            "fleet": manifest.fleet,
            "inputs": resolve_inputs(
                manifest,
                payload,
                partial_name=PARTIAL_NAME,
                input_buckets=frozenset({BUCKET}),
            ),
            "seed": 7,
            "run_seconds": 3600,
            "expected_seconds": 20.0,
            **changes,
        }
    )


def make_convert_info(**changes: Any) -> dict[str, Any]:
    """A MediaConvertInfo whose bucket and queue are allowed."""
    info = {
        "VideoId": 9,
        "MediaConvertJobSqsQueue": "https://sqs.us-east-1.amazonaws.com/123456789012/convert",
        "DestinationBucketPath": "videos/7/9",
        "MediaConvertJobRoleArn": "arn:aws:iam::123456789012:role/convert",
        "MediaConvertVideoJobTemplateName": "video",
        "MediaConvertVideoThumbnailJobTemplateName": "thumbnail",
        "MediaConvertQueue": "queue",
        "HasLandscapeOrientation": False,
        **changes,
    }
    return {name: value for name, value in info.items() if value is not None}


def make_hand_off(**changes: Any) -> HandOff:
    """What dispatch makes of it."""
    hand_off = read_hand_off(
        make_convert_info(**changes),
        label="MediaConvertInfo",
        buckets={"videos"},
        queue_arns={QUEUE_ARN},
    )
    assert hand_off is not None
    return hand_off


def make_instance(
    name: str = "a", *, reading: int | None = 0, at: datetime = NOON, **changes: Any
) -> Instance:
    """A ready instance."""
    return Instance(
        **{
            "key": f"i-{name}#1",
            "instance_id": f"i-{name}",
            "address": f"10.0.0.{ord(name[0]) - 96}",
            "in_service": True,
            "takes_jobs": True,
            "reading": reading,
            "read_at": at,
            "warmed_at": at,
            **changes,
        }
    )


def make_dispatch_jobs(world: Any) -> DispatchJobs:
    """dispatch_jobs on the fakes of a test's world."""
    return DispatchJobs(
        catalog=CATALOG,
        jobs=world.jobs,
        task_queues=world.queues,
        refused_messages=world.refused,
        topic=world.topic,
        admission=world.admission,
        input_buckets=frozenset({BUCKET}),
        hand_off_buckets=frozenset({"videos"}),
        hand_off_queue_arns=frozenset({QUEUE_ARN}),
    )


def make_finish_job(world: Any) -> FinishJob:
    """finish_job on the fakes of a test's world."""
    return FinishJob(
        CATALOG,
        world.jobs,
        world.store,
        world.topic,
        world.admission,
        world.canceller,
        HandOffVideo(world.jobs, world.media, world.conversions),
        "results",
    )
