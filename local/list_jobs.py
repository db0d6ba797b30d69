"""Looking at job records: the newest of them, or one in full."""

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from boto3.dynamodb.conditions import Attr, ConditionBase
from rich.table import Table

from local.backend import Backend
from local.find_backend import Target, TargetError, opened_backend
from local.terminal import open_terminal
from ml_service.adapters.dynamodb import read_items, read_job_item
from ml_service.domain.jobs import Job, JobState

_JOB_ID_WIDTH = 44
"""A UUID behind `refused-`: an id that is cut off could not be given to the next command."""


@dataclass(frozen=True)
class ListOptions:
    """Which jobs are listed."""

    state: str | None = None
    fleet: str | None = None
    limit: int = 20


def run_list(target: Target, options: ListOptions) -> int:
    """Print the newest jobs, the newest first."""
    if options.state is not None and options.state not in list(JobState):
        raise TargetError(f"there is no state {options.state!r}, only {', '.join(JobState)}")
    with opened_backend(target) as backend:
        jobs = list_newest_jobs(backend, options)
    table = Table()
    table.add_column("job", no_wrap=True, min_width=_JOB_ID_WIDTH)
    for name in ("workflow", "fleet", "state", "received", "seconds", "failure"):
        table.add_column(name)
    for job in jobs:
        table.add_row(
            job.job_id,
            job.workflow,
            job.fleet,
            job.state,
            f"{job.received_at:%Y-%m-%d %H:%M:%S}",
            _format_seconds(job.received_at, job.closed_at),
            job.failure.code if job.failure else "",
        )
    open_terminal().print(table)
    return 0


def run_show(target: Target, job_id: str) -> int:
    """Print a job's record as JSON, members without a value left out."""
    with opened_backend(target) as backend:
        record = backend.jobs.get(job_id).model_dump(mode="json")
    shown: dict[str, Any] = {name: value for name, value in record.items() if value}
    if "reply" in shown:
        shown["reply"] = json.loads(shown["reply"])
    # Not through the table's console: it would break long lines, and JSON is for programs too.
    open_terminal().out(json.dumps(shown, indent=2, ensure_ascii=False), highlight=False)
    return 0


def list_newest_jobs(backend: Backend, options: ListOptions) -> list[Job]:
    """The jobs that were received last.

    Every record is read for it: the table has no index by time, and a person looks seldom.
    """
    return heapq.nlargest(
        options.limit, scan_jobs(backend, options), key=lambda job: job.received_at
    )


def scan_jobs(backend: Backend, options: ListOptions) -> Iterator[Job]:
    """Every record of such jobs, in no order; the limit does not count."""
    conditions: list[ConditionBase] = []
    if options.state is not None:
        conditions.append(Attr("state").eq(options.state))
    if options.fleet is not None:
        conditions.append(Attr("fleet").eq(options.fleet))
    request: dict[str, Any] = {}
    if conditions:
        request["FilterExpression"] = (
            conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]
        )
    yield from map(read_job_item, read_items(backend.job_table.scan, **request))


def _format_seconds(start: datetime, end: datetime | None) -> str:
    return f"{(end - start).total_seconds():.1f}" if end else ""
