"""The figures of a simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from local.load_summary import find_percentile
from local.simulation.simulate_fleet import SimulationRecord

_REVERSAL_SECONDS = 20 * 60.0
_PERCENTS = (50, 95, 99)


@dataclass(frozen=True)
class SimulationSummary:
    """One line of the comparison."""

    name: str
    waits: tuple[float, ...]
    """Seconds waited: p50, p95 and p99."""
    instance_hours: float
    actions: int | None
    """Changes of desired capacity; None for a bound, which has no scaler."""
    reversals: int | None
    """Actions less than 20 minutes after one in the other direction."""
    moved: int | None
    """Prompts that left an instance's queue for a shorter one."""
    killed: int | None
    """Jobs that were running on an instance when it went."""
    killed_unprotected: int | None
    """The same, had Auto Scaling chosen the instance; None if that was not tried."""


def summarize(
    name: str, record: SimulationRecord, unprotected: SimulationRecord | None
) -> SimulationSummary:
    """What a policy did with the victim protocol, and what it would have killed without."""
    return SimulationSummary(
        name=name,
        waits=find_waits(record),
        instance_hours=count_hours(record.lifetimes),
        actions=len(record.calls),
        reversals=_count_reversals(record),
        moved=record.moved,
        killed=record.killed,
        killed_unprotected=None if unprotected is None else unprotected.killed,
    )


def summarize_bound(
    name: str, record: SimulationRecord, lifetimes: Sequence[tuple[float, float]]
) -> SimulationSummary:
    """The waits of a simulation at the cost of these lifetimes."""
    return SimulationSummary(
        name=name,
        waits=find_waits(record),
        instance_hours=count_hours(lifetimes),
        actions=None,
        reversals=None,
        moved=None,
        killed=None,
        killed_unprotected=None,
    )


def find_waits(
    record: SimulationRecord, begin: float = 0.0, end: float = float("inf")
) -> tuple[float, ...]:
    """Percentiles 50, 95 and 99 of the waits of jobs that arrived in a stretch; none of none."""
    waits = [job.wait for job in record.jobs if begin <= job.arrived < end]
    return tuple(find_percentile(waits, percent) for percent in _PERCENTS) if waits else ()


def count_hours(
    lifetimes: Sequence[tuple[float, float]], begin: float = 0.0, end: float = float("inf")
) -> float:
    """Instance hours within a stretch, start-up included."""
    seconds = (min(until, end) - max(since, begin) for since, until in lifetimes)
    return sum(s for s in seconds if s > 0) / 3600.0


def does_pay(
    plain: SimulationRecord,
    record: SimulationRecord,
    begin: float = 0.0,
    end: float = float("inf"),
) -> bool:
    """Whether a policy was worth its hours in a stretch, beside the plain rule.

    That is if p99 is no longer, and p95 is shorter by a larger part than the hours are more.
    """
    before, after = find_waits(plain, begin, end), find_waits(record, begin, end)
    if not before or after[1] >= before[1] or after[2] > before[2]:
        return False
    hours = count_hours(record.lifetimes, begin, end) / count_hours(plain.lifetimes, begin, end)
    return 1 - after[1] / before[1] > hours - 1


def _count_reversals(record: SimulationRecord) -> int:
    return sum(
        first.action is not second.action and second.at - first.at < _REVERSAL_SECONDS
        for first, second in pairwise(record.calls)
    )
