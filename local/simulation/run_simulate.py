"""The command simulate."""

import time
from dataclasses import dataclass
from pathlib import Path

from local.simulation.compare_policies import (
    Candidate,
    FleetModel,
    compare_policies,
    list_candidates,
)
from local.simulation.print_comparison import print_comparison
from local.simulation.traces import read_trace
from local.terminal import open_terminal


@dataclass(frozen=True)
class SimulateOptions:
    """What is asked of a simulation."""

    model: FleetModel
    candidate: Candidate
    compares: bool = False
    """Tries every preset too, and the bounds."""
    price_per_hour: float = 1.0
    plot: Path | None = None


def run_simulate(trace_file: Path, options: SimulateOptions) -> int:
    """Simulate a trace and print what came of it; raises TraceError, SimulationError."""
    terminal = open_terminal()
    trace = read_trace(trace_file)
    model = options.model
    work = sum(arrival.service_seconds for arrival in trace)
    terminal.print(
        f"{len(trace):,} jobs over {trace[-1].seconds / 3600:,.1f} h with {work / 3600:,.1f} h of "
        f"work; {model.minimum} to {model.maximum} instances, {model.startup_seconds:g} s to "
        f"start, T = {model.threshold}"
    )
    began = time.monotonic()
    candidates = {options.candidate.name: options.candidate}
    if options.compares:
        candidates = {c.name: c for c in list_candidates(model.threshold)} | candidates
    comparison = compare_policies(trace, model, candidates.values(), with_bounds=options.compares)
    print_comparison(terminal, comparison, price=options.price_per_hour)
    terminal.print(f"simulated in {time.monotonic() - began:.1f} s")
    if options.plot is not None:
        # Half a second to import, which nobody should wait for who wants no picture.
        from local.simulation.plot_comparison import plot_comparison

        plot_comparison(comparison.records, options.plot, title=trace_file.name)
        terminal.print(f"drawn in {options.plot}")
    return 0
