"""The command line: ml-service."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from local.dead_letter_commands import app as dead_letters_app
from local.scaler_commands import scaler_app
from local.simulation.commands import simulate_scaling, trace_app
from local.target_options import EndpointOption, ReadyFileOption, StageOption
from local.workflow_commands import app as workflows_app
from ml_service.domain.errors import MlServiceError

if TYPE_CHECKING:
    from local.comfyui.faults import Fault
    from local.comfyui.profiles import Profile
    from local.comfyui.prompt_durations import Duration

app = typer.Typer(
    help="Runs a backend's media jobs on a fleet of ComfyUI servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

jobs_app = typer.Typer(help="Look at jobs.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")
app.add_typer(dead_letters_app, name="dlq")
app.add_typer(workflows_app, name="workflows")
app.add_typer(scaler_app, name="scaler")
app.add_typer(trace_app, name="trace")
app.command("simulate")(simulate_scaling)

InputBucketOption = Annotated[
    str | None, typer.Option(help="Bucket for inputs.  [default: the first that the stage allows]")
]

ProfileOption = Annotated[
    str, typer.Option(help="Version that a simulated ComfyUI plays: 0.12 or 0.38.")
]
DurationOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORKFLOW=SECONDS",
        help="Seconds of a workflow's prompts; also uniform:LEAST:MOST or lognormal:MEDIAN:SIGMA.",
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Makes drawn durations repeatable.")]
UnknownNodesOption = Annotated[
    bool, typer.Option(help="Let a simulated ComfyUI accept custom nodes and models that it lacks.")
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FOLDER/FILE",
        help="A further model of a simulated ComfyUI, as loras/mine.safetensors.",
    ),
]


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
    duration: DurationOption = None,
    seed: SeedOption = None,
    profile: ProfileOption = "0.12",
    model: ModelOption = None,
    allow_unknown_nodes: UnknownNodesOption = True,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[FLEET:]KIND[:OPTION=VALUE,...]",
            help="Switch a fault of the simulated servers on, as lip-sync:hang.",
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG also shows the functions' logs.")] = "INFO",
) -> None:
    """Run the whole system on this machine: no AWS account, no Docker, no GPU."""
    from local.comfyui.model_files import add_models
    from local.local_mode import LocalOptions, run_local
    from local.project import WORKFLOWS

    if stage not in ("dev", "prod"):
        raise typer.BadParameter("must be dev or prod", param_hint="--stage")
    if speed <= 0:
        raise typer.BadParameter("must be greater than 0", param_hint="--speed")
    real = dict(_parse_servers(text) for text in comfyui or [])
    options = LocalOptions(
        port=port,
        speed=speed,
        ready_file=ready_file,
        comfyui=real,
        stage=stage,
        prompt_seconds=prompt_seconds,
        boot_seconds=boot_seconds,
        durations=_parse_durations(duration or [], WORKFLOWS),
        seed=seed,
        profile=_choose_profile(profile),
        models=add_models(model or []),
        allow_unknown_nodes=allow_unknown_nodes,
        faults=_parse_fleet_faults(fault or [], real),
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
    duration: DurationOption = None,
    seed: SeedOption = None,
    profile: ProfileOption = "0.12",
    model: ModelOption = None,
    allow_unknown_nodes: UnknownNodesOption = False,
    max_upload_size: Annotated[
        float, typer.Option(min=0.001, help="Largest request in MiB, as ComfyUI's own option.")
    ] = 100.0,
    workflows: Annotated[
        Path, typer.Option(help="Folder with the workflows that --duration names.")
    ] = Path("workflows"),
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND[:OPTION=VALUE,...]", help="Switch a fault on, as oom:times=2."),
    ] = None,
) -> None:
    """Run one simulated ComfyUI server."""
    from local.comfyui.faults import FaultBoard
    from local.comfyui.model_files import add_models
    from local.comfyui.prompt_durations import FixedDuration, PromptDurations, read_graphs
    from local.comfyui.simulator import serve
    from local.comfyui.simulator_settings import SimulatorSettings

    durations = PromptDurations(
        FixedDuration(prompt_seconds),
        _parse_durations(duration or [], workflows),
        graphs=read_graphs(workflows),
        seed=seed,
    )
    settings = SimulatorSettings(
        profile=_choose_profile(profile),
        durations=durations,
        faults=FaultBoard.of(_parse_fault(text) for text in fault or []),
        models=add_models(model or []),
        allow_unknown_nodes=allow_unknown_nodes,
        max_request_bytes=int(max_upload_size * 1024 * 1024),
    )
    raise typer.Exit(serve(host, port, directory, settings))


@app.command("demo")
def run_demo_jobs(
    directory: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path(".demo"),
) -> None:
    """Start local mode, run one job of every subject, and check each result."""
    from local.demo import run_demo

    raise typer.Exit(run_demo(directory))


@app.command("submit")
def submit_job(
    workflow: Annotated[str, typer.Argument(help="Name of a workflow, as flux-prompt.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=VALUE", help="A value, or @PATH of a file."),
    ] = None,
    group_id: Annotated[int, typer.Option(min=0, help="First part of the results' names.")] = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer.")] = False,
    timeout_seconds: Annotated[float, typer.Option(min=0, help="Longest wait.")] = 3600.0,
    save_to: Annotated[
        Path | None, typer.Option(help="Wait, and put the result's files into this folder.")
    ] = None,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
    input_bucket: InputBucketOption = None,
) -> None:
    """Send one job, its inputs given by name."""
    from local.find_backend import Target
    from local.submit_job import SubmitOptions, run_submit

    target = Target(ready_file, endpoint, stage, input_bucket=input_bucket)
    options = SubmitOptions(
        workflow,
        inputs or [],
        group_id=group_id,
        wait=wait or save_to is not None,
        timeout_seconds=timeout_seconds,
        save_to=save_to,
    )
    raise typer.Exit(run_submit(target, options))


@jobs_app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Only jobs of this fleet.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs to list.")] = 20,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """List the newest jobs."""
    from local.find_backend import Target
    from local.list_jobs import ListOptions, run_list

    target = Target(ready_file, endpoint, stage)
    raise typer.Exit(run_list(target, ListOptions(state, fleet, limit)))


@jobs_app.command("redrive")
def redrive_jobs(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of jobs that have no result.")],
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """Let closed jobs run again; one whose result only could not be stored is not made anew."""
    from local.find_backend import Target
    from local.triage import run_redrive_jobs

    raise typer.Exit(run_redrive_jobs(Target(ready_file, endpoint, stage), job_ids))


@jobs_app.command("show")
def show_job(
    job_id: Annotated[str, typer.Argument(help="The job's id: its message's MessageId.")],
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """Print the record of a job as JSON."""
    from local.find_backend import Target
    from local.list_jobs import run_show

    raise typer.Exit(run_show(Target(ready_file, endpoint, stage), job_id))


@app.command("alarms")
def show_alarms(
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """List the alarms of a stage; exits with 1 if one rings."""
    from local.find_backend import Target
    from local.list_alarms import run_alarms

    raise typer.Exit(run_alarms(Target(ready_file, endpoint, stage)))


@app.command("load")
def run_load_test(
    jobs: Annotated[
        int, typer.Option(min=1, envvar="NUM_TEST_TASKS", help="Jobs to send in all.")
    ] = 20,
    concurrency: Annotated[
        int,
        typer.Option(
            min=1, envvar="CONCURRENT_REQUESTS", help="Most jobs sent and not yet answered."
        ),
    ] = 10,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Most messages per second.")] = None,
    workflow: Annotated[
        list[str] | None, typer.Option(help="Only this workflow; may be repeated.")
    ] = None,
    expect: Annotated[
        Path | None, typer.Option(help="JSON file with the figures to reach.")
    ] = None,
    watch_seconds: Annotated[
        float, typer.Option(min=0, help="Look for second replies for so long afterwards.")
    ] = 0.0,
    patience_seconds: Annotated[
        float, typer.Option(min=1, help="Give up after so long without any reply.")
    ] = 300.0,
    reply_queue_url: Annotated[
        str | None,
        typer.Option(help="Queue on a deployed stage's reply topic; its messages are taken."),
    ] = None,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
    input_bucket: InputBucketOption = None,
) -> None:
    """Send many sample jobs, time each reply, and hold each result to its own input."""
    from local.find_backend import Target
    from local.load_test import LoadOptions
    from local.load_test import run_load_test as run

    target = Target(ready_file, endpoint, stage, reply_queue_url, input_bucket)
    options = LoadOptions(
        jobs,
        concurrency,
        rate=rate,
        workflows=workflow or [],
        expectations_file=expect,
        watch_seconds=watch_seconds,
        patience_seconds=patience_seconds,
    )
    raise typer.Exit(run(target, options))


@app.command("smoke")
def run_smoke_test(
    workflow: Annotated[str, typer.Option(help="Whose sample job is sent.")] = "flux-prompt",
    timeout_seconds: Annotated[
        float, typer.Option(min=1, help="Longest wait for its end.")
    ] = 900.0,
    reply_queue_url: Annotated[
        str | None,
        typer.Option(help="Queue on a deployed stage's reply topic, to look for the reply there."),
    ] = None,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
    input_bucket: InputBucketOption = None,
) -> None:
    """Send one job through a stage; check every hop, the tick, dead letters and alarms."""
    from local.find_backend import Target
    from local.smoke_test import run_smoke

    target = Target(ready_file, endpoint, stage, reply_queue_url, input_bucket)
    raise typer.Exit(run_smoke(target, workflow=workflow, timeout_seconds=timeout_seconds))


@app.command("bench")
def run_bench(
    jobs: Annotated[int, typer.Option(min=3, help="Jobs sent at once.")] = 200,
    single_jobs: Annotated[int, typer.Option(min=3, help="Jobs sent one at a time.")] = 20,
    directory: Annotated[Path, typer.Option(help="Where the log goes.")] = Path(".bench"),
) -> None:
    """Measure the system itself on this machine, with prompts that take no time."""
    from local.bench import run_bench as run

    raise typer.Exit(run(directory, jobs=jobs, single_jobs=single_jobs))


@app.command("chaos")
def run_chaos_jobs(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs to send.")] = 1000,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Minutes in which instances and functions are harmed.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Chooses what is harmed, and when.")] = 1,
    speed: Annotated[
        float, typer.Option(min=1, help="Run ticks, waits and cooldowns this much faster.")
    ] = 12.0,
    directory: Annotated[Path, typer.Option(help="Where the log goes.")] = Path(".chaos"),
) -> None:
    """Run jobs while instances die and functions are killed, and prove that none is lost."""
    from local.chaos.run_chaos import ChaosOptions, run_chaos

    raise typer.Exit(run_chaos(directory, ChaosOptions(jobs, minutes, seed, speed)))


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


def _choose_profile(name: str) -> "Profile":
    from local.comfyui.profiles import PROFILES

    if name not in PROFILES:
        raise typer.BadParameter(f"must be {' or '.join(PROFILES)}", param_hint="--profile")
    return PROFILES[name]


def _parse_durations(texts: list[str], workflows: Path) -> "dict[str, Duration]":
    from local.comfyui.prompt_durations import (
        DurationError,
        parse_workflow_duration,
        read_graphs,
    )

    graphs = read_graphs(workflows)
    try:
        return dict(parse_workflow_duration(text, graphs) for text in texts)
    except DurationError as error:
        raise typer.BadParameter(str(error), param_hint="--duration") from error


def _parse_fleet_faults(
    texts: list[str], real: dict[str, tuple[str, ...]]
) -> "dict[str, tuple[Fault, ...]]":
    """Return the faults of each fleet; one without a fleet's name is for all simulated ones."""
    from local.comfyui.faults import FaultKind
    from local.local_mode import FLEETS

    faults: dict[str, tuple[Fault, ...]] = dict.fromkeys(FLEETS, ())
    for text in texts:
        fleet, separator, rest = text.partition(":")
        if separator and fleet not in (*FLEETS, *FaultKind):
            raise typer.BadParameter(
                f"{fleet!r} is neither a fleet ({', '.join(FLEETS)}) nor a fault "
                f"({', '.join(FaultKind)})",
                param_hint="--fault",
            )
        if fleet in real:
            raise typer.BadParameter(
                f"the servers of {fleet} are real and suffer no faults", param_hint="--fault"
            )
        chosen, described = ([fleet], rest) if separator and fleet in FLEETS else (FLEETS, text)
        for name in chosen:
            faults[name] += (_parse_fault(described),)
    return faults


def _parse_fault(text: str) -> "Fault":
    from local.comfyui.faults import FaultError, parse_fault

    try:
        return parse_fault(text)
    except FaultError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from error


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
