"""redrive_job: lets a job that was closed without a result run again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ml_service.domain.errors import JobChangedError, RedriveRefusedError
from ml_service.domain.jobs import Job, JobState
from ml_service.ports import Clock, JobQueue, JobRunner, JobStore, QueuedMessage

_WRITE_TRIES = 5  # against another operator, or the sweep


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


@dataclass(frozen=True)
class RedriveJob:
    """Begins a job's next run; two operators at once begin one."""

    jobs: JobStore
    runner: JobRunner
    task_queues: Mapping[str, JobQueue]
    clock: Clock

    def redrive(self, job_id: str, task: QueuedMessage | None = None) -> RedriveStatus:
        """Put a job on its task queue again, unless it has a result or runs.

        ``task`` is the message to send, if there is one that the job was made of. A crash does no
        harm: a repeat finds the job where the first one left it. Raises JobNotFoundError, and
        RedriveRefusedError with the reason if it cannot be done now.
        """
        for _ in range(_WRITE_TRIES):
            job = self.jobs.get(job_id)
            status = plan_redrive(job)
            if status in (RedriveStatus.SUCCEEDED, RedriveStatus.RUNNING):
                return status
            if self.runner.is_running(job_id, job.run):
                # The sweep closed the job; what still runs would work on the next run too.
                raise RedriveRefusedError("The execution of the job's last run has not ended yet.")
            try:
                self.jobs.save(job.redrive(self.clock.now()))
            except JobChangedError:
                continue
            send_or_refuse(self.task_queues[job.fleet], task or _make_task(job_id))
            return status
        raise RedriveRefusedError("Others are writing the job's record.")


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


def send_or_refuse(queue: JobQueue, message: QueuedMessage) -> None:
    """Send a message; raises RedriveRefusedError if it was not taken."""
    if queue.send([message]):
        raise RedriveRefusedError("The queue did not take the message.")


def _make_task(job_id: str) -> QueuedMessage:
    """All that admission reads of a task: the rest is in the job's record."""
    return QueuedMessage(job_id, json.dumps({"MessageId": job_id}))
