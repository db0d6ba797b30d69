"""Simulates a trace with one policy or all of them, beside what no policy can beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from local.simulation.find_bounds import find_clairvoyant_lifetimes, simulate_always_max
from local.simulation.simulate_fleet import (
    SimulationOptions,
    SimulationRecord,
    simulate_fleet,
)
from local.simulation.summarize import SimulationSummary, summarize, summarize_bound
from local.simulation.traces import Arrival
from ml_service.domain.scaling_policy import ScalingPreset, make_policy


@dataclass(frozen=True)
class FleetModel:
    """The fleet on which every policy is tried."""

    threshold: int = 5
    minimum: int = 1
    maximum: int = 3
    startup_seconds: float = 240.0


@dataclass(frozen=True)
class Comparison:
    """What each policy did with a trace."""

    records: Mapping[ScalingPreset, SimulationRecord]
    summaries: Sequence[SimulationSummary]


def compare_policies(
    trace: Sequence[Arrival],
    model: FleetModel,
    presets: Sequence[ScalingPreset],
    *,
    with_bounds: bool = False,
) -> Comparison:
    """Simulate the presets, each with the victim protocol and without it."""
    records: dict[ScalingPreset, SimulationRecord] = {}
    summaries: list[SimulationSummary] = []
    for preset in presets:
        options = _choose_options(model, preset)
        records[preset] = simulate_fleet(trace, options)
        unprotected = simulate_fleet(trace, replace(options, protects_jobs=False))
        summaries.append(summarize(preset, records[preset], unprotected))
    if with_bounds:
        options = _choose_options(model, ScalingPreset.ELASTIC)
        always_max = simulate_always_max(trace, options)
        clairvoyant = find_clairvoyant_lifetimes(always_max, options)
        summaries += [
            summarize_bound("always max", always_max, always_max.lifetimes),
            summarize_bound("clairvoyant", always_max, clairvoyant),
        ]
    return Comparison(records, summaries)


def _choose_options(model: FleetModel, preset: ScalingPreset) -> SimulationOptions:
    return SimulationOptions(
        policy=make_policy(preset, threshold=model.threshold),
        minimum=model.minimum,
        maximum=model.maximum,
        startup_seconds=model.startup_seconds,
    )
