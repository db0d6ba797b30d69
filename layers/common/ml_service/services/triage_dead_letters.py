"""What an operator can do with a message that a queue gave up; none of it runs a job twice."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ml_service.domain.errors import JobNotFoundError, RefusedMessageError
from ml_service.domain.job_requests import is_made_of
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.messages import fix_job_id, parse_message
from ml_service.ports import (
    REFUSAL_CODE_ATTRIBUTE,
    REFUSAL_REASON_ATTRIBUTE,
    DeadLetter,
    JobQueue,
    JobStopper,
    JobStore,
    QueuedMessage,
)
from ml_service.services.admit_jobs import find_job_id
from ml_service.services.dispatch_jobs import JOB_ID_ATTRIBUTE
from ml_service.services.redrive_job import RedriveJob, RedriveStatus, send_or_refuse

_OWN_ATTRIBUTES = frozenset({JOB_ID_ATTRIBUTE, REFUSAL_CODE_ATTRIBUTE, REFUSAL_REASON_ATTRIBUTE})


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
    redrive_job: RedriveJob
    stopper: JobStopper
    input_queue: JobQueue

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
        job = self.find_job(letter)
        if job is not None:
            return self.redrive_job.redrive(job.job_id, _as_task(letter, job))
        send_or_refuse(self.input_queue, _as_sent(letter))
        return RedriveStatus.RESENT

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
