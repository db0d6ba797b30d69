"""What ran on a simulator, kept over its restarts: the evidence that nothing ran twice."""

import threading
import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Run:
    """One execution of one prompt.

    `start_number` counts the server's starts from 1. `end` is success, error or interrupted, or
    None: the prompt runs yet, or its server or worker was lost meanwhile. `nodes` counts the nodes
    that were computed, not taken from the cache. `ended_at` is in epoch seconds.
    """

    prompt_id: str
    start_number: int
    end: str | None = None
    nodes: int = 0
    ended_at: float | None = None


class RunLog:
    """All runs, oldest first. Every call is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[Run] = []
        self._start_number = 0

    def begin_start(self) -> None:
        """Count a start of the server."""
        with self._lock:
            self._start_number += 1

    @property
    def start_number(self) -> int:
        """The number of the server's last start."""
        with self._lock:
            return self._start_number

    def begin(self, prompt_id: str) -> int:
        """Add a run and return its place."""
        with self._lock:
            self._runs.append(Run(prompt_id, self._start_number))
            return len(self._runs) - 1

    def end(self, place: int, end: str, nodes: int) -> None:
        """Write down how a run ended."""
        with self._lock:
            self._runs[place] = replace(
                self._runs[place], end=end, nodes=nodes, ended_at=time.time()
            )

    @property
    def has_ended(self) -> bool:
        """Whether any prompt has run to an end."""
        with self._lock:
            return any(run.end is not None for run in self._runs)

    def read(self) -> list[Run]:
        """Return all runs."""
        with self._lock:
            return list(self._runs)
