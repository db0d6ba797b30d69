"""What no scaler can beat: the shortest waits there can be, and the fewest hours they can cost."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from local.simulation.simulate_fleet import (
    ServedJob,
    SimulationOptions,
    SimulationRecord,
    simulate_fleet,
)
from local.simulation.traces import Arrival


def simulate_always_max(trace: Sequence[Arrival], options: SimulationOptions) -> SimulationRecord:
    """Run a trace with every instance up all the time, and one queue for all of them."""
    policy = options.policy.model_copy(update={"slots_per_instance": 1, "is_paused": True})
    return simulate_fleet(trace, replace(options, policy=policy, minimum=options.maximum))


def find_clairvoyant_lifetimes(
    always_max: SimulationRecord, options: SimulationOptions
) -> Sequence[tuple[float, float]]:
    """The least lifetimes of instances that give the waits of a fleet at its maximum.

    They are those of a scaler that knows every job before it comes: the n-th instance is up
    whenever n jobs run at once, was launched early enough for it, and stays where going would save
    less than coming back costs. No scaler has fewer hours with these waits.
    """
    lifetimes = [(0.0, always_max.end)] * options.minimum
    for level in range(options.minimum + 1, options.maximum + 1):
        lifetimes += _join(_find_busy(always_max.jobs, level), options.startup_seconds)
    return lifetimes


def _find_busy(jobs: Sequence[ServedJob], level: int) -> Iterator[tuple[float, float]]:
    """Stretches in which at least so many jobs run at once."""
    # Of the changes of one moment the ends come first: a job may begin when another ends.
    changes = sorted([(job.ended, -1) for job in jobs] + [(job.started, 1) for job in jobs])
    running = 0
    for (at, change), (then, _) in pairwise(changes):
        running += change
        if running >= level and then > at:
            yield at, then


def _join(
    stretches: Iterator[tuple[float, float]], startup: float
) -> Sequence[tuple[float, float]]:
    """One lifetime for stretches with less than a start-up between them."""
    joined: list[tuple[float, float]] = []
    for begin, end in stretches:
        launched = max(0.0, begin - startup)
        if joined and launched <= joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((launched, end))
    return joined
