"""Finished videos on their way to MediaConvert: what is allowed, and that none is lost."""

import json
from typing import Any

import pytest

from ml_service.domain.errors import RefusedMessageError
from ml_service.domain.hand_offs import HandOffState, make_conversion_messages
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.results import OutputFile
from ml_service.services.finish_job import FinishJob
from ml_service.services.hand_off_video import HandOffVideo
from tests.fakes import (
    NOON,
    InMemoryAdmission,
    InMemoryConversionQueues,
    InMemoryFleetStore,
    InMemoryJobStore,
    InMemoryMediaStore,
    InMemoryPromptCanceller,
    InMemoryReplyTopic,
)
from tests.makers import (
    CATALOG,
    JOB_ID,
    QUEUE_ARN,
    make_convert_info,
    make_hand_off,
    make_job,
)

KEY = "comfyui-results/video.mp4"


class World:
    """A job whose video is in the result bucket."""

    def __init__(self, **info: Any) -> None:
        job = make_job("latent-sync", hand_off=make_hand_off(**info))
        job = job.admit(instance="i", instance_id="i", address="", at=NOON)
        job = job.submit(prompt_id="p", at=NOON).list_outputs((OutputFile(filename="video.mp4"),))
        self.jobs = InMemoryJobStore(job.collect((KEY,)))
        self.media = InMemoryMediaStore(results={KEY: (b"video", "video/mp4")})
        self.queues = InMemoryConversionQueues()
        self.topic = InMemoryReplyTopic()
        self.admission = InMemoryAdmission()

    def finish(self) -> Job:
        return FinishJob(
            CATALOG,
            self.jobs,
            InMemoryFleetStore(),
            self.topic,
            self.admission,
            InMemoryPromptCanceller(),
            HandOffVideo(self.jobs, self.media, self.queues),
            "results",
        ).finish(JOB_ID, run=1, error=None, now=NOON)

    @property
    def state(self) -> HandOffState:
        return self.jobs.get(JOB_ID).hand_off.state


def test_the_video_is_copied_and_two_messages_ask_for_its_conversion():
    world = World()
    job = world.finish()
    assert job.state is JobState.SUCCEEDED
    assert world.media.copies == {("videos", "7/9/video.mp4"): b"video"}
    assert [(arn, json.loads(text)) for arn, text in world.queues.sent] == [
        (QUEUE_ARN, {**make_convert_info(), "ConversionType": conversion_type})
        for conversion_type in ("Video", "Thumbnail")
    ]
    assert world.state is HandOffState.DONE
    assert job.due_at is None


def test_it_is_done_once_however_often_the_job_is_finished():
    world = World()
    world.finish()
    world.finish()
    assert len(world.queues.sent) == 2


@pytest.mark.parametrize("queue", [QUEUE_ARN, "http://127.0.0.1:4100/123456789012/convert"])
@pytest.mark.parametrize("path", ["videos/7/9", "s3://videos/7/9/", "videos/7/9/"])
def test_queue_and_path_may_be_written_in_several_ways(queue: str, path: str):
    hand_off = make_hand_off(MediaConvertJobSqsQueue=queue, DestinationBucketPath=path)
    assert (hand_off.bucket, hand_off.key) == ("videos", "7/9/video.mp4")
    assert hand_off.queue_arn == QUEUE_ARN


@pytest.mark.parametrize(
    "info",
    [
        {"DestinationBucketPath": "others/7"},
        {"DestinationBucketPath": "s3://others/7"},
        {"DestinationBucketPath": "videos.evil/7"},
        {"DestinationBucketPath": "videos/../others"},
        {"DestinationBucketPath": "videos/" + "a" * 1024},
        {"MediaConvertJobSqsQueue": "https://sqs.us-east-1.amazonaws.com/123456789012/other"},
        {"MediaConvertJobSqsQueue": "https://sqs.us-east-1.amazonaws.com/999999999999/convert"},
        {"MediaConvertJobSqsQueue": "convert"},
    ],
)
def test_outside_the_allow_list_only_the_result_is_delivered(info: dict[str, str]):
    world = World(**info)
    assert world.finish().state is JobState.SUCCEEDED
    assert len(world.topic.replies) == 1
    assert (world.media.copies, world.queues.sent) == ({}, [])
    assert world.state is HandOffState.REFUSED
    assert world.jobs.get(JOB_ID).due_at is None


@pytest.mark.parametrize("what", ["bucket", "queue", "result"])
def test_a_hand_off_that_can_never_be_is_given_up(what: str):
    world = World()
    if what == "bucket":
        world.media.forbidden_buckets.add("videos")
    elif what == "queue":
        world.queues.closed.add(QUEUE_ARN)
    else:
        world.media.results.clear()
    assert world.finish().state is JobState.SUCCEEDED
    assert world.queues.sent == []
    assert world.state is HandOffState.FAILED


class CrashError(RuntimeError):
    pass


@pytest.mark.parametrize("crash", ["copy", "first message", "second message", "mark"])
def test_a_crash_at_any_point_loses_neither_video_nor_messages(crash: str):
    world = World()
    left = {"first message": 0, "second message": 1}.get(crash, 2)
    broken = [True]

    class CrashingMedia(InMemoryMediaStore):
        def copy_result(self, key, *, to_bucket, to_key):
            if crash == "copy" and broken:
                broken.clear()
                raise CrashError
            super().copy_result(key, to_bucket=to_bucket, to_key=to_key)

    class CrashingQueues(InMemoryConversionQueues):
        def send(self, queue_arn, messages):
            if crash.endswith("message") and broken:
                broken.clear()
                super().send(queue_arn, messages[:left])
                raise CrashError
            super().send(queue_arn, messages)

    class CrashingJobs(InMemoryJobStore):
        def save(self, job):
            if crash == "mark" and broken and job.hand_off.state is HandOffState.DONE:
                broken.clear()
                raise CrashError
            super().save(job)

    world.media = CrashingMedia(results=world.media.results)
    world.queues = CrashingQueues()
    world.jobs = CrashingJobs(*world.jobs.jobs.values())
    with pytest.raises(CrashError):
        world.finish()
    job = world.jobs.get(JOB_ID)
    assert (len(world.topic.replies), world.admission.kicked) == (1, ["lip-sync"])
    assert job.due_at is not None, "the sweep would not come by"
    world.finish()
    assert world.state is HandOffState.DONE
    assert len(world.topic.replies) == 1
    assert {json.loads(text)["ConversionType"] for _, text in world.queues.sent} == {
        "Video",
        "Thumbnail",
    }
    assert world.media.copies == {("videos", "7/9/video.mp4"): b"video"}


def test_a_failed_job_hands_nothing_on():
    job = make_job("latent-sync", hand_off=make_hand_off())
    closed = job.close(JobState.FAILED, reply="r", at=NOON).mark_published(NOON)
    assert closed.due_at is None
    assert not closed.needs_hand_off


def test_members_that_the_sender_left_out_are_left_out_of_the_messages():
    hand_off = make_hand_off(MediaConvertQueue=None, Extra="x")
    for text in make_conversion_messages(hand_off):
        assert json.loads(text).keys().isdisjoint({"MediaConvertQueue", "Extra"})


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        ({"DestinationBucketPath": None}, "MediaConvertInfo.DestinationBucketPath must be a text"),
        ({"DestinationBucketPath": " "}, "MediaConvertInfo.DestinationBucketPath must be a text"),
        ({"MediaConvertJobSqsQueue": 3}, "MediaConvertInfo.MediaConvertJobSqsQueue must be a text"),
        ({"VideoId": [9]}, "MediaConvertInfo.VideoId must be a text, an integer"),
        ({"VideoId": 2**63}, "MediaConvertInfo.VideoId must be a text, an integer"),
        ({"MediaConvertQueue": "\ud800"}, "MediaConvertInfo.MediaConvertQueue must be a text"),
    ],
)
def test_a_wrong_member_refuses_the_message_by_name(info: dict[str, object], sentence: str):
    with pytest.raises(RefusedMessageError, match=sentence):
        make_hand_off(**info)
