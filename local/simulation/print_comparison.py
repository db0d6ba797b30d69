"""The comparison as tables for a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from local.simulation.compare_policies import Comparison
from local.simulation.simulate_fleet import SimulationRecord
from local.simulation.summarize import SimulationSummary, count_hours, does_pay, find_waits
from ml_service.domain.scaling_policy import ScalingPreset

_DAY = 86_400.0
_WAITS = ("p50", "p95", "p99")


def print_comparison(terminal: Console, comparison: Comparison, *, price: float) -> None:
    """Print the figures, what the policies are worth against `streak`, and that for each day."""
    terminal.print(_tabulate(comparison.summaries, price))
    plain = comparison.records.get(ScalingPreset.STREAK)
    others = {n: r for n, r in comparison.records.items() if r is not plain}
    if plain is None or not others:
        return
    for name, record in {**others, **comparison.variations}.items():
        terminal.print(_judge(name, plain, record))
    if plain.end > _DAY:
        terminal.print(_tabulate_days(comparison))


def _tabulate(summaries: Sequence[SimulationSummary], price: float) -> Table:
    table = Table(title="waits in seconds")
    table.add_column("policy", no_wrap=True)
    for name in (
        *_WAITS,
        "instance hours",
        "cost",
        "actions",
        "reversals in 20 min",
        "prompts moved",
        "jobs killed",
        "without victim protocol",
    ):
        table.add_column(name, justify="right")
    for summary in summaries:
        table.add_row(
            summary.name,
            *(f"{wait:.0f}" for wait in summary.waits),
            f"{summary.instance_hours:.1f}",
            f"{summary.instance_hours * price:.2f}",
            *map(
                _format_count,
                (
                    summary.actions,
                    summary.reversals,
                    summary.moved,
                    summary.killed,
                    summary.killed_unprotected,
                ),
            ),
        )
    return table


def _judge(name: str, plain: SimulationRecord, record: SimulationRecord) -> str:
    """Say in one line what a policy is worth against the plain rule."""
    waits = ", ".join(
        f"{percentile} {_format_change(old, new)}"
        for percentile, old, new in zip(_WAITS, find_waits(plain), find_waits(record), strict=True)
    )
    hours = _format_change(count_hours(plain.lifetimes), count_hours(record.lifetimes))
    verdict = "" if does_pay(plain, record) else f" {name} does not pay here."
    return f"{name} against streak: {waits}, instance hours {hours}.{verdict}"


def _tabulate_days(comparison: Comparison) -> Table:
    table = Table(title="day by day: p95 wait in seconds, instance hours")
    table.add_column("day", justify="right")
    table.add_column("jobs", justify="right")
    for name in comparison.records:
        table.add_column(name, justify="right")
    table.add_column("does not pay")
    for row in _list_days(comparison):
        table.add_row(*row)
    return table


def _list_days(comparison: Comparison) -> Iterator[Sequence[str]]:
    plain = comparison.records[ScalingPreset.STREAK]
    # The last job of a trace may end on a day that nothing arrives on.
    for day in range(1 + int(max(job.arrived for job in plain.jobs) // _DAY)):
        stretch = (day * _DAY, (day + 1) * _DAY)
        waits = {n: find_waits(r, *stretch) for n, r in comparison.records.items()}
        jobs = sum(stretch[0] <= job.arrived < stretch[1] for job in plain.jobs)
        failing = [
            name
            for name, record in comparison.records.items()
            if record is not plain and not does_pay(plain, record, *stretch)
        ]
        yield (
            str(day + 1),
            str(jobs),
            *(
                f"{waits[name][1] if jobs else 0:.0f}, "
                f"{count_hours(record.lifetimes, *stretch):.1f} h"
                for name, record in comparison.records.items()
            ),
            ", ".join(failing),
        )


def _format_count(count: int | None) -> str:
    return "" if count is None else str(count)


def _format_change(old: float, new: float) -> str:
    return f"{(new / old - 1) * 100:+.0f} %" if old else f"+{new:.0f} s" if new else "the same"
