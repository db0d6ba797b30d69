"""The commands scaler history and scaler explain."""

from typing import Annotated

import typer

from local.target_options import EndpointOption, ReadyFileOption, StageOption

scaler_app = typer.Typer(help="Look at the scaler.", no_args_is_help=True)

FleetArgument = Annotated[str, typer.Argument(help="Name of a fleet, as pulid.")]


@scaler_app.command("history")
def show_history(
    fleet: FleetArgument,
    limit: Annotated[int, typer.Option(min=1, help="Most decisions to show.")] = 30,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """List a fleet's last decisions; they are kept for 30 days."""
    from local.explain_scaler import run_history
    from local.find_backend import Target

    raise typer.Exit(run_history(Target(ready_file, endpoint, stage), fleet, limit=limit))


@scaler_app.command("explain")
def explain_scaler(
    fleet: FleetArgument,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """Tell what the scaler would do with a fleet now, and why, without doing it."""
    from local.explain_scaler import run_explain
    from local.find_backend import Target

    raise typer.Exit(run_explain(Target(ready_file, endpoint, stage), fleet))
