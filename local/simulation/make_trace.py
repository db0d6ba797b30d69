"""Traces that are made up: four kinds of load, each repeatable by its seed."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from local.simulation.traces import Arrival

_HOUR = 3600.0
_DAY = 24 * _HOUR


class TraceKind(StrEnum):
    """How jobs arrive."""

    STEADY = "steady"
    """At the same rate all the time."""
    DIURNAL = "diurnal"
    """At a rate that rises and falls with the day, and is lower at the weekend."""
    BURST = "burst"
    """As by day and night, and half of them in bursts of many at once."""
    ON_OFF = "on-off"
    """At a high rate for a while, then hardly at all for a while."""


@dataclass(frozen=True)
class TraceOptions:
    """What a made trace is like."""

    kind: TraceKind
    days: float = 7.0
    seed: int = 7
    jobs_per_hour: float = 45.0
    """On average over the trace."""
    service_seconds: float = 40.0
    """The median of a lognormal distribution."""
    service_sigma: float = 0.6
    """Its spread: 0 for equal ones."""
    burst_jobs: float = 12.0
    """Jobs of a burst on average."""


def make_trace(options: TraceOptions) -> Sequence[Arrival]:
    """Arrivals over so many days, in the order of time; day 0 is a Monday."""
    random_ = random.Random(options.seed)
    seconds = sorted(_ARRIVALS[options.kind](options, random_))
    median = math.log(options.service_seconds)
    return [Arrival(at, random_.lognormvariate(median, options.service_sigma)) for at in seconds]


def _arrive_steadily(options: TraceOptions, random_: random.Random) -> Iterator[float]:
    return _arrive(options.jobs_per_hour, options, random_)


def _arrive_by_day(options: TraceOptions, random_: random.Random) -> Iterator[float]:
    return _arrive_daily(options.jobs_per_hour, options, random_)


def _arrive_in_bursts(options: TraceOptions, random_: random.Random) -> Iterator[float]:
    single = options.jobs_per_hour / 2
    yield from _arrive_daily(single, options, random_)
    for begin in _arrive_daily(single / options.burst_jobs, options, random_):
        # A burst's size spreads as widely as an exponential distribution, and never is nothing.
        at = begin
        for _ in range(1 + int(random_.expovariate(1 / max(options.burst_jobs - 0.5, 0.5)))):
            at += random_.expovariate(0.1)
            if at < options.days * _DAY:
                yield at


def _arrive_on_and_off(options: TraceOptions, random_: random.Random) -> Iterator[float]:
    """On for half an hour, off for an hour and a half, on average, with a twentieth of the rate."""
    on, off, rest = 0.5 * _HOUR, 1.5 * _HOUR, 0.05
    rate = options.jobs_per_hour / _HOUR * (on + off) / (on + rest * off)
    at, is_on = 0.0, False
    while at < options.days * _DAY:
        end = at + random_.expovariate(1 / (on if is_on else off))
        here = rate if is_on else rate * rest
        moment = at + random_.expovariate(here)
        while moment < min(end, options.days * _DAY):
            yield moment
            moment += random_.expovariate(here)
        at, is_on = end, not is_on


def _arrive(jobs_per_hour: float, options: TraceOptions, random_: random.Random) -> Iterator[float]:
    at = random_.expovariate(jobs_per_hour / _HOUR)
    while at < options.days * _DAY:
        yield at
        at += random_.expovariate(jobs_per_hour / _HOUR)


def _arrive_daily(
    jobs_per_hour: float, options: TraceOptions, random_: random.Random
) -> Iterator[float]:
    """Thin out a steady stream at the daily peak's rate."""
    peak = 2.0
    for at in _arrive(jobs_per_hour * peak, options, random_):
        # From nothing at four in the morning to the peak at four in the afternoon.
        share = (1 - math.cos(2 * math.pi * (at / _DAY - 4 / 24))) / 2
        weekend = int(at // _DAY) % 7 >= 5
        if random_.random() < share * (0.5 if weekend else 1.0):
            yield at


_ARRIVALS: dict[TraceKind, Callable[[TraceOptions, random.Random], Iterator[float]]] = {
    TraceKind.STEADY: _arrive_steadily,
    TraceKind.DIURNAL: _arrive_by_day,
    TraceKind.BURST: _arrive_in_bursts,
    TraceKind.ON_OFF: _arrive_on_and_off,
}
