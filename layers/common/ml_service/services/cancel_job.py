"""cancel_job: ends one job of this stage, wherever it stands."""

from dataclasses import dataclass

from ml_service.domain.errors import JobChangedError
from ml_service.domain.jobs import Job, JobState
from ml_service.ports import JobStopper, JobStore


@dataclass(frozen=True)
class CancelJob:
    """Lets finish_job close a job, which also takes its prompt back, by the prompt's own id."""

    jobs: JobStore
    stopper: JobStopper

    def cancel(self, job_id: str) -> Job:
        """The cancelled job; a repeat changes nothing.

        Raises JobNotFoundError, JobClosedError if it has ended otherwise, and JobChangedError if an
        operator lets it run again at this moment.
        """
        job = self.jobs.get(job_id)
        if not job.state.is_final:
            self.stopper.stop(job_id, job.run)
            job = self.jobs.get(job_id)
        if job.state is not JobState.CANCELLED:
            job.require_open()
            raise JobChangedError(f"Job {job_id} has begun another run.")
        return job
