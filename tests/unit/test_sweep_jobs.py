from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from ml_service.domain.jobs import Job, JobState
from ml_service.domain.results import OutputFile
from ml_service.services.sweep_jobs import SweepAction, SweepJobs, SweepReport
from tests.fakes import (
    NOON,
    InMemoryAdmission,
    InMemoryConversionQueues,
    InMemoryFleetStore,
    InMemoryJobRunner,
    InMemoryJobStore,
    InMemoryMediaStore,
    InMemoryPromptCanceller,
    InMemoryReplyTopic,
)
from tests.makers import (
    FLEETS,
    JOB_ID,
    QUEUE_ARN,
    make_finish_job,
    make_hand_off,
    make_instance,
    make_job,
)

FLEET = "pulid"
SECOND = timedelta(seconds=1)


@dataclass
class World:
    jobs: InMemoryJobStore
    store: InMemoryFleetStore = field(default_factory=lambda: InMemoryFleetStore(FLEET))
    runner: InMemoryJobRunner = field(default_factory=InMemoryJobRunner)
    topic: InMemoryReplyTopic = field(default_factory=InMemoryReplyTopic)
    admission: InMemoryAdmission = field(default_factory=InMemoryAdmission)
    canceller: InMemoryPromptCanceller = field(default_factory=InMemoryPromptCanceller)
    media: InMemoryMediaStore = field(default_factory=InMemoryMediaStore)
    conversions: InMemoryConversionQueues = field(default_factory=InMemoryConversionQueues)

    def sweep(self, after: timedelta) -> SweepReport:
        finish = make_finish_job(self)
        service = SweepJobs(FLEETS, self.jobs, self.store, self.runner, finish, self.canceller)
        return service.sweep(NOON + after)


def admitted(job: Job | None = None) -> Job:
    return (job or make_job()).admit(
        instance="i-a#1", instance_id="i-a", address="10.0.0.1", at=NOON
    )


def submitted() -> Job:
    return admitted().submit(prompt_id="p", at=NOON)


def submitted_video() -> Job:
    job = admitted(make_job("latent-sync", hand_off=make_hand_off()))
    job = job.submit(prompt_id="p", at=NOON)
    return job.list_outputs((OutputFile(filename="a.mp4"),))


def closed() -> Job:
    return submitted().close(JobState.CANCELLED, reply="the reply", at=NOON)


@pytest.mark.parametrize(
    ("job", "grace", "action"),
    [
        (make_job(), timedelta(hours=24), SweepAction.CLOSED),
        (admitted(), timedelta(minutes=1), SweepAction.RESTARTED),
        (submitted(), timedelta(minutes=65), SweepAction.CLOSED),
        (closed(), timedelta(minutes=2), SweepAction.PUBLISHED),
        (closed().mark_published(NOON), timedelta(minutes=1), SweepAction.CANCELLED),
    ],
    ids=["queued", "admitted", "submitted", "unpublished", "prompt left behind"],
)
def test_each_state_is_left_alone_until_its_due_time(job, grace, action):
    world = World(InMemoryJobStore(job))
    assert world.sweep(grace - SECOND).counts == {}
    assert world.sweep(grace).counts == {action: 1}


@pytest.mark.parametrize(
    ("closed_queues", "action"),
    [(set(), SweepAction.HANDED_OFF), ({QUEUE_ARN}, SweepAction.HAND_OFF_FAILED)],
)
def test_a_video_that_was_not_handed_on_is(closed_queues: set[str], action: SweepAction):
    job = submitted_video().collect(("comfyui-results/a.mp4",))
    job = job.close(JobState.SUCCEEDED, reply="r", at=NOON).mark_published(NOON)
    world = World(InMemoryJobStore(job))
    world.media.results["comfyui-results/a.mp4"] = (b"video", "video/mp4")
    world.conversions.closed = closed_queues
    assert world.sweep(timedelta(minutes=2) - SECOND).counts == {}
    assert world.sweep(timedelta(minutes=2)).counts == {action: 1}
    assert world.sweep(timedelta(minutes=9)).counts == {}
    assert world.media.copies == {("videos", "7/9/video.mp4"): b"video"}
    assert world.topic.replies == []


def test_a_job_that_waited_for_too_long_is_answered():
    world = World(InMemoryJobStore(make_job()))
    world.sweep(timedelta(hours=24))
    job = world.jobs.get(JOB_ID)
    assert (job.state, job.failure.code) == (JobState.EXPIRED, "DEADLINE_EXCEEDED")
    assert "The job did not start in time." in world.topic.replies[0]


def test_an_admitted_job_gets_the_execution_that_was_never_started():
    world = World(InMemoryJobStore(admitted()))
    world.sweep(timedelta(minutes=1))
    assert world.runner.started == [(JOB_ID, 1)]
    assert world.jobs.get(JOB_ID).state is JobState.ADMITTED


def test_an_admitted_job_that_waits_for_a_slot_is_left_alone():
    world = World(InMemoryJobStore(admitted().leave_instance()))
    world.store.wait_for_slot(FLEET, JOB_ID)
    world.runner.start(JOB_ID, 1)
    for minute in range(1, 4):
        assert world.sweep(timedelta(minutes=minute)).counts == {}
    assert world.jobs.get(JOB_ID).state is JobState.ADMITTED
    assert world.store.list_waiting(FLEET) == {JOB_ID}


def test_an_admitted_job_whose_execution_has_ended_is_answered():
    world = World(InMemoryJobStore(admitted()), runner=InMemoryJobRunner(ended={JOB_ID}))
    assert world.sweep(timedelta(minutes=1)).counts == {SweepAction.CLOSED: 1}
    assert world.jobs.get(JOB_ID).failure.code == "EXECUTION_LOST"
    assert len(world.topic.replies) == 1


def test_a_job_past_its_run_deadline_is_answered_and_its_prompt_cancelled():
    world = World(InMemoryJobStore(submitted()))
    world.sweep(timedelta(minutes=65))
    assert world.jobs.get(JOB_ID).state is JobState.EXPIRED
    assert world.canceller.asked == [JOB_ID]


def test_a_stored_reply_is_published_once_and_as_it_was():
    world = World(InMemoryJobStore(closed()))
    for minutes in (2, 3, 4):
        world.sweep(timedelta(minutes=minutes))
    assert world.topic.replies == ["the reply"]


def test_a_job_with_nothing_left_to_do_is_never_due():
    job = closed().mark_published(NOON).drop_abandoned({"p"})
    assert job.due_at is None
    assert World(InMemoryJobStore(job)).sweep(timedelta(days=30)).counts == {}


def test_the_index_may_lag_behind_the_records():
    class Lagging(InMemoryJobStore):
        def list_due(self, now, *, limit):
            return [JOB_ID]

    assert World(Lagging(submitted())).sweep(timedelta(minutes=1)).counts == {}


@pytest.mark.parametrize(
    ("job", "waits"),
    [
        (admitted().leave_instance(), True),
        (admitted(), False),
        (closed(), False),
        (make_job(), False),
        (make_job(job_id="another"), False),
    ],
    ids=["without a place", "placed", "closed", "in its queue again", "unknown"],
)
def test_only_a_job_without_a_place_keeps_the_slot_that_is_reserved_for_it(job, waits):
    world = World(InMemoryJobStore(job))
    world.store.wait_for_slot(FLEET, JOB_ID)
    world.sweep(SECOND)
    assert world.store.list_waiting(FLEET) == ({JOB_ID} if waits else set())


@pytest.mark.parametrize(
    ("job", "kept"),
    [
        (admitted(), True),
        (submitted(), True),
        (make_job(), False),
        (admitted().leave_instance(), False),
        (closed().mark_published(NOON).drop_abandoned({"p"}), False),
        (None, False),
    ],
    ids=["admitted", "submitted", "not admitted", "placed elsewhere", "closed", "no record"],
)
def test_only_the_jobs_that_run_on_an_instance_keep_their_slots(job, kept):
    jobs = InMemoryJobStore(*([job] if job else []))
    store = InMemoryFleetStore(FLEET, make_instance("a", jobs=frozenset({JOB_ID})))
    report = World(jobs, store).sweep(timedelta(0))
    (instance,) = store.list_instances(FLEET)
    assert instance.jobs == ({JOB_ID} if kept else set())
    assert report.counts == ({} if kept else {SweepAction.SLOT_RETURNED: 1})


def test_one_job_that_cannot_be_mended_does_not_keep_the_others_waiting():
    class Broken(InMemoryJobStore):
        def get(self, job_id):
            if job_id == "broken":
                raise RuntimeError("throttled")
            return super().get(job_id)

    world = World(Broken(closed().model_copy(update={"job_id": "broken"}), closed()))
    report = world.sweep(timedelta(minutes=2))
    assert report.counts == {SweepAction.PUBLISHED: 1}
    assert [str(error) for error in report.errors] == ["throttled"]
