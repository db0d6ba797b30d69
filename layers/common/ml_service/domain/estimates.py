"""How long a job will take yet, as far as anybody can know."""

from collections.abc import Iterable
from datetime import datetime

from ml_service.domain.fleets import Instance
from ml_service.domain.jobs import Job, JobState


def estimate_seconds(
    job: Job, *, position: int, instances: Iterable[Instance], now: datetime
) -> float | None:
    """Seconds until an open job's end; None if no instance is ready or the job is closed.

    What is before it is taken to run as long as it will itself, and a fleet's ready instances to
    share the work evenly, one prompt at a time each. ``position`` is how many jobs wait before it.
    """
    if job.state.is_final:
        return None
    if job.seen_running:
        since = job.queue_head_since or job.submitted_at or now
        return max(0.0, job.expected_seconds - (now - since).total_seconds())
    instances = list(instances)
    own = next((i for i in instances if i.key == job.instance), None)
    if own is not None:
        others = max(len(own.jobs), own.reading or 0) - 1
        return job.expected_seconds * (1 + max(0, others))
    ready = [i for i in instances if i.is_ready]
    if not ready:
        return None
    before = position if job.state is JobState.QUEUED else 0
    busy = sum(max(len(i.jobs), i.reading or 0) for i in ready)
    return job.expected_seconds * (1 + (before + busy) // len(ready))


def measure_progress(job: Job, *, nodes: int) -> float | None:
    """The share of a job's prompt that is done, from 0 to 1; None while nothing is known of it.

    ``nodes`` is how many nodes its graph has.
    """
    if job.state is JobState.SUCCEEDED:
        return 1.0
    if job.progress is None or job.state.is_final:
        return None
    return min(1.0, (job.progress.nodes_done + job.progress.share) / nodes)
