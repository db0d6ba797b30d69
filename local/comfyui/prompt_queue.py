"""The prompts that wait, the one that runs, and the history of those that ended."""

import heapq
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

# Older entries are dropped one by one when a new one comes in.
MAX_HISTORY_SIZE = 10_000


class QueuedPrompt(NamedTuple):
    """One accepted prompt.

    Prompts are ordered by number, then id, as ComfyUI's tuples are. Two with the same number and id
    go on to compare their graphs, which raises TypeError: the defect is ComfyUI's and is kept.
    """

    number: int | float
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]
    secrets: dict[str, Any]

    @property
    def client_id(self) -> Any:
        """The websocket client whose job this is, None if the request named none.

        Anything but a text is nobody's id, as on a real server.
        """
        return self.extra_data.get("client_id")

    def shown(self) -> list[Any]:
        """Return the five elements that /queue and /history show; secrets are never among them."""
        return list(self[:5])


class PromptQueue:
    """The queue that the event loop fills and the worker thread empties; calls are thread-safe."""

    def __init__(
        self, on_change: Callable[[int], None], *, max_history: int = MAX_HISTORY_SIZE
    ) -> None:
        """Call `on_change` with what remains, in the calling thread, after every change."""
        self._on_change = on_change
        self._max_history = max_history
        self._changed = threading.Condition()
        self._pending: list[QueuedPrompt] = []
        self._running: QueuedPrompt | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._is_closed = False
        self._wants_free_memory = False

    def put(self, item: QueuedPrompt) -> None:
        """Add a prompt. Raises TypeError where number and id are those of a prompt that waits."""
        with self._changed:
            heapq.heappush(self._pending, item)
            self._changed.notify()
        self._on_change(self.remaining)

    def take(self) -> QueuedPrompt | None:
        """Wait for the next prompt and make it the running one.

        Returns None when there is nothing to run but something else to do: the queue was closed, or
        memory is to be freed.
        """
        with self._changed:
            while not (self._pending or self._is_closed or self._wants_free_memory):
                self._changed.wait()
            if self._is_closed or self._wants_free_memory:
                return None
            self._running = heapq.heappop(self._pending)
            item = self._running
        self._on_change(self.remaining)
        return item

    def finish(self, result: dict[str, Any]) -> None:
        """Move the running prompt to the history, with its outputs, status and meta."""
        with self._changed:
            if self._running is None:
                raise RuntimeError("no prompt is running")
            if len(self._history) >= self._max_history:
                self._history.pop(next(iter(self._history)))
            self._history[self._running.prompt_id] = {"prompt": self._running.shown()} | result
            self._running = None
        self._on_change(self.remaining)

    def close(self) -> None:
        """End the wait of the worker for good."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the queue was closed."""
        with self._changed:
            return self._is_closed

    def request_free_memory(self) -> None:
        """Ask the worker to empty its cache before the next prompt."""
        with self._changed:
            self._wants_free_memory = True
            self._changed.notify()

    def take_free_memory_request(self) -> bool:
        """Tell whether memory is to be freed, and take the request back."""
        with self._changed:
            is_wanted, self._wants_free_memory = self._wants_free_memory, False
            return is_wanted

    @property
    def remaining(self) -> int:
        """The number of prompts that wait or run."""
        with self._changed:
            return len(self._pending) + (self._running is not None)

    @property
    def running(self) -> QueuedPrompt | None:
        """The prompt that runs now."""
        with self._changed:
            return self._running

    def read(self) -> tuple[list[QueuedPrompt], list[QueuedPrompt]]:
        """Return the running prompts (none or one) and the pending ones, in heap order."""
        with self._changed:
            return [] if self._running is None else [self._running], list(self._pending)

    def clear(self) -> None:
        """Drop every pending prompt."""
        with self._changed:
            self._pending = []
        self._on_change(self.remaining)

    def delete(self, prompt_ids: Iterable[str]) -> None:
        """Drop the first pending prompt of each id; other ids are ignored."""
        for prompt_id in prompt_ids:
            if self._delete_first(prompt_id):
                self._on_change(self.remaining)

    def cancel(self, prompt_id: str, interrupt: Callable[[], None]) -> bool:
        """Drop a pending prompt or interrupt the running one, in one step; tell whether it was."""
        with self._changed:
            if self._running is not None and self._running.prompt_id == prompt_id:
                interrupt()
                return True
            is_dropped = self._delete_first(prompt_id)
        if is_dropped:
            self._on_change(self.remaining)
        return is_dropped

    def _delete_first(self, prompt_id: str) -> bool:
        with self._changed:
            for index, item in enumerate(self._pending):
                if item.prompt_id == prompt_id:
                    del self._pending[index]
                    heapq.heapify(self._pending)
                    return True
        return False

    def read_history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """Return the newest `max_items` entries, or that many from `offset` on, oldest first."""
        with self._changed:
            entries = list(self._history.items())
        if max_items is None:
            return dict(entries[max(offset, 0) :])
        start = max(offset if offset >= 0 else len(entries) - max_items, 0)
        return dict(entries[start : start + max_items])

    def read_history_entry(self, prompt_id: str) -> dict[str, Any] | None:
        """Return the entry of one prompt, None where it has not ended or was never here."""
        with self._changed:
            return self._history.get(prompt_id)

    def clear_history(self) -> None:
        """Forget every ended prompt."""
        with self._changed:
            self._history = {}

    def delete_history(self, prompt_ids: Iterable[str]) -> None:
        """Forget these ended prompts; unknown ids are ignored."""
        with self._changed:
            for prompt_id in prompt_ids:
                self._history.pop(prompt_id, None)
