"""What an operator can do with a message that a queue gave up; none of it runs a job twice."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ml_service.domain.errors import (
    JobChangedError,
    JobNotFoundError,
    RedriveRefusedError,
    RefusedMessageError,
)
from ml_service.domain.job_requests import is_made_of
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.messages import fix_job_id, parse_message
from ml_service.ports import (
    REFUSAL_CODE_ATTRIBUTE,
    REFUSAL_REASON_ATTRIBUTE,
    Clock,
    DeadLetter,
    JobQueue,
    JobRunner,
    JobStopper,
    JobStore,
    QueuedMessage,
)
from ml_service.services.admit_jobs import find_job_id
from ml_service.services.dispatch_jobs import JOB_ID_ATTRIBUTE

_WRITE_TRIES = 5  # against another operator, or the sweep
_OWN_ATTRIBUTES = frozenset({JOB_ID_ATTRIBUTE, REFUSAL_CODE_ATTRIBUTE, REFUSAL_REASON_ATTRIBUTE})


class RedriveStatus(StrEnum):
    """What a redrive does for a message; after each of these its dead letter is done with."""

    RUN_AGAIN = "RUN_AGAIN"
    """Its job was closed without a result: the next run waits on the task queue."""
    PUT_BACK = "PUT_BACK"
    """Its job still waited: the message is on the task queue again."""
    RESENT = "RESENT"
    """It never became a job: it is on the input queue again."""
    SUCCEEDED = "SUCCEEDED"
    """Its job has a result and is not run again."""
    RUNNING = "RUNNING"
    """Its job runs without it."""


class DropStatus(StrEnum):
    """What dropping a message means to its sender."""

    CANCELLED = "CANCELLED"
    """Its job still waited: it is closed, and its answer says so."""
    ANSWERED = "ANSWERED"
    """Its job has its answer, or runs and will have it."""
    UNANSWERED = "UNANSWERED"
    """It never became a job, so nobody is told."""


@dataclass(frozen=True)
class TriageDeadLetters:
    """Decides by the job's record, never by the message alone, what becomes of a dead letter."""

    jobs: JobStore
    runner: JobRunner
    stopper: JobStopper
    input_queue: JobQueue
    task_queues: Mapping[str, JobQueue]
    clock: Clock

    def find_job(self, letter: DeadLetter) -> Job | None:
        """The job that was made of a message; None if it never became one."""
        message = letter.message
        if letter.fleet:
            return self._get(find_job_id(message) or "")
        try:
            parsed = parse_message(message.body, sqs_message_id=message.message_id)
        except RefusedMessageError:
            return None
        job = self._get(parsed.job_id)
        # Another message's job may have the same id; dispatch_jobs tells this one's sender so.
        return job if job is not None and is_made_of(job, parsed) else None

    def redrive(self, letter: DeadLetter) -> RedriveStatus:
        """Bring a message back to where its job can go on; the caller then deletes the letter.

        A crash before that does no harm: a repeat finds the job where the first one left it.
        Raises RedriveRefusedError with the reason if it must stay for now.
        """
        for _ in range(_WRITE_TRIES):
            job = self.find_job(letter)
            status = plan_redrive(job)
            if status in (RedriveStatus.SUCCEEDED, RedriveStatus.RUNNING):
                return status
            if job is None:
                _send(self.input_queue, _as_sent(letter))
                return status
            if self.runner.is_running(job.job_id, job.run):
                # The sweep closed the job; what still runs would work on the next run too.
                raise RedriveRefusedError("The execution of the job's last run has not ended yet.")
            try:
                self.jobs.save(job.redrive(self.clock.now()))
            except JobChangedError:
                continue
            _send(self.task_queues[job.fleet], _as_task(letter, job))
            return status
        raise RedriveRefusedError("Others are writing the job's record.")

    def drop(self, letter: DeadLetter) -> DropStatus:
        """Give a message up; a job that still waits for it gets its answer. The caller deletes."""
        job = self.find_job(letter)
        if job is None:
            return DropStatus.UNANSWERED
        if job.state is not JobState.QUEUED:
            return DropStatus.ANSWERED
        self.stopper.stop(job.job_id, job.run)
        return DropStatus.CANCELLED

    def _get(self, job_id: str) -> Job | None:
        try:
            return self.jobs.get(job_id)
        except JobNotFoundError:
            return None


def plan_redrive(job: Job | None) -> RedriveStatus:
    """What a redrive would do for a message whose job stands so."""
    if job is None:
        return RedriveStatus.RESENT
    match job.state:
        case JobState.SUCCEEDED:
            return RedriveStatus.SUCCEEDED
        case JobState.QUEUED:
            return RedriveStatus.PUT_BACK
        case JobState.ADMITTED | JobState.SUBMITTED:
            return RedriveStatus.RUNNING
    return RedriveStatus.RUN_AGAIN


def _as_sent(letter: DeadLetter) -> QueuedMessage:
    """The message as its sender sent it, under an id that a repeat has too."""
    message = letter.message
    job_id = (find_job_id(message) if letter.fleet else None) or message.message_id
    try:
        parse_message(message.body, sqs_message_id=job_id)
    except RefusedMessageError:
        body = message.body
    else:
        body = fix_job_id(message.body, job_id)
    return replace(message, body=body, attributes=_senders_attributes(message))


def _as_task(letter: DeadLetter, job: Job) -> QueuedMessage:
    """The message as dispatch_jobs forwards it."""
    message = replace(letter.message, attributes=_senders_attributes(letter.message))
    if find_job_id(message) == job.job_id:
        return message
    attribute = {"DataType": "String", "StringValue": job.job_id}
    attributes = {**(message.attributes or {}), JOB_ID_ATTRIBUTE: attribute}
    return replace(message, attributes=attributes)


def _senders_attributes(message: QueuedMessage) -> Mapping[str, Mapping[str, object]]:
    attributes = message.attributes or {}
    return {name: value for name, value in attributes.items() if name not in _OWN_ATTRIBUTES}


def _send(queue: JobQueue, message: QueuedMessage) -> None:
    if queue.send([message]):
        raise RedriveRefusedError("The queue did not take the message.")
