"""Redriving and dropping dead letters: no job runs twice for it, and none is lost."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from ml_service.domain.errors import JobNotFoundError, RedriveRefusedError
from ml_service.domain.job_requests import read_job_request
from ml_service.domain.jobs import REDRIVE_PATIENCE, Failure, Job, JobState
from ml_service.ports import DeadLetter, QueuedMessage
from ml_service.services.admit_jobs import AdmissionStatus, AdmitJobs, find_job_id
from ml_service.services.dispatch_jobs import JOB_ID_ATTRIBUTE, DispatchJobs, DispatchStatus
from ml_service.services.finish_job import FinishJob, StepError
from ml_service.services.hand_off_video import HandOffVideo
from ml_service.services.redrive_job import RedriveJob, RedriveStatus
from ml_service.services.refresh_registry import RefreshRegistry
from ml_service.services.triage_dead_letters import DropStatus, TriageDeadLetters
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryAdmission,
    InMemoryConversionQueues,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryInstanceProbe,
    InMemoryInstanceWarmer,
    InMemoryJobQueue,
    InMemoryJobRunner,
    InMemoryJobStopper,
    InMemoryJobStore,
    InMemoryMediaStore,
    InMemoryPromptCanceller,
    InMemoryRefusedMessages,
    InMemoryReplyTopic,
)
from tests.makers import BUCKET, CATALOG, FLEETS, JOB_ID, make_body, make_instance, make_job

FLEET = "pulid"
LATER = NOON + timedelta(days=3)
PLACE = {"instance": "i-a#1", "instance_id": "i-a", "address": "10.0.0.1"}
CLOSED_WITHOUT_RESULT = [JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED]


def text(value: str) -> dict[str, object]:
    return {"DataType": "String", "StringValue": value}


def task_letter(body: str | None = None, **attributes: str) -> DeadLetter:
    message = QueuedMessage(
        "sqs-1", body or make_body(), attributes={k: text(v) for k, v in attributes.items()}
    )
    return DeadLetter(message, NOON, fleet=FLEET)


def input_letter(body: str | None = None, **attributes: str) -> DeadLetter:
    message = QueuedMessage(
        "sqs-1", body or make_body(), attributes={k: text(v) for k, v in attributes.items()}
    )
    return DeadLetter(message, NOON)


BOTH_QUEUES = pytest.mark.parametrize(
    "letter", [task_letter(), input_letter()], ids=["task queue", "input queue"]
)


def running() -> Job:
    return make_job().admit(**PLACE, at=NOON).submit(prompt_id="p", at=NOON)


def closed(state: JobState, **changes: object) -> Job:
    failure = None if state is JobState.SUCCEEDED else Failure(code="X", sentence="No.")
    job = running().close(state, reply='{"id": "first"}', at=NOON, failure=failure)
    return job.mark_published(NOON).drop_abandoned({"p"}).model_copy(update=changes)


@dataclass
class World:
    jobs: InMemoryJobStore
    runner: InMemoryJobRunner = field(default_factory=InMemoryJobRunner)
    stopper: InMemoryJobStopper = field(default_factory=InMemoryJobStopper)
    input_queue: InMemoryJobQueue = field(default_factory=InMemoryJobQueue)
    task_queue: InMemoryJobQueue = field(default_factory=InMemoryJobQueue)
    topic: InMemoryReplyTopic = field(default_factory=InMemoryReplyTopic)
    store: InMemoryFleetStore = field(
        default_factory=lambda: InMemoryFleetStore(FLEET, make_instance("a", at=LATER))
    )
    clock: FakeClock = field(default_factory=lambda: FakeClock(LATER))

    @property
    def triage(self) -> TriageDeadLetters:
        return TriageDeadLetters(
            jobs=self.jobs,
            redrive_job=RedriveJob(self.jobs, self.runner, {FLEET: self.task_queue}, self.clock),
            stopper=self.stopper,
            input_queue=self.input_queue,
        )

    @property
    def job(self) -> Job:
        return self.jobs.get(JOB_ID)

    def admit(self) -> list[str]:
        service = AdmitJobs(
            fleets={FLEET: FLEETS[FLEET]},
            task_queues={FLEET: self.task_queue},
            jobs=self.jobs,
            store=self.store,
            registry=RefreshRegistry(
                self.store,
                InMemoryInstancePool({}),
                InMemoryInstanceProbe({}),
                InMemoryInstanceWarmer(),
            ),
            runner=self.runner,
            admission=InMemoryAdmission(),
            clock=self.clock,
        )
        report = service.admit(FLEET)
        assert report.counts.keys() <= {AdmissionStatus.ADMITTED, AdmissionStatus.REPEATED}
        return report.job_ids

    def finish(self, *, run: int, error: StepError | None = None) -> None:
        FinishJob(
            CATALOG,
            self.jobs,
            self.store,
            self.topic,
            InMemoryAdmission(),
            InMemoryPromptCanceller(),
            HandOffVideo(self.jobs, InMemoryMediaStore(), InMemoryConversionQueues()),
            "results",
        ).finish(JOB_ID, run=run, error=error, now=self.clock.now())

    def dispatch(self) -> list[DispatchStatus]:
        service = DispatchJobs(
            catalog=CATALOG,
            jobs=self.jobs,
            task_queues={FLEET: self.task_queue},
            refused_messages=InMemoryRefusedMessages(),
            topic=self.topic,
            admission=InMemoryAdmission(),
            input_buckets=frozenset({BUCKET}),
            hand_off_buckets=frozenset(),
            hand_off_queue_arns=frozenset(),
        )
        # On another queue a message has another SQS id.
        messages = [
            QueuedMessage(f"resent-{n}", message.body, attributes=message.attributes)
            for n, message in enumerate(self.input_queue.visible)
        ]
        report = service.dispatch(messages, now=self.clock.now(), new_seed=lambda: 7)
        return [outcome.status for outcome in report.outcomes]


@BOTH_QUEUES
def test_fault_33_a_job_that_has_succeeded_is_not_run_again(letter: DeadLetter):
    job = closed(JobState.SUCCEEDED)
    w = World(InMemoryJobStore(job))
    assert w.triage.redrive(letter) is RedriveStatus.SUCCEEDED
    assert w.job == job
    assert w.input_queue.visible == w.task_queue.visible == []


def test_fault_33_not_even_if_it_is_sent_back_without_these_commands():
    """The console of AWS can move messages too; it knows nothing of jobs."""
    w = World(InMemoryJobStore(closed(JobState.SUCCEEDED)))
    w.input_queue.send([input_letter().message])
    w.task_queue.send([task_letter().message])
    assert w.dispatch() == [DispatchStatus.REPEATED]
    assert w.admit() == []
    assert w.runner.started == []


@pytest.mark.parametrize("state", CLOSED_WITHOUT_RESULT)
@BOTH_QUEUES
def test_fault_34_a_job_without_a_result_runs_again_under_a_new_name(
    letter: DeadLetter, state: JobState
):
    w = World(InMemoryJobStore(closed(state)))
    assert w.triage.redrive(letter) is RedriveStatus.RUN_AGAIN
    assert w.job.deadline == LATER + REDRIVE_PATIENCE
    assert w.admit() == [JOB_ID]
    assert w.runner.started == [(JOB_ID, 2)]
    assert (w.job.attempt, w.job.state) == (2, JobState.ADMITTED)


def test_fault_34_each_run_has_one_answer_with_an_id_of_its_own():
    w = World(InMemoryJobStore(make_job(deadline=LATER)))
    w.task_queue.send([task_letter().message])
    for run in (1, 2, 3):
        assert w.admit() == [JOB_ID]
        w.jobs.save(w.job.submit(prompt_id=f"p{run}", at=LATER))
        if run == 3:
            w.jobs.save(w.job.collect(("k",)))
        w.finish(run=run, error=None if run == 3 else StepError("PromptFailedError"))
        expected = RedriveStatus.SUCCEEDED if run == 3 else RedriveStatus.RUN_AGAIN
        w.runner.started = []  # its execution has ended
        assert w.triage.redrive(task_letter()) is expected
    replies = [json.loads(reply) for reply in w.topic.replies]
    assert [reply["source"] for reply in replies] == ["ComfyUiError"] * 2 + ["ComfyUiResult"]
    assert len({reply["id"] for reply in replies}) == 3
    assert len({json.loads(reply["data"])["PartialName"] for reply in replies}) == 1


@pytest.mark.parametrize("state", CLOSED_WITHOUT_RESULT)
def test_fault_34_a_job_runs_again_without_its_message(state: JobState):
    w = World(InMemoryJobStore(closed(state)))
    service = w.triage.redrive_job
    assert service.redrive(JOB_ID) is RedriveStatus.RUN_AGAIN
    assert w.admit() == [JOB_ID]
    assert w.job.run == 2
    assert service.redrive(JOB_ID) is RedriveStatus.RUNNING
    with pytest.raises(JobNotFoundError):
        service.redrive("another")


@BOTH_QUEUES
def test_a_job_that_still_waits_is_put_back_with_a_new_deadline(letter: DeadLetter):
    w = World(InMemoryJobStore(make_job()))
    assert w.triage.redrive(letter) is RedriveStatus.PUT_BACK
    assert (w.job.run, w.job.deadline) == (1, LATER + REDRIVE_PATIENCE)
    assert w.admit() == [JOB_ID]
    assert w.runner.started == [(JOB_ID, 1)]


@BOTH_QUEUES
@pytest.mark.parametrize(
    "job", [make_job().admit(**PLACE, at=NOON), running()], ids=lambda j: j.state
)
def test_a_job_that_runs_is_left_alone(letter: DeadLetter, job: Job):
    w = World(InMemoryJobStore(job))
    assert w.triage.redrive(letter) is RedriveStatus.RUNNING
    assert w.job == job
    assert w.task_queue.visible == w.input_queue.visible == []


def test_an_answer_that_is_not_out_yet_holds_the_redrive_up():
    job = running().close(JobState.FAILED, reply="r", at=NOON)
    w = World(InMemoryJobStore(job))
    with pytest.raises(RedriveRefusedError, match="answer is not out"):
        w.triage.redrive(task_letter())
    assert w.job == job
    assert w.task_queue.visible == []


def test_an_execution_that_has_not_ended_holds_the_redrive_up():
    job = closed(JobState.EXPIRED)
    w = World(InMemoryJobStore(job), InMemoryJobRunner(started=[(JOB_ID, 1)]))
    with pytest.raises(RedriveRefusedError, match="has not ended"):
        w.triage.redrive(task_letter())
    assert w.job == job


class Interrupted(InMemoryJobStore):
    """Somebody else gets in between a reading of the record and its writing."""

    def __init__(self, job: Job, interrupt: Callable[[], object]) -> None:
        super().__init__(job)
        self.interrupt: Callable[[], object] | None = interrupt

    def save(self, job: Job) -> None:
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()
        super().save(job)


@pytest.mark.parametrize("state", CLOSED_WITHOUT_RESULT)
def test_two_operators_at_once_begin_one_run(state: JobState):
    jobs = Interrupted(closed(state), lambda: w.triage.redrive(task_letter()))
    w = World(jobs)
    assert w.triage.redrive(task_letter()) is RedriveStatus.PUT_BACK
    assert w.job.run == 2
    assert len(w.task_queue.visible) == 2
    assert w.admit() == [JOB_ID]
    assert w.runner.started == [(JOB_ID, 2)]


def test_a_redrive_while_the_job_is_admitted_leaves_it_running():
    def admit() -> None:
        w.task_queue.send([task_letter().message])
        assert w.admit() == [JOB_ID]

    w = World(Interrupted(make_job(deadline=LATER), admit))
    assert w.triage.redrive(task_letter()) is RedriveStatus.RUNNING
    assert w.job.state is JobState.ADMITTED
    assert w.task_queue.visible == []


def test_a_redrive_while_the_sweep_closes_the_job_begins_its_next_run():
    expired = StepError("DeadlineExceededError", '{"errorMessage": "Too late."}')
    w = World(Interrupted(make_job(), lambda: w.finish(run=1, error=expired)))
    assert w.triage.redrive(task_letter()) is RedriveStatus.RUN_AGAIN
    assert (w.job.state, w.job.run, len(w.topic.replies)) == (JobState.QUEUED, 2, 1)


def test_a_late_end_of_the_last_run_does_not_close_the_next():
    w = World(InMemoryJobStore(closed(JobState.EXPIRED)))
    w.triage.redrive(task_letter())
    w.finish(run=1, error=StepError("TIMED_OUT"))
    w.admit()
    w.finish(run=1, error=StepError("TIMED_OUT"))
    assert w.job.state is JobState.ADMITTED
    assert w.topic.replies == []
    assert {i.jobs for i in w.store.list_instances(FLEET)} == {frozenset({JOB_ID})}


def test_a_record_that_never_stands_still_is_given_up():
    class Contested(InMemoryJobStore):
        def save(self, job: Job) -> None:
            super().save(self.get(job.job_id).redrive(LATER))
            super().save(job)

    with pytest.raises(RedriveRefusedError, match="Others"):
        World(Contested(make_job())).triage.redrive(task_letter())


def test_a_redrive_that_dies_before_it_sends_is_repeated():
    w = World(InMemoryJobStore(closed(JobState.FAILED)))
    w.task_queue.refuses = {"sqs-1"}
    with pytest.raises(RedriveRefusedError, match="did not take"):
        w.triage.redrive(task_letter())
    w.task_queue.refuses = set()
    assert w.triage.redrive(task_letter()) is RedriveStatus.PUT_BACK
    assert w.admit() == [JOB_ID]
    assert w.runner.started == [(JOB_ID, 2)]


REFUSED = {"RefusalCode": "INVALID_JSON", "RefusalReason": "The body is not valid JSON."}


@pytest.mark.parametrize("body", ["no JSON", '{"Subject": "x", "Subject": "y"}', "[1]", " "])
def test_a_refused_message_goes_back_as_it_was_sent(body: str):
    w = World(InMemoryJobStore())
    letter = input_letter(body, Trace="t", **REFUSED)
    assert w.triage.redrive(letter) is RedriveStatus.RESENT
    (message,) = w.input_queue.visible
    assert (message.body, message.attributes) == (body, {"Trace": text("t")})


@pytest.mark.parametrize(
    "letter",
    [
        input_letter(make_body(MessageId=None)),
        task_letter(make_body(MessageId=None), **{JOB_ID_ATTRIBUTE: "sqs-1"}),
    ],
    ids=["input queue", "task queue, no record"],
)
def test_a_message_without_an_id_is_one_job_however_often_it_is_redriven(letter: DeadLetter):
    w = World(InMemoryJobStore())
    for _ in range(2):
        assert w.triage.redrive(letter) is RedriveStatus.RESENT
    assert w.dispatch() == [DispatchStatus.FORWARDED, DispatchStatus.FORWARDED]
    assert list(w.jobs.jobs) == ["sqs-1"]
    assert w.admit() == ["sqs-1"]


def test_a_native_message_without_an_id_is_one_job_too():
    w = World(InMemoryJobStore())
    letter = input_letter('{"workflow": "flux-prompt", "inputs": {"promptText": "a kite"}}')
    for _ in range(2):
        w.triage.redrive(letter)
    w.dispatch()
    assert list(w.jobs.jobs) == ["sqs-1"]
    assert w.triage.find_job(letter) == w.jobs.get("sqs-1")


def test_a_job_whose_id_was_the_messages_own_is_found_and_put_back():
    body = make_body(MessageId=None)
    request = read_job_request(
        body, sqs_message_id="sqs-1", catalog=CATALOG, input_buckets=frozenset({BUCKET})
    )
    w = World(InMemoryJobStore(make_job(job_id="sqs-1", fingerprint=request.fingerprint)))
    assert w.triage.redrive(input_letter(body)) is RedriveStatus.PUT_BACK
    (message,) = w.task_queue.visible
    assert find_job_id(message) == "sqs-1"


def test_another_message_under_a_jobs_id_does_not_run_that_job():
    job = closed(JobState.FAILED)
    w = World(InMemoryJobStore(job))
    other = make_body(payload={**json.loads(json.loads(make_body())["Payload"]), "GroupId": 8})
    assert w.triage.redrive(input_letter(other)) is RedriveStatus.RESENT
    assert w.job == job


def test_a_sender_cannot_choose_the_job_by_an_attribute():
    w = World(InMemoryJobStore(make_job(job_id="theirs")))
    letter = input_letter(**{JOB_ID_ATTRIBUTE: "theirs"})
    assert w.triage.redrive(letter) is RedriveStatus.RESENT
    assert w.input_queue.visible[0].attributes == {}


@BOTH_QUEUES
def test_a_job_that_waits_for_a_dropped_message_gets_its_answer(letter: DeadLetter):
    w = World(InMemoryJobStore(make_job()))
    assert w.triage.drop(letter) is DropStatus.CANCELLED
    assert w.stopper.stopped == [(JOB_ID, 1)]


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (running(), DropStatus.ANSWERED),
        (closed(JobState.FAILED), DropStatus.ANSWERED),
        (closed(JobState.SUCCEEDED), DropStatus.ANSWERED),
        (None, DropStatus.UNANSWERED),
    ],
    ids=["running", "failed", "succeeded", "no job"],
)
def test_a_drop_changes_no_job_that_does_not_wait(job: Job | None, status: DropStatus):
    w = World(InMemoryJobStore(*([job] if job else [])))
    assert w.triage.drop(task_letter()) is status
    assert w.stopper.stopped == []
