"""The load test: many sample jobs at once, each answer timed and each result held to its input."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Event

from botocore.exceptions import ClientError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.backend import Backend, Reply
from local.find_backend import Target, TargetError, opened_backend
from local.fleet_record import FleetRecord, find_overfull, recording_fleets
from local.load_summary import (
    Expectations,
    JobOutcome,
    LoadSummary,
    find_misses,
    load_expectations,
    summarize_load,
)
from local.media_check import MediaCheckError
from local.project import WORKFLOWS
from local.result_check import check_result
from local.sample_jobs import SampleJob, make_color, prepare_sample_job
from local.terminal import open_terminal
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.manifests import Workflow

_THREADS = 4
"""To store inputs and to read results; the load itself is sent by one."""
_LOOK_SECONDS = 0.2
_SHOWN_WRONG_RESULTS = 10


@dataclass(frozen=True)
class LoadOptions:
    """What a load test does."""

    jobs: int
    concurrency: int
    """Most jobs that are sent and not yet answered."""
    rate: float | None = None
    """Most messages per second."""
    workflows: Sequence[str] = ()
    """None means all."""
    expectations_file: Path | None = None
    watch_seconds: float = 0.0
    """For so long after the last first reply, second ones are looked for."""
    patience_seconds: float = 300.0
    """Without a reply for so long, the rest counts as missing."""


def run_load_test(target: Target, options: LoadOptions) -> int:
    """Run a load test and print its figures; 0 only if every expectation is met."""
    expected = (
        load_expectations(options.expectations_file)
        if options.expectations_file
        else Expectations()
    )
    workflows = choose_workflows(options.workflows)
    console = open_terminal()
    with opened_backend(target) as backend:
        if not backend.ready["reply_queue_url"]:
            raise TargetError(
                "name a queue of your own that is subscribed to the stage's reply topic with raw "
                "delivery: --reply-queue-url URL"
            )
        load = measure_load(backend, workflows, options, console)
    summary = load.summary
    misses = [*find_misses(summary, expected), *find_overfull(load.fleets)]
    print_load(console, load)
    for miss in misses:
        console.print(f"[red]{miss}")
    if not misses:
        console.print("[green]Every expectation is met.")
    return 1 if misses else 0


@dataclass(frozen=True)
class MeasuredLoad:
    """A load test that has run."""

    summary: LoadSummary
    fleets: Sequence[FleetRecord]
    answered_at: Mapping[str, float]
    """Epoch seconds of each job's first reply, by job id."""
    foreign_replies: int
    """Replies to jobs of others, which were taken from the queue with ours."""


def measure_load(
    backend: Backend, workflows: Sequence[Workflow], options: LoadOptions, console: Console
) -> MeasuredLoad:
    """Store inputs, send the jobs, take their replies, watch the fleets meanwhile, judge."""
    with show_progress(console) as make_bar:
        jobs = prepare_jobs(backend, workflows, options.jobs, make_bar("Inputs stored"))
        run = LoadRun(backend, jobs, options)
        with recording_fleets(backend) as fleets:
            run.run(make_bar("Jobs answered"))
            if options.watch_seconds:
                run.watch(options.watch_seconds, make_bar("Seconds watched"))
        outcomes = judge_jobs(run, make_bar("Results checked"))
    to_epoch = time.time() - time.monotonic()
    return MeasuredLoad(
        summarize_load(outcomes, elapsed_seconds=run.elapsed_seconds),
        fleets,
        {
            job.job_id: run.answered_at[job.partial_name] + to_epoch
            for job in jobs
            if job.partial_name in run.answered_at
        },
        run.foreign_replies,
    )


class LoadRun:
    """Sends in one thread, receives in another, and remembers when."""

    def __init__(self, backend: Backend, jobs: Sequence[SampleJob], options: LoadOptions) -> None:
        self.backend = backend
        self.jobs = jobs
        self.message_ids: dict[str, str] = {}
        self.sent_at: dict[str, float] = {}
        self.answered_at: dict[str, float] = {}
        self.replies: dict[str, list[Reply]] = {job.partial_name: [] for job in jobs}
        self.foreign_replies = 0
        self._options = options
        self._room = BoundedSemaphore(options.concurrency)
        self._end = Event()

    @property
    def elapsed_seconds(self) -> float:
        """From the first message to the last first reply."""
        if not self.answered_at:
            return 0.0
        return max(self.answered_at.values()) - min(self.sent_at.values())

    def run(self, advance: "Advance") -> None:
        """Send every job and wait for its reply, or until patience is at its end."""
        with ThreadPoolExecutor(1) as sender:
            sending = sender.submit(self._send_all)
            try:
                self._await_replies(sending, advance)
            finally:
                self._end.set()
        sending.result()

    def watch(self, seconds: float, advance: "Advance") -> None:
        """Look for replies that nobody should get any more."""
        start = now = time.monotonic()
        while now < start + seconds:
            self._receive(min(1, round(start + seconds - now)))
            now = time.monotonic()
            advance(min(seconds, now - start), seconds)

    def _send_all(self) -> None:
        start = time.monotonic()
        for number, job in enumerate(self.jobs):
            while not self._room.acquire(timeout=_LOOK_SECONDS):
                if self._end.is_set():
                    return
            if self._options.rate is not None:
                due = start + number / self._options.rate
                self._end.wait(max(0.0, due - time.monotonic()))
            if self._end.is_set():
                return
            self.sent_at[job.partial_name] = time.monotonic()
            self.message_ids[job.partial_name] = self.backend.send(job.body)

    def _await_replies(self, sending: "Future[None]", advance: "Advance") -> None:
        last_news, seen = time.monotonic(), 0
        while len(self.answered_at) < len(self.jobs):
            self._receive(1)
            advance(len(self.answered_at), len(self.jobs))
            now, count = time.monotonic(), len(self.answered_at) + len(self.sent_at)
            if count > seen:
                last_news, seen = now, count
            if now > last_news + self._options.patience_seconds:
                return
            if sending.done() and sending.exception() is not None:
                return

    def _receive(self, wait_seconds: int) -> None:
        for reply in self.backend.receive_replies(wait_seconds=wait_seconds):
            name = reply.data["PartialName"]
            if name not in self.replies:
                self.foreign_replies += 1
                continue
            self.replies[name].append(reply)
            if name not in self.answered_at:
                self.answered_at[name] = time.monotonic()
                self._room.release()


Advance = Callable[[float, float], None]
"""Shows how much of how much is done."""


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[str], Advance]]:
    """Show a bar for each description that is asked for, while the block runs."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def make_bar(description: str) -> Advance:
            task = progress.add_task(description, total=None)
            return lambda done, total: progress.update(
                task, completed=round(done), total=round(total)
            )

        yield make_bar


def choose_workflows(names: Sequence[str]) -> list[Workflow]:
    """The named workflows, or all; raises WorkflowError."""
    catalog = load_catalog(WORKFLOWS)
    return [catalog.workflow(name) for name in names] if names else list(catalog)


def prepare_jobs(
    backend: Backend, workflows: Sequence[Workflow], count: int, advance: Advance
) -> list[SampleJob]:
    """Make every job and store its inputs, so that only messages are sent under the clock."""

    def make(number: int) -> SampleJob:
        return prepare_sample_job(
            backend, workflows[number % len(workflows)], _choose_color(number)
        )

    jobs = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for job in pool.map(make, range(count)):
            jobs.append(job)
            advance(len(jobs), count)
    return jobs


def _choose_color(number: int) -> tuple[int, int, int]:
    """A colour far from those of the jobs before and after: steps of the golden section."""
    return make_color(round(number * 618.034) % 1000, 1000)


def judge_jobs(run: LoadRun, advance: Advance) -> list[JobOutcome]:
    """Tell what became of each job, and whether its result is its own."""
    outcomes = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for outcome in pool.map(lambda job: _judge_job(run, job), run.jobs):
            outcomes.append(outcome)
            advance(len(outcomes), len(run.jobs))
    return outcomes


def _judge_job(run: LoadRun, job: SampleJob) -> JobOutcome:
    workflow, replies = job.workflow.workflow, run.replies[job.partial_name]
    if not replies:
        return JobOutcome(workflow, seconds=None, replies=0)
    seconds = run.answered_at[job.partial_name] - run.sent_at[job.partial_name]
    first = replies[0]
    if not first.succeeded:
        return JobOutcome(
            workflow,
            seconds,
            len(replies),
            failure_code=_find_failure_code(run, job),
            failure_sentence=first.data["Error"],
        )
    try:
        check_result(job, first, run.backend.read_result)
    except (MediaCheckError, ClientError) as error:
        # A key that is not in the bucket is as wrong as a file that is no media.
        return JobOutcome(workflow, seconds, len(replies), wrong_result=str(error))
    return JobOutcome(workflow, seconds, len(replies))


def _find_failure_code(run: LoadRun, job: SampleJob) -> str:
    """The code from the job's record: the backend itself gets only the sentence."""
    record = run.backend.find_record(job.job_id, run.message_ids[job.partial_name])
    return record.failure.code if record and record.failure else "UNKNOWN"


def print_load(console: Console, load: MeasuredLoad) -> None:
    """Print the figures of a load test, and what its fleets did."""
    print_summary(console, load.summary, load.foreign_replies)
    table = Table(
        "fleet", "most waiting", "most slots of one", "most instances busy", "desired capacity"
    )
    for record in load.fleets:
        table.add_row(
            record.fleet,
            str(record.most_waiting),
            f"{record.most_slots} of {record.slots_per_instance}",
            str(record.most_busy),
            ", ".join(map(str, record.desired_changes)),
        )
    console.print(table)


def print_summary(console: Console, summary: LoadSummary, foreign_replies: int) -> None:
    """Print the figures alone."""
    table = Table("figure", "value", show_header=False)
    table.add_row("jobs", str(summary.jobs))
    table.add_row("succeeded", str(summary.succeeded))
    table.add_row("failed", str(sum(summary.failures.values())))
    table.add_row("without a reply", str(summary.missing))
    table.add_row("replies beyond the first", str(summary.repeated))
    table.add_row("results that are wrong", str(len(summary.wrong_results)))
    table.add_row("seconds in all", f"{summary.elapsed_seconds:.1f}")
    table.add_row("jobs per second", f"{summary.jobs_per_second:.2f}")
    for percent, seconds in summary.percentiles.items():
        name = "longest" if percent == 100 else f"p{percent}"
        table.add_row(f"{name}, message to reply", f"{seconds:.2f} s")
    if foreign_replies:
        table.add_row("replies to other jobs, dropped", str(foreign_replies))
    console.print(table)
    for code, count in summary.failures.items():
        console.print(f"{count} x {code}: {summary.failure_sentences[code]}", markup=False)
    for wrong in summary.wrong_results[:_SHOWN_WRONG_RESULTS]:
        console.print(f"wrong result: {wrong}", markup=False)
    if len(summary.wrong_results) > _SHOWN_WRONG_RESULTS:
        console.print(f"and {len(summary.wrong_results) - _SHOWN_WRONG_RESULTS} more")
