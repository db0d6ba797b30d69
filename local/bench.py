"""The benchmark: what the system itself costs, measured with prompts that take no time."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from local.backend import Backend
from local.load_summary import find_percentile
from local.load_test import LoadOptions, MeasuredLoad, measure_load, print_load
from local.start_local_mode import running_local_mode
from local.terminal import open_terminal
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.errors import MlServiceError
from ml_service.domain.jobs import Job

_WORKFLOWS = Path(__file__).parent.parent / "workflows"
_CHOSEN = ("sonic-audio", "flux-prompt", "photo-make-up-lips-thumbnails")
"""One of each fleet, so that all three admit at once."""
_HISTORY_SECONDS = 5.0


class BenchError(MlServiceError):
    """When a figure cannot be measured."""


def run_bench(directory: Path, *, jobs: int, single_jobs: int) -> int:
    """Measure throughput with ``jobs`` at once, then latency with one at a time.

    0 only if every job succeeded, once, with its own result.
    """
    console = open_terminal()
    directory.mkdir(parents=True, exist_ok=True)
    catalog = load_catalog(_WORKFLOWS)
    workflows = [catalog.workflow(name) for name in _CHOSEN]
    with running_local_mode(directory, "--prompt-seconds", "0") as backend:
        console.print("Warming up: functions start their processes.")
        warm_up = LoadOptions(jobs=min(jobs, 60), concurrency=60)
        measure_load(backend, workflows, warm_up, console)
        console.print(f"{jobs} jobs at once:")
        many = measure_load(backend, workflows, LoadOptions(jobs, jobs), console)
        print_load(console, many)
        console.print(f"{single_jobs} jobs, one at a time:")
        single = measure_load(backend, workflows, LoadOptions(single_jobs, 1), console)
        delays = measure_reply_delays(backend, single)
    _print_figures(console, many, single, delays)
    faults = [
        f"{load.summary.jobs - load.summary.succeeded} jobs failed, "
        f"{load.summary.repeated} replies came again, "
        f"{len(load.summary.wrong_results)} results are wrong."
        for load in (many, single)
        if load.summary.succeeded < load.summary.jobs
        or load.summary.repeated
        or load.summary.wrong_results
    ]
    for fault in faults:
        console.print(f"[red]{fault}")
    return 1 if faults else 0


def measure_reply_delays(backend: Backend, load: MeasuredLoad) -> list[float]:
    """Seconds from the end of each job's prompt, by its server's clock, to its first reply."""
    return [
        answered_at - _read_completion(backend.jobs.get(job_id))
        for job_id, answered_at in load.answered_at.items()
    ]


def _read_completion(job: Job) -> float:
    """When the job's prompt succeeded, in epoch seconds; raises BenchError."""
    url = f"http://{job.address}:8188/history/{job.prompt_id}"
    history = requests.get(url, timeout=_HISTORY_SECONDS).json()
    for event, data in history.get(job.prompt_id, {}).get("status", {}).get("messages", ()):
        if event == "execution_success":
            return float(data["timestamp"]) / 1000
    raise BenchError(f"job {job.job_id}: its server's history does not say when it succeeded")


def _print_figures(
    console: Console, many: MeasuredLoad, single: MeasuredLoad, delays: Sequence[float]
) -> None:
    table = Table("figure", "value", show_header=False)
    table.add_row("machine", f"{os.cpu_count()} cores, Python {platform.python_version()}")
    table.add_row("workflows", ", ".join(_CHOSEN))
    table.add_row(
        f"jobs per second, {many.summary.jobs} at once", f"{many.summary.jobs_per_second:.2f}"
    )
    for what, percentiles in (
        ("message to reply, one at a time", single.summary.percentiles),
        (
            "completion to reply, one at a time",
            {percent: find_percentile(delays, percent) for percent in (50, 95)},
        ),
    ):
        for percent in (50, 95):
            table.add_row(f"{what}, p{percent}", f"{percentiles[percent]:.2f} s")
    console.print(table)
