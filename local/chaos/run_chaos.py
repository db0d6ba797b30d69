"""The chaos run: jobs on a local mode that is harmed meanwhile, and the verdict on it."""

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from local.aws.clients import AwsClients
from local.backend import Backend, Reply
from local.chaos.harm_stage import HarmOptions, Saboteur
from local.chaos.judge_run import ChaosEvidence, ChaosFigures, GpuRun, JobEvidence, judge_run
from local.chaos.watch_stage import StageWatch
from local.graph_folder import list_warm_ups
from local.load_summary import LoadSummary, summarize_load
from local.load_test import (
    LoadOptions,
    LoadRun,
    judge_jobs,
    prepare_jobs,
    print_summary,
    show_progress,
)
from local.project import WORKFLOWS
from local.start_local_mode import running_local_mode
from local.terminal import open_terminal
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.jobs import Job
from ml_service.domain.prompts import make_prompt_id, make_warm_up_id

_CHOSEN = ("sonic-audio", "flux-prompt", "photo-make-up-lips-thumbnails")
"""One of each fleet, so that all three are harmed, and none that costs this machine much."""
_SENDING_SHARE = 0.9
"""Of the time in which the stage is harmed: the last jobs shall have their share."""
_PATIENCE_SECONDS = 240.0
"""A batch whose dispatcher was killed is delivered again after 180 s."""
_SETTLE_SECONDS = 120.0
_WATCH_SECONDS = 5.0
_SHOWN = 20


@dataclass(frozen=True)
class ChaosOptions:
    """A chaos run."""

    jobs: int = 1000
    minutes: float = 5.0
    """Of wall time, in which the stage is harmed; then it may finish in peace."""
    seed: int = 1
    speed: float = 12.0
    """Virtual seconds per second: a tick is 5 s, a cooldown 50 s. Faster, the ticks and the jobs
    that wait for a slot leave two cores no time for work."""
    boot_seconds: float = 90.0
    """Virtual, of a new instance: every minute one is killed."""
    prompt_seconds: float = 0.5
    spared: frozenset[str] = frozenset()
    """Functions that are not killed, as dispatch-jobs."""

    @property
    def local_mode_options(self) -> Sequence[str]:
        """What local mode is started with."""
        return (
            *("--speed", str(self.speed)),
            *("--prompt-seconds", str(self.prompt_seconds)),
            *("--boot-seconds", str(self.boot_seconds)),
            *("--seed", str(self.seed)),
        )


@dataclass(frozen=True)
class ChaosResult:
    """A chaos run that has ended."""

    summary: LoadSummary
    figures: ChaosFigures
    saboteur: Saboteur
    harm_seconds: float
    instances: int
    """How many there were in all."""

    @property
    def broken(self) -> Sequence[str]:
        """Each invariant that does not hold."""
        wrong = (f"A result is wrong: {text}" for text in self.summary.wrong_results)
        return [*self.figures.broken, *wrong]


def run_chaos(directory: Path, options: ChaosOptions) -> int:
    """Start local mode, harm it while it works, print what came of it; 0 if nothing is broken."""
    console = open_terminal()
    directory.mkdir(parents=True, exist_ok=True)
    # With the functions' logs: they say why, where an invariant is broken.
    in_detail = ("--log-level", "DEBUG")
    with running_local_mode(directory, *options.local_mode_options, *in_detail) as backend:
        result = measure_chaos(backend, options, console)
    _print_result(console, result, options)
    return 1 if result.broken else 0


def measure_chaos(backend: Backend, options: ChaosOptions, console: Console) -> ChaosResult:
    """Send the jobs, harm the stage, wait for the answers and for quiet, gather the evidence."""
    watch = StageWatch(
        backend,
        AwsClients(backend.ready["endpoint"], backend.ready["region"]),
        backend.read_fleets(),
    )
    harm_seconds = options.minutes * 60
    load = LoadOptions(
        jobs=options.jobs,
        concurrency=options.jobs,
        rate=options.jobs / (harm_seconds * _SENDING_SHARE),
        patience_seconds=_PATIENCE_SECONDS,
    )
    catalog = load_catalog(WORKFLOWS)
    workflows = [catalog.workflow(name) for name in _CHOSEN]
    with show_progress(console) as make_bar:
        run = LoadRun(
            backend, prepare_jobs(backend, workflows, options.jobs, make_bar("Inputs stored")), load
        )
        saboteur = Saboteur(
            watch, run, HarmOptions(options.seed, harm_seconds, spared=options.spared)
        )
        with saboteur.at_work():
            run.run(make_bar("Jobs answered"))
            _await_quiet(watch)
        run.watch(_WATCH_SECONDS, make_bar("Seconds watched"))
        evidence = _gather_evidence(watch, run, saboteur)
        outcomes = judge_jobs(run, make_bar("Results checked"))
    return ChaosResult(
        summarize_load(outcomes, elapsed_seconds=run.elapsed_seconds),
        judge_run(evidence),
        saboteur,
        harm_seconds,
        len(watch.seen),
    )


def _await_quiet(watch: StageWatch) -> None:
    """Give the sweep its time: until no job is open and no slot taken, or patience ends."""
    end = time.monotonic() + _SETTLE_SECONDS
    far = datetime.now(UTC) + timedelta(days=365)
    while time.monotonic() < end:
        is_open = watch.backend.jobs.list_due(far, limit=1)
        if not is_open and not any(watch.read_slots().values()):
            return
        time.sleep(1)


def _gather_evidence(watch: StageWatch, run: LoadRun, saboteur: Saboteur) -> ChaosEvidence:
    watch.look()
    runs = _list_runs(watch)
    stage = watch.backend.ready["stage"]
    # A fleet without graphs of its own warms up with one of ours.
    steps = range(max(1, len(list_warm_ups(WORKFLOWS))))
    for key, step in itertools.product(watch.seen.values(), steps):
        runs.pop(make_warm_up_id(stage=stage, instance=key, step=step), None)
    jobs = [
        _gather_job(
            job.job_id,
            run.replies[job.partial_name],
            watch.backend.find_record(job.job_id, run.message_ids.get(job.partial_name, "")),
            stage=stage,
            runs=runs,
            watch=watch,
        )
        for job in run.jobs
    ]
    return ChaosEvidence(
        jobs=jobs,
        slots=watch.read_slots(),
        overfull=watch.overfull,
        prompts_left=watch.count_prompts(),
        stray_runs=sum(map(len, runs.values())) - sum(len(job.runs) for job in jobs),
        faulted=saboteur.harmed | (watch.seen.keys() - watch.present.keys()),
    )


def _list_runs(watch: StageWatch) -> dict[str, list[GpuRun]]:
    """Every run that was seen on any instance, by prompt id."""
    found: dict[str, list[GpuRun]] = {}
    for instance_id, runs in watch.runs.items():
        last_start = max((run.start_number for run in runs), default=0)
        for run in runs:
            was_lost = instance_id not in watch.present or run.start_number < last_start
            found.setdefault(run.prompt_id, []).append(GpuRun(instance_id, was_lost, run.end))
    return found


def _gather_job(
    job_id: str,
    replies: Sequence[Reply],
    record: Job | None,
    *,
    stage: str,
    runs: dict[str, list[GpuRun]],
    watch: StageWatch,
) -> JobEvidence:
    attempts = range(1, record.attempt + 1) if record else ()
    prompt_ids = [make_prompt_id(stage=stage, job_id=job_id, attempt=n) for n in attempts]
    return JobEvidence(
        job_id,
        [json.dumps([reply.succeeded, dict(reply.data)], sort_keys=True) for reply in replies],
        record,
        [run for prompt_id in prompt_ids for run in runs.get(prompt_id, [])],
        watch.list_step_errors(job_id, record.run) if record and record.failure else (),
    )


def _print_result(console: Console, result: ChaosResult, options: ChaosOptions) -> None:
    print_summary(console, result.summary, 0)
    figures, saboteur = result.figures, result.saboteur
    table = Table("figure", "value", show_header=False)
    table.add_row("seed", str(options.seed))
    table.add_row("seconds under fire", f"{result.harm_seconds:.0f}")
    for strike, count in saboteur.strikes.most_common():
        table.add_row(strike, str(count))
    for name, count in saboteur.killed.most_common():
        table.add_row(f"  of {name.partition('ml-service-')[2]}", str(count))
    table.add_row("instances in all", str(result.instances))
    table.add_row("jobs accepted", str(figures.accepted))
    table.add_row("jobs answered", str(figures.answered))
    table.add_row("answers delivered again, the same", str(figures.repeated_answers))
    table.add_row("runs on a GPU", str(figures.gpu_runs))
    table.add_row("  of them repeated", str(figures.repeated_runs))
    table.add_row("placements lost with an instance", str(figures.losses))
    table.add_row("invariants broken", str(len(result.broken)))
    console.print(table)
    for sentence in result.broken[:_SHOWN]:
        console.print(f"[red]{sentence}")
    if len(result.broken) > _SHOWN:
        console.print(f"[red]and {len(result.broken) - _SHOWN} more")
    if not result.broken:
        console.print(
            f"[green]{figures.accepted} accepted, {figures.answered} answered, none lost, none "
            "with two answers; all slots are free."
        )
