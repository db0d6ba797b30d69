"""The demonstration: one job of every subject through the whole system, each result opened."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from local.backend import Backend, Reply
from local.media_check import MediaCheckError
from local.project import WORKFLOWS
from local.result_check import ResultFile, check_result
from local.sample_jobs import SampleJob, make_color, prepare_sample_job
from local.start_local_mode import running_local_mode
from local.terminal import open_terminal
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.errors import JobNotFoundError
from ml_service.domain.jobs import Job

_REPLY_SECONDS = 120


def run_demo(directory: Path) -> int:
    """Run the demonstration; 0 only if every job got its success reply and its media opens."""
    console = open_terminal()
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        started = time.monotonic()
        with console.status("Starting local mode"):
            backend = stack.enter_context(running_local_mode(directory))
        seconds = time.monotonic() - started
        console.print(f"Local mode is up at {backend.ready['endpoint']} after {seconds:.1f} s.")
        jobs = send_sample_jobs(backend)
        console.print(f"{len(jobs)} messages are on the input queue.")
        replies = _await_replies(backend, jobs, console)
        problems = _show_results(backend, jobs, replies, directory, console)
    for problem in problems:
        console.print(f"[red]{problem}")
    if not problems:
        console.print(f"[green]{len(jobs)} of {len(jobs)} jobs succeeded; results in {directory}.")
    return 1 if problems else 0


def send_sample_jobs(backend: Backend) -> list[SampleJob]:
    """Send one valid message per subject, with inputs made for it."""
    catalog = list(load_catalog(WORKFLOWS))
    workflows = {subject: w for w in reversed(catalog) for subject in w.subjects}
    jobs = [
        prepare_sample_job(backend, workflow, make_color(number, len(workflows)))
        for number, workflow in enumerate(workflows.values())
    ]
    for job in jobs:
        backend.send(job.body)
    return jobs


def _await_replies(
    backend: Backend, jobs: Sequence[SampleJob], console: Console
) -> dict[str, Reply]:
    """Replies by PartialName, shown as they come; less than all of them after a while."""
    replies: dict[str, Reply] = {}
    end = time.monotonic() + _REPLY_SECONDS
    with Live(console=console, transient=True) as live:
        while len(replies) < len(jobs) and time.monotonic() < end:
            live.update(_make_progress(backend, jobs, replies))
            for reply in backend.receive_replies(wait_seconds=1):
                replies[reply.data["PartialName"]] = reply
    return replies


def _make_progress(
    backend: Backend, jobs: Sequence[SampleJob], replies: Mapping[str, Reply]
) -> Table:
    table = Table("workflow", "state", "instance")
    for job in jobs:
        record = _find_record(backend, job)
        state = "answered" if job.partial_name in replies else record.state if record else "sent"
        table.add_row(job.workflow.workflow, state, record.instance_id if record else "")
    return table


def _show_results(
    backend: Backend,
    jobs: Sequence[SampleJob],
    replies: Mapping[str, Reply],
    directory: Path,
    console: Console,
) -> list[str]:
    """Print what became of each job; returns what is wrong."""
    table = Table("job", "subject", "fleet", "instance", "queued", "ran", "reply", "files")
    problems: list[str] = []
    keys: list[str] = []
    for job in jobs:
        reply = replies.get(job.partial_name)
        record = _find_record(backend, job)
        answer, files = "none", ""
        if reply is None:
            problems.append(f"{job.workflow.workflow}: no reply within {_REPLY_SECONDS} s")
        elif not reply.succeeded:
            answer, files = "error", reply.data["Error"]
            problems.append(f"{job.workflow.workflow}: {reply.data['Error']}")
        else:
            answer = "success"
            try:
                found = check_result(job, reply, backend.read_result)
                _keep_results(directory, found)
                files = ", ".join(str(file.facts) for file in found.values())
                keys += found
            except MediaCheckError as error:
                problems.append(f"{job.workflow.workflow}: {error}")
        table.add_row(
            job.job_id[:8],
            job.workflow.subjects[0].removeprefix("ComfyUi").removesuffix("Message"),
            job.workflow.fleet,
            record.instance_id if record else "",
            _format_span(record, lambda r: (r.received_at, r.admitted_at)),
            _format_span(record, lambda r: (r.admitted_at, r.closed_at)),
            answer,
            files,
        )
    console.print(table)
    console.print("Result keys:", *keys, sep="\n  ")
    return problems


def _keep_results(directory: Path, files: Mapping[str, ResultFile]) -> None:
    for key, file in files.items():
        target = directory / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)


def _find_record(backend: Backend, job: SampleJob) -> Job | None:
    try:
        return backend.jobs.get(job.job_id)
    except JobNotFoundError:
        return None


def _format_span(
    record: Job | None, ends: Callable[[Job], tuple[datetime | None, datetime | None]]
) -> str:
    start, end = ends(record) if record else (None, None)
    return f"{(end - start).total_seconds():.1f} s" if start and end else ""
