"""list_jobs: this stage's jobs, the latest first, part after part."""

import base64
import binascii
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from ml_service.domain.errors import RequestError
from ml_service.domain.jobs import JobState, JobSummary
from ml_service.ports import JobStore


@dataclass(frozen=True)
class Page:
    """A part of a list of jobs."""

    jobs: Sequence[JobSummary]
    cursor: str | None
    """Leads to the next part; None at the end."""


@dataclass(frozen=True)
class ListJobs:
    """Merges what the index has of each fleet and state; nothing is scanned."""

    jobs: JobStore

    def list_jobs(
        self,
        fleets: Iterable[str],
        states: Iterable[JobState],
        *,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        """Up to ``limit`` jobs of these fleets in these states. Raises RequestError."""
        before = _read_cursor(cursor) if cursor else ""
        states = list(states)
        # One more than wanted of each, so that it is known whether there is a next part.
        partitions = [
            self.jobs.list_latest(fleet, state, before=before, limit=limit + 1)
            for fleet in fleets
            for state in states
        ]
        merged = heapq.merge(*partitions, key=lambda job: job.turn, reverse=True)
        found = list(islice(merged, limit + 1))
        jobs = found[:limit]
        return Page(jobs, _make_cursor(jobs[-1].turn) if len(found) > limit else None)


def _make_cursor(turn: str) -> str:
    return base64.urlsafe_b64encode(turn.encode()).decode()


def _read_cursor(cursor: str) -> str:
    try:
        turn = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        turn = ""
    # DynamoDB takes no key of more than 1,024 bytes, nor an empty one.
    if not 0 < len(turn.encode()) <= 1024:
        raise RequestError(
            400, "INVALID_CURSOR", "Send the cursor of an earlier answer as it is, or none."
        )
    return turn
