"""The benchmark: what the system itself costs, measured with prompts that take no time."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from local.aws.loopback_subnet import COMFYUI_PORT
from local.backend import Backend
from local.comfyui.admin_routes import ADMIN_PREFIX
from local.load_summary import find_percentile
from local.load_test import LoadOptions, MeasuredLoad, measure_load, print_load
from local.project import WORKFLOWS
from local.start_local_mode import running_local_mode
from local.terminal import open_terminal
from ml_service.adapters.workflow_files import load_catalog

_CHOSEN = ("sonic-audio", "flux-prompt", "photo-make-up-lips-thumbnails")
"""One of each fleet, so that all three admit at once."""
_ANSWER_SECONDS = 5.0


def run_bench(directory: Path, *, jobs: int, single_jobs: int) -> int:
    """Measure throughput with ``jobs`` at once, then latency with one at a time.

    0 only if every job succeeded, once, with its own result.
    """
    console = open_terminal()
    directory.mkdir(parents=True, exist_ok=True)
    catalog = load_catalog(WORKFLOWS)
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
    """Seconds from the end of each job's prompt, as its simulator saw it, to its first reply."""
    jobs = {job_id: backend.jobs.get(job_id) for job_id in load.answered_at}
    ended: dict[str, float] = {}
    for address in {job.address for job in jobs.values()}:
        ended |= _read_ends(address)
    return [at - ended[jobs[job_id].prompt_id] for job_id, at in load.answered_at.items()]


def _read_ends(address: str) -> dict[str, float]:
    """When each prompt of a simulated instance ended, in epoch seconds."""
    url = f"http://{address}:{COMFYUI_PORT}{ADMIN_PREFIX}/runs"
    runs = requests.get(url, timeout=_ANSWER_SECONDS).json()["runs"]
    return {run["prompt_id"]: run["ended_at"] for run in runs if run["ended_at"] is not None}


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
