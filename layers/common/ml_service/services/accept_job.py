"""accept_job: a request to the API becomes a job by the rules that hold for a message."""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_service.domain.errors import JobNotForwardedError, RefusalCode, RefusedMessageError
from ml_service.domain.job_requests import read_job_request
from ml_service.domain.jobs import Job, JobState, make_fingerprint
from ml_service.domain.messages import fix_job_id
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.ports import Admission, JobQueue, JobStore, QueuedMessage

_NAMESPACE = uuid.UUID("d0c2f6a4-3a0e-4d0b-9a0f-5d8f3f2f7c41")


@dataclass(frozen=True)
class Acceptance:
    """An accepted job, and whether admission was told of it."""

    job: Job
    lost_kick: Exception | None = None
    """Why admission could not be told; the minute tick will find the job."""


@dataclass(frozen=True)
class AcceptJob:
    """Checks, records and forwards what the input queue would have brought as a native message."""

    catalog: WorkflowCatalog
    jobs: JobStore
    task_queues: Mapping[str, JobQueue]
    admission: Admission
    input_buckets: frozenset[str]

    def accept(
        self,
        body: str,
        *,
        new_id: str,
        idempotency_key: str | None,
        now: datetime,
        new_seed: Callable[[], int],
    ) -> Acceptance:
        """Make a native message a job; a repeat under the same key or job id makes no other.

        Raises RefusedMessageError, with CONFLICT if the key or id has come with another body, and
        JobNotForwardedError.
        """
        job_id = _make_job_id(idempotency_key) if idempotency_key else new_id
        request = read_job_request(
            body, sqs_message_id=job_id, catalog=self.catalog, input_buckets=self.input_buckets
        )
        if idempotency_key and request.job_id != job_id:
            raise RefusedMessageError(
                RefusalCode.INVALID_MESSAGE, "Send job_id or an Idempotency-Key, not both."
            )
        digest = make_fingerprint("", json.loads(body.removeprefix("\ufeff")))
        job = request.make_job(now=now, seed=new_seed(), request_digest=digest)
        if not self.jobs.add(job):
            job = self.jobs.get(job.job_id)
            if job.request_digest != digest:
                raise RefusedMessageError(
                    RefusalCode.CONFLICT,
                    "Another request came under this key before: send a new one.",
                )
        if job.state is not JobState.QUEUED:
            return Acceptance(job)
        # A repeat, too: a crash may have come between record and forwarding. Admission takes a job
        # once, however often it is forwarded.
        return self._forward(job, fix_job_id(body, job.job_id))

    def _forward(self, job: Job, body: str) -> Acceptance:
        message = QueuedMessage(message_id=job.job_id, body=body)
        if self.task_queues[job.fleet].send([message]):
            raise JobNotForwardedError(f"The task queue of {job.fleet} did not take a job.")
        try:
            self.admission.kick(job.fleet)
        except Exception as error:  # noqa: BLE001  (the job is accepted: the handler logs it)
            return Acceptance(job, lost_kick=error)
        return Acceptance(job)


def _make_job_id(idempotency_key: str) -> str:
    """The same for every request with the key, so that the job record remembers it."""
    return str(uuid.uuid5(_NAMESPACE, idempotency_key))
