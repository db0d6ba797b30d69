"""The commands simulate and trace."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from local.target_options import EndpointOption, ReadyFileOption, StageOption

trace_app = typer.Typer(help="Make traces of arrivals for simulate.", no_args_is_help=True)


def simulate_scaling(
    trace: Annotated[
        Path, typer.Argument(help="CSV file: seconds of arrival, seconds of service.")
    ],
    policy: Annotated[
        str,
        typer.Option(
            help="The scaler's policy: streak, need, elastic, or JSON as in the stage's parameters."
        ),
    ] = "streak",
    compare: Annotated[
        bool, typer.Option("--compare", help="Every preset, always-max and a clairvoyant's bound.")
    ] = False,
    startup: Annotated[
        float, typer.Option(min=0, help="Seconds until a launched instance takes jobs.")
    ] = 240.0,
    minimum: Annotated[int, typer.Option("--min", min=0, help="The group's minimum.")] = 1,
    maximum: Annotated[int, typer.Option("--max", min=1, help="The group's maximum.")] = 3,
    threshold: Annotated[int, typer.Option(min=1, help="T, the scaling threshold.")] = 5,
    price: Annotated[float, typer.Option(min=0, help="Price of an instance hour.")] = 1.0,
    plot: Annotated[
        Path | None, typer.Option(help="Draw queue, instances and waits into this PNG file.")
    ] = None,
) -> None:
    """Tell what the scaler would do with a trace of arrivals."""
    from local.simulation.compare_policies import Candidate, FleetModel
    from local.simulation.run_simulate import SimulateOptions, run_simulate
    from ml_service.domain.scaling_policy import read_policy

    if minimum > maximum:
        raise typer.BadParameter("is over --max", param_hint="--min")
    name, parameters = _read_parameters(policy)
    try:
        candidate = Candidate(name, read_policy(parameters, threshold=threshold))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from None
    options = SimulateOptions(
        model=FleetModel(threshold, minimum, maximum, startup),
        candidate=candidate,
        compares=compare,
        price_per_hour=price,
        plot=plot,
    )
    raise typer.Exit(run_simulate(trace, options))


@trace_app.command("generate")
def generate_trace(
    kind: Annotated[str, typer.Argument(help="steady, diurnal, burst or on-off.")],
    output: Annotated[Path, typer.Argument(help="CSV file to write.")],
    days: Annotated[float, typer.Option(min=0.01, max=92, help="Length of the trace.")] = 7.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same trace.")] = 7,
    jobs_per_hour: Annotated[float, typer.Option(min=0.01, help="Jobs on average.")] = 45.0,
    service_seconds: Annotated[
        float, typer.Option(min=0.01, help="Median of the seconds that an instance works on a job.")
    ] = 40.0,
    service_sigma: Annotated[
        float, typer.Option(min=0, max=3, help="How widely they spread (lognormal).")
    ] = 0.6,
    burst_jobs: Annotated[float, typer.Option(min=1, help="Jobs of a burst on average.")] = 12.0,
) -> None:
    """Make a trace up."""
    from local.simulation.make_trace import TraceKind, TraceOptions, make_trace
    from local.simulation.traces import write_trace

    chosen = _choose(TraceKind, kind, "KIND")
    options = TraceOptions(
        chosen, days, seed, jobs_per_hour, service_seconds, service_sigma, burst_jobs
    )
    arrivals = make_trace(options)
    write_trace(output, arrivals)
    typer.echo(f"{len(arrivals)} jobs in {output}")


@trace_app.command("export")
def export_trace(
    fleet: Annotated[str, typer.Argument(help="Name of a fleet, as pulid.")],
    output: Annotated[Path, typer.Argument(help="CSV file to write.")],
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """Record the trace of the jobs that a stage has run."""
    from local.find_backend import Target
    from local.simulation.export_trace import run_export

    raise typer.Exit(run_export(Target(ready_file, endpoint, stage), fleet, output))


def _read_parameters(text: str) -> tuple[str, Mapping[str, Any]]:
    """What to call a policy, and its parameters: a preset's name, or JSON as a stage has it."""
    if not text.lstrip().startswith("{"):
        return text, {"preset": text}
    try:
        parameters: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is no JSON: {error}", param_hint="--policy") from None
    return "yours", parameters


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choose(choices: type[_Choice], text: str, option: str) -> _Choice:
    if text not in list(choices):
        raise typer.BadParameter(f"must be one of {', '.join(choices)}", param_hint=option)
    return choices(text)
