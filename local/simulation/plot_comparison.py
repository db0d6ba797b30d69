"""The comparison as a picture: jobs that wait, instances, and how long jobs waited."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from local.load_summary import find_percentile
from local.simulation.simulate_fleet import SimulationRecord
from local.simulation.traces import TraceError
from ml_service.domain.scaling_policy import ScalingPreset

_HOUR = 3600.0
_COLOURS: Mapping[str, str] = {
    ScalingPreset.STREAK: "#b4552d",
    ScalingPreset.NEED: "#1f6f8b",
    ScalingPreset.ELASTIC: "#8a8a8a",
}
_OTHER_COLOUR = "#6b4fa0"
_BINS = 168
"""Stretches of the trace over which waits are summed up: the hours of a week."""


def plot_comparison(records: Mapping[str, SimulationRecord], path: Path, *, title: str) -> None:
    """Write a PNG file; raises TraceError if it cannot be written."""
    # A figure of its own, without pyplot: no display is looked for, and none is needed.
    figure = Figure(figsize=(12, 8), layout="constrained")
    queue, instances, waits = figure.subplots(3, 1, sharex=True)
    unit, seconds = _choose_unit(max(record.end for record in records.values()))
    for name, record in records.items():
        times = [sample.at / seconds for sample in record.samples]
        _draw(queue, times, [s.waiting for s in record.samples], name)
        _draw(instances, times, [s.ready for s in record.samples], name)
        _draw(waits, *_sum_up_waits(record, seconds), name)
    for axes, label in (
        (queue, "jobs waiting"),
        (instances, "instances ready"),
        (waits, "p95 wait, minutes"),
    ):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    instances.yaxis.set_major_locator(MaxNLocator(integer=True))
    waits.set_xlabel(unit)
    queue.legend(loc="upper right")
    figure.suptitle(title)
    try:
        figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        raise TraceError(f"{path} cannot be written: {error.strerror}") from error


def _draw(axes: Axes, x: Sequence[float], y: Sequence[float], name: str) -> None:
    colour = _COLOURS.get(name, _OTHER_COLOUR)
    axes.step(x, y, where="post", linewidth=1.0, alpha=0.85, color=colour, label=name)


def _choose_unit(span: float) -> tuple[str, float]:
    return ("days", 24 * _HOUR) if span > 48 * _HOUR else ("hours", _HOUR)


def _sum_up_waits(
    record: SimulationRecord, seconds: float
) -> tuple[Sequence[float], Sequence[float]]:
    width = max(record.end / _BINS, 1.0)
    waits: dict[int, list[float]] = defaultdict(list)
    for job in record.jobs:
        waits[int(job.arrived // width)].append(job.wait)
    times = [number * width / seconds for number in range(_BINS + 1)]
    return times, [
        find_percentile(waits[n], 95) / 60 if waits[n] else 0.0 for n in range(len(times))
    ]
