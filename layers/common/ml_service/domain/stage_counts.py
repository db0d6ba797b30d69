"""What waits, what runs, and what is late, counted over a whole stage at one moment."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ml_service.domain.fleets import Instance
from ml_service.domain.jobs import JobState

LATE_GRACE = timedelta(minutes=5)
"""Five sweeps should have closed or answered a job by then."""


@dataclass(frozen=True)
class OpenJob:
    """A job with something left to be done, as the index of open jobs knows it."""

    fleet: str
    """Empty if the message was refused."""
    workflow: str
    state: JobState
    late_after: datetime | None = None
    """When the job is to be closed and answered at the latest; None once it is."""


@dataclass
class FleetCounts:
    """One fleet's jobs by workflow, and its instances."""

    waiting: Counter[str] = field(default_factory=Counter)
    active: Counter[str] = field(default_factory=Counter)
    """Admitted, and not closed."""
    instances: int = 0
    """Members of the group that the fleet table knows, those that start or leave included."""
    ready_instances: int = 0
    quarantined_instances: int = 0


@dataclass
class StageCounts:
    """Every fleet's counts, and the jobs that nobody has mended in time."""

    fleets: Mapping[str, FleetCounts]
    overdue_jobs: int = 0
    """Past their deadline and not closed."""
    unanswered_jobs: int = 0
    """Closed, and their reply not published."""


def count_stage(
    jobs: Iterable[OpenJob], instances: Mapping[str, Iterable[Instance]], *, now: datetime
) -> StageCounts:
    """Count the jobs and each fleet's instances."""
    counts = StageCounts({name: _count_instances(found) for name, found in instances.items()})
    for job in jobs:
        is_late = job.late_after is not None and job.late_after + LATE_GRACE < now
        if job.state.is_final:
            counts.unanswered_jobs += is_late
            continue
        counts.overdue_jobs += is_late
        # A stage that was deployed without one of its fleets may still have jobs of it.
        if (fleet := counts.fleets.get(job.fleet)) is not None:
            by_workflow = fleet.waiting if job.state is JobState.QUEUED else fleet.active
            by_workflow[job.workflow] += 1
    return counts


def _count_instances(instances: Iterable[Instance]) -> FleetCounts:
    counts = FleetCounts()
    for instance in instances:
        counts.instances += 1
        counts.ready_instances += instance.is_ready
        counts.quarantined_instances += instance.quarantined_at is not None
    return counts
