"""Simulates a trace with one policy or several, beside what no policy can beat."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from local.simulation.find_bounds import find_clairvoyant_lifetimes, simulate_always_max
from local.simulation.simulate_fleet import (
    SimulationOptions,
    SimulationRecord,
    simulate_fleet,
)
from local.simulation.summarize import SimulationSummary, summarize, summarize_bound
from local.simulation.traces import Arrival
from ml_service.domain.scaling_policy import ScalingPolicy, ScalingPreset, make_policy

_VARIED = (ScalingPreset.STREAK, ScalingPreset.NEED)
"""Presets that leave prompts waiting on instances, where to move them may matter."""


@dataclass(frozen=True)
class FleetModel:
    """The fleet on which every policy is tried."""

    threshold: int = 5
    minimum: int = 1
    maximum: int = 3
    startup_seconds: float = 240.0


@dataclass(frozen=True)
class Candidate:
    """A policy that is tried."""

    name: str
    policy: ScalingPolicy
    is_variation: bool = False
    """Told by its figures alone: not day by day, nor without the victim protocol, nor drawn."""


@dataclass(frozen=True)
class Comparison:
    """What each policy did with a trace, by its name."""

    records: Mapping[str, SimulationRecord]
    variations: Mapping[str, SimulationRecord]
    summaries: Sequence[SimulationSummary]


def list_candidates(threshold: int) -> Sequence[Candidate]:
    """Every preset, and what becomes of it with the other choice on moving waiting prompts."""
    presets = {preset: make_policy(preset, threshold=threshold) for preset in ScalingPreset}
    return [
        *(Candidate(preset, policy) for preset, policy in presets.items()),
        *(_vary(preset, presets[preset]) for preset in _VARIED),
    ]


def _vary(name: str, policy: ScalingPolicy) -> Candidate:
    moves = not policy.moves_waiting
    return Candidate(
        f"{name}, moving" if moves else f"{name}, not moving",
        policy.model_copy(update={"moves_waiting": moves}),
        is_variation=True,
    )


def compare_policies(
    trace: Sequence[Arrival],
    model: FleetModel,
    candidates: Iterable[Candidate],
    *,
    with_bounds: bool = False,
) -> Comparison:
    """Simulate the candidates; raises SimulationError."""
    records: dict[str, SimulationRecord] = {}
    variations: dict[str, SimulationRecord] = {}
    summaries: list[SimulationSummary] = []
    for candidate in candidates:
        options = _choose_options(model, candidate.policy)
        record = simulate_fleet(trace, options)
        unprotected = None
        if candidate.is_variation:
            variations[candidate.name] = record
        else:
            records[candidate.name] = record
            unprotected = simulate_fleet(trace, replace(options, protects_jobs=False))
        summaries.append(summarize(candidate.name, record, unprotected))
    if with_bounds:
        policy = make_policy(ScalingPreset.ELASTIC, threshold=model.threshold)
        options = _choose_options(model, policy)
        always_max = simulate_always_max(trace, options)
        clairvoyant = find_clairvoyant_lifetimes(always_max, options)
        summaries += [
            summarize_bound("always max", always_max, always_max.lifetimes),
            summarize_bound("clairvoyant", always_max, clairvoyant),
        ]
    return Comparison(records, variations, summaries)


def _choose_options(model: FleetModel, policy: ScalingPolicy) -> SimulationOptions:
    return SimulationOptions(
        policy=policy,
        minimum=model.minimum,
        maximum=model.maximum,
        startup_seconds=model.startup_seconds,
    )
