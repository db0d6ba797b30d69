"""A trace of what a stage has really run, out of its job records."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from pathlib import Path

from local.find_backend import Target, TargetError, opened_backend
from local.list_jobs import ListOptions, scan_jobs
from local.simulation.traces import Arrival, write_trace
from local.terminal import open_terminal
from ml_service.domain.jobs import Job, JobState


def run_export(target: Target, fleet: str, path: Path) -> int:
    """Write the trace of one fleet's jobs; raises TargetError, TraceError."""
    with opened_backend(target) as backend:
        if fleet not in (fleets := backend.read_fleets()):
            raise TargetError(f"there is no fleet {fleet!r}, only {', '.join(fleets)}")
        arrivals = list_arrivals(scan_jobs(backend, ListOptions(JobState.SUCCEEDED, fleet)))
    if not arrivals:
        raise TargetError(f"no job of {fleet} has been run")
    write_trace(path, arrivals)
    open_terminal().print(f"{len(arrivals)} jobs of {fleet} in {path}")
    return 0


def list_arrivals(jobs: Iterable[Job]) -> Sequence[Arrival]:
    """When jobs that succeeded were received, and how long each had its instance.

    An instance works on one prompt at a time, so a job's service begins when its prompt was
    submitted or the job before it on the same instance was closed, whichever is later.
    """
    arrivals = []
    free_at: dict[str, datetime] = {}
    for job in sorted(jobs, key=attrgetter("closed_at")):
        if job.submitted_at is None or job.closed_at is None:
            continue
        began = max(job.submitted_at, free_at.get(job.instance, job.submitted_at))
        free_at[job.instance] = job.closed_at
        service = (job.closed_at - began).total_seconds()
        if service > 0:
            arrivals.append(Arrival(job.received_at.timestamp(), service))
    return sorted(arrivals)
