"""dispatch_jobs: turns messages of the backend into job records and forwards them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.hand_offs import HandOffState
from ml_service.domain.job_requests import JobRequest, read_job_request
from ml_service.domain.jobs import RECORD_LIFETIME, Failure, Job, JobState, make_refused_id
from ml_service.domain.messages import find_partial_name
from ml_service.domain.replies import make_error_reply
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.ports import (
    Admission,
    JobQueue,
    JobStore,
    QueuedMessage,
    RefusedMessages,
    ReplyTopic,
)
from ml_service.services.publish_reply import publish_reply

JOB_ID_ATTRIBUTE = "JobId"
"""Message attribute for the job id where the body has no MessageId."""


class DispatchStatus(StrEnum):
    """What became of one message."""

    FORWARDED = "FORWARDED"
    REPEATED = "REPEATED"
    """A message that was dispatched before; there is nothing to do."""
    REFUSED = "REFUSED"
    RETURNED = "RETURNED"
    """A fault of our own: the message goes back to the queue."""


@dataclass(frozen=True)
class DispatchOutcome:
    """What became of one message, without anything of its contents."""

    message_id: str
    status: DispatchStatus
    job_id: str = ""
    fleet: str = ""
    code: RefusalCode | None = None
    error: Exception | None = None
    hand_off_refused: bool = False
    """The job goes on, but its video stays in the result bucket only."""


@dataclass(frozen=True)
class DispatchReport:
    """What became of a batch."""

    outcomes: Sequence[DispatchOutcome]
    lost_kicks: Mapping[str, Exception]
    """Fleets whose admission could not be told; the minute tick will find the messages."""


@dataclass(frozen=True)
class DispatchJobs:
    """Checks, records and forwards messages; answers those that are wrong."""

    catalog: WorkflowCatalog
    jobs: JobStore
    task_queues: Mapping[str, JobQueue]
    refused_messages: RefusedMessages
    topic: ReplyTopic
    admission: Admission
    input_buckets: frozenset[str]
    hand_off_buckets: frozenset[str]
    hand_off_queue_arns: frozenset[str]

    def dispatch(
        self, messages: Sequence[QueuedMessage], *, now: datetime, new_seed: Callable[[], int]
    ) -> DispatchReport:
        """Dispatch a batch; no message's fault touches another."""
        outcomes: dict[str, DispatchOutcome] = {}
        waiting: dict[str, list[QueuedMessage]] = defaultdict(list)
        for message in messages:
            try:
                outcome = self._accept(message, now, new_seed)
            except RefusedMessageError as refusal:
                outcome = self._refuse(message, refusal, now)
            except Exception as error:  # whatever it is, the other messages must go on
                outcome = _returned(message, error)
            outcomes[message.message_id] = outcome
            if outcome.status is DispatchStatus.FORWARDED:
                waiting[outcome.fleet].append(_with_job_id(message, outcome.job_id))

        lost_kicks: dict[str, Exception] = {}
        for fleet, accepted in waiting.items():
            for message_id, fault in self._forward(fleet, accepted).items():
                outcomes[message_id] = DispatchOutcome(
                    message_id, DispatchStatus.RETURNED, error=fault
                )
            try:
                self.admission.kick(fleet)
            except Exception as error:  # the messages are forwarded: they must not come back
                lost_kicks[fleet] = error
        return DispatchReport(list(outcomes.values()), lost_kicks)

    def _accept(
        self, queued: QueuedMessage, now: datetime, new_seed: Callable[[], int]
    ) -> DispatchOutcome:
        request = read_job_request(
            queued.body,
            sqs_message_id=queued.message_id,
            catalog=self.catalog,
            input_buckets=self.input_buckets,
            hand_off_buckets=self.hand_off_buckets,
            hand_off_queue_arns=self.hand_off_queue_arns,
        )
        job = request.make_job(now=now, seed=new_seed())
        if not self.jobs.add(job):
            return self._meet_again(queued, request, job)
        return DispatchOutcome(
            queued.message_id,
            DispatchStatus.FORWARDED,
            job.job_id,
            job.fleet,
            hand_off_refused=job.hand_off is not None
            and job.hand_off.state is HandOffState.REFUSED,
        )

    def _meet_again(self, queued: QueuedMessage, request: JobRequest, job: Job) -> DispatchOutcome:
        known = self.jobs.get(job.job_id)
        if known.fingerprint == job.fingerprint:
            # QUEUED may mean that a crash came between record and forwarding. Forwarding twice
            # does no harm, since admission takes a job once.
            status = (
                DispatchStatus.FORWARDED
                if known.state is JobState.QUEUED
                else DispatchStatus.REPEATED
            )
            return DispatchOutcome(queued.message_id, status, job.job_id, known.fleet)
        if known.partial_name == request.partial_name:
            # An error under this name would be taken for the first job's answer.
            return DispatchOutcome(
                queued.message_id,
                DispatchStatus.REPEATED,
                job.job_id,
                known.fleet,
                RefusalCode.CONFLICT,
            )
        raise RefusedMessageError(
            RefusalCode.CONFLICT, "Another message with the same MessageId came before."
        )

    def _refuse(
        self, queued: QueuedMessage, refusal: RefusedMessageError, now: datetime
    ) -> DispatchOutcome:
        """Answer a wrong message through a FAILED record, or keep it where nobody can be told."""
        record_id = make_refused_id(queued.message_id)
        outcome = DispatchOutcome(
            queued.message_id, DispatchStatus.REFUSED, record_id, code=refusal.code
        )
        try:
            partial_name = find_partial_name(queued.body, sqs_message_id=queued.message_id)
            if partial_name is None:
                self.refused_messages.keep(
                    queued.body, code=refusal.code, sentence=refusal.sentence
                )
                return outcome
            job = Job(
                job_id=record_id,
                state=JobState.FAILED,
                subject="",
                partial_name=partial_name,
                fingerprint="",
                received_at=now,
                expires_at=int((now + RECORD_LIFETIME).timestamp()),
                closed_at=now,
                failure=Failure(code=refusal.code, sentence=refusal.sentence),
                reply=make_error_reply(
                    job_id=record_id,
                    partial_name=partial_name,
                    sentence=refusal.sentence,
                    at=now,
                ),
            )
            if not self.jobs.add(job):
                job = self.jobs.get(record_id)
            publish_reply(job, jobs=self.jobs, topic=self.topic, now=now)
        except Exception as error:  # whatever it is, the other messages must go on
            return _returned(queued, error)
        return outcome

    def _forward(
        self, fleet: str, messages: Sequence[QueuedMessage]
    ) -> Mapping[str, Exception | None]:
        try:
            return dict.fromkeys(self.task_queues[fleet].send(messages))
        except Exception as error:  # the other fleets' messages must go on
            return dict.fromkeys((m.message_id for m in messages), error)


def _with_job_id(message: QueuedMessage, job_id: str) -> QueuedMessage:
    if job_id != message.message_id:
        return message
    # The body has no MessageId, and on the task queue the message gets another SQS id.
    attribute = {"DataType": "String", "StringValue": job_id}
    return QueuedMessage(
        message_id=message.message_id,
        body=message.body,
        attributes={**(message.attributes or {}), JOB_ID_ATTRIBUTE: attribute},
    )


def _returned(message: QueuedMessage, error: Exception) -> DispatchOutcome:
    return DispatchOutcome(message.message_id, DispatchStatus.RETURNED, error=error)
