"""The command line: ml-service."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ml_service.domain.errors import MlServiceError

app = typer.Typer(
    help="Runs a backend's media jobs on a fleet of ComfyUI servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def describe() -> None:
    """Runs a backend's media jobs on a fleet of ComfyUI servers."""


@app.command("local")
def run_local_mode(
    port: Annotated[int, typer.Option(help="Port of the embedded AWS.")] = 4566,
    speed: Annotated[
        float, typer.Option(help="Run ticks, waits, cooldowns and boot times this much faster.")
    ] = 1.0,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write endpoint and names to this JSON file when ready.")
    ] = None,
    comfyui: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLEET=HOST:PORT[,HOST:PORT...]",
            help="Real ComfyUI servers for a fleet, instead of simulated ones.",
        ),
    ] = None,
    stage: Annotated[str, typer.Option(help="prod, or dev, which never scales.")] = "prod",
    prompt_seconds: Annotated[
        float, typer.Option(help="Least seconds that a simulated prompt runs.")
    ] = 1.0,
    boot_seconds: Annotated[
        float, typer.Option(help="Seconds that a launched instance takes to answer, at speed 1.")
    ] = 240.0,
    log_level: Annotated[str, typer.Option(help="DEBUG also shows the functions' logs.")] = "INFO",
) -> None:
    """Run the whole system on this machine: no AWS account, no Docker, no GPU."""
    from local.local_mode import LocalOptions, run_local

    if stage not in ("dev", "prod"):
        raise typer.BadParameter("must be dev or prod", param_hint="--stage")
    if speed <= 0:
        raise typer.BadParameter("must be greater than 0", param_hint="--speed")
    options = LocalOptions(
        port=port,
        speed=speed,
        ready_file=ready_file,
        comfyui=dict(_parse_servers(text) for text in comfyui or []),
        stage=stage,
        prompt_seconds=prompt_seconds,
        boot_seconds=boot_seconds,
        log_level=log_level.upper(),
    )
    raise typer.Exit(run_local(options))


@app.command("comfyui")
def run_simulated_comfyui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8188,
    directory: Annotated[
        Path, typer.Option(help="Folder for its input, output and temp folders.")
    ] = Path(".demo/comfyui"),
    prompt_seconds: Annotated[float, typer.Option(help="Least seconds that a prompt runs.")] = 1.0,
) -> None:
    """Run one simulated ComfyUI server."""
    from local.comfyui.simulator import serve

    serve(host, port, directory, prompt_seconds)


@app.command("demo")
def run_demo_jobs(
    directory: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path(".demo"),
) -> None:
    """Start local mode, run one job of every subject, and check each result."""
    from local.demo import run_demo

    raise typer.Exit(run_demo(directory))


def _parse_servers(text: str) -> tuple[str, tuple[str, ...]]:
    from local.local_mode import FLEETS

    fleet, separator, servers = text.partition("=")
    addresses = tuple(address.strip() for address in servers.split(",") if address.strip())
    if not separator or not addresses or not all(_has_port(address) for address in addresses):
        raise typer.BadParameter(
            f"{text!r} is not FLEET=HOST:PORT[,HOST:PORT...]", param_hint="--comfyui"
        )
    if fleet not in FLEETS:
        raise typer.BadParameter(
            f"there is no fleet {fleet!r}, only {', '.join(FLEETS)}", param_hint="--comfyui"
        )
    return fleet, addresses


def _has_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def main() -> None:
    """Run a command; a known error is one line, not a traceback."""
    try:
        app()
    except MlServiceError as error:
        typer.echo(f"ml-service: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
