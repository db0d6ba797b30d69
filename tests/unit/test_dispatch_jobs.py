import json
from dataclasses import dataclass, field

from ml_service.domain.errors import RefusalCode
from ml_service.domain.jobs import JobState
from ml_service.ports import QueuedMessage
from ml_service.services.dispatch_jobs import DispatchReport, DispatchStatus
from tests.fakes import (
    NOON,
    InMemoryAdmission,
    InMemoryJobQueue,
    InMemoryJobStore,
    InMemoryRefusedMessages,
    InMemoryReplyTopic,
)
from tests.makers import (
    FLEETS,
    JOB_ID,
    PARTIAL_NAME,
    make_body,
    make_dispatch_jobs,
    make_payload,
)


@dataclass
class World:
    jobs: InMemoryJobStore = field(default_factory=InMemoryJobStore)
    queues: dict[str, InMemoryJobQueue] = field(
        default_factory=lambda: {name: InMemoryJobQueue() for name in FLEETS}
    )
    refused: InMemoryRefusedMessages = field(default_factory=InMemoryRefusedMessages)
    topic: InMemoryReplyTopic = field(default_factory=InMemoryReplyTopic)
    admission: InMemoryAdmission = field(default_factory=InMemoryAdmission)

    def dispatch(self, *bodies: str) -> DispatchReport:
        service = make_dispatch_jobs(self)
        messages = [QueuedMessage(f"sqs-{i}", body) for i, body in enumerate(bodies)]
        return service.dispatch(messages, now=NOON, new_seed=lambda: 7)

    def errors(self) -> list[dict[str, str]]:
        return [json.loads(json.loads(reply)["data"]) for reply in self.topic.replies]


def statuses(report: DispatchReport) -> list[DispatchStatus]:
    return [outcome.status for outcome in report.outcomes]


def test_each_subject_goes_to_its_fleet_with_its_body_unchanged():
    world = World()
    bodies = [
        make_body(name, MessageId=f"job-{name}")
        for name in ("latent-sync", "flux-prompt", "photo-make-up-lips-thumbnails")
    ]
    report = world.dispatch(*bodies)
    assert statuses(report) == [DispatchStatus.FORWARDED] * 3
    for fleet, body in zip(("lip-sync", "pulid", "makeup"), bodies, strict=True):
        assert [m.body for m in world.queues[fleet].visible] == [body]
    assert sorted(world.admission.kicked) == ["lip-sync", "makeup", "pulid"]
    job = world.jobs.get("job-latent-sync")
    assert (job.state, job.workflow, job.seed) == (JobState.QUEUED, "latent-sync", 7)


def test_the_job_id_travels_as_an_attribute_where_the_body_has_none():
    world = World()
    world.dispatch(make_body(MessageId=None))
    (message,) = world.queues["pulid"].visible
    assert message.attributes == {"JobId": {"DataType": "String", "StringValue": "sqs-0"}}


def test_fault_04_a_poison_message_blocks_no_other():
    world = World()
    report = world.dispatch("poison", make_body())
    assert statuses(report) == [DispatchStatus.REFUSED, DispatchStatus.FORWARDED]


def test_a_wrong_message_gets_its_error_reply_through_a_failed_record():
    world = World()
    report = world.dispatch(make_body(Subject="Unknown"))
    (outcome,) = report.outcomes
    assert outcome.code is RefusalCode.UNKNOWN_SUBJECT
    assert world.errors() == [
        {"PartialName": PARTIAL_NAME, "Error": "The message's Subject is unknown."}
    ]
    job = world.jobs.get(outcome.job_id)
    assert job.state is JobState.FAILED
    assert job.published_at == NOON
    assert world.refused.kept == []


def test_a_wrong_message_that_nobody_can_be_told_about_is_kept_with_its_code():
    world = World()
    report = world.dispatch("poison")
    assert statuses(report) == [DispatchStatus.REFUSED]
    assert world.refused.kept == [("poison", "INVALID_JSON")]
    assert world.topic.replies == []


def test_a_refused_message_that_comes_again_is_answered_once():
    world = World()
    world.dispatch(make_body(Subject="Unknown"))
    world.dispatch(make_body(Subject="Unknown"))
    assert len(world.topic.replies) == 1


def test_fault_07_a_message_delivered_again_before_admission_is_forwarded_again():
    # The first delivery may have crashed between record and queue.
    world = World()
    world.dispatch(make_body())
    assert statuses(world.dispatch(make_body())) == [DispatchStatus.FORWARDED]
    assert len(world.queues["pulid"].visible) == 2


def test_a_message_delivered_again_after_admission_is_left_alone():
    world = World()
    world.dispatch(make_body())
    job = world.jobs.get(JOB_ID)
    world.jobs.save(job.admit(instance="i", instance_id="i", address="", at=NOON))
    assert statuses(world.dispatch(make_body())) == [DispatchStatus.REPEATED]
    assert len(world.queues["pulid"].visible) == 1


def test_fault_03_another_message_under_a_taken_id_is_a_conflict():
    world = World()
    other_name = PARTIAL_NAME.replace("0", "1")
    world.dispatch(make_body())
    report = world.dispatch(make_body(payload=make_payload(PartialName=other_name)))
    assert report.outcomes[0].code is RefusalCode.CONFLICT
    assert [error["PartialName"] for error in world.errors()] == [other_name]
    assert world.jobs.get(JOB_ID).state is JobState.QUEUED


def test_fault_03_a_conflict_under_the_same_partial_name_is_silent():
    world = World()
    world.dispatch(make_body())
    report = world.dispatch(make_body(payload=make_payload(PromptText="other")))
    assert report.outcomes[0].code is RefusalCode.CONFLICT
    assert world.topic.replies == []


def test_what_the_task_queue_does_not_take_goes_back():
    world = World()
    world.queues["pulid"].refuses.add("sqs-0")
    report = world.dispatch(make_body(), make_body("latent-sync", MessageId="other"))
    assert statuses(report) == [DispatchStatus.RETURNED, DispatchStatus.FORWARDED]


def test_fault_12_a_lost_kick_does_not_bring_messages_back():
    world = World(admission=InMemoryAdmission(breaks=True))
    report = world.dispatch(make_body())
    assert statuses(report) == [DispatchStatus.FORWARDED]
    assert list(report.lost_kicks) == ["pulid"]


def test_fault_08_a_fault_of_our_own_returns_only_its_message():
    class BrokenOnce(InMemoryJobStore):
        def add(self, job):
            if job.job_id == JOB_ID:
                raise RuntimeError("throttled")
            return super().add(job)

    world = World(jobs=BrokenOnce())
    report = world.dispatch(make_body(), make_body(MessageId="other"))
    assert statuses(report) == [DispatchStatus.RETURNED, DispatchStatus.FORWARDED]
    assert str(report.outcomes[0].error) == "throttled"
