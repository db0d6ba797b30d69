"""Changing a job's record while others may be writing it, too."""

from collections.abc import Callable

from ml_service.domain.errors import JobChangedError
from ml_service.domain.jobs import Job
from ml_service.ports import JobStore

_TRIES = 5  # against one other writer at a time; whoever asked tries the whole step again


def update_job(jobs: JobStore, job_id: str, change: Callable[[Job], Job]) -> Job:
    """Make a change to the present record, and make it anew if somebody else wrote it first.

    A change that returns its argument writes nothing. Raises JobNotFoundError, and JobChangedError
    if others are always faster.
    """
    for tries_left in reversed(range(_TRIES)):
        job = jobs.get(job_id)
        changed = change(job)
        if changed is job:
            return job
        try:
            jobs.save(changed)
        except JobChangedError:
            if not tries_left:
                raise
        else:
            return changed
    raise AssertionError("unreachable: the last try returns or raises")
