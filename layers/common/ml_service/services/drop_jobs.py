"""drop_jobs: an operator gives up what waits or runs on a fleet; other stages' jobs stay."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ml_service.domain.errors import JobChangedError, JobClosedError, JobNotFoundError
from ml_service.domain.jobs import JobState
from ml_service.ports import JobStore
from ml_service.services.cancel_job import CancelJob

_LIMIT = 25
"""Jobs dropped in one call: each takes a good part of a second, and the caller waits."""


@dataclass(frozen=True)
class DropReport:
    """What one call dropped."""

    job_ids: Sequence[str]
    is_complete: bool
    """False if there may be more."""


@dataclass(frozen=True)
class DropJobs:
    """Cancels job after job, by its id: ComfyUI's own clear would hit other stages' too."""

    jobs: JobStore
    canceller: CancelJob

    def drop(self, fleet: str, states: Iterable[JobState]) -> DropReport:
        """Cancel a fleet's jobs in these states, the latest first."""
        dropped: list[str] = []
        for state in states:
            limit = _LIMIT - len(dropped)
            found = self.jobs.list_latest(fleet, state, limit=limit)
            for job in found:
                # One that has ended meanwhile, or moved on to the next state, is none of ours.
                with suppress(JobClosedError, JobChangedError, JobNotFoundError):
                    self.canceller.cancel(job.job_id)
                    dropped.append(job.job_id)
            if len(found) == limit:
                return DropReport(dropped, is_complete=False)
        return DropReport(dropped, is_complete=True)
