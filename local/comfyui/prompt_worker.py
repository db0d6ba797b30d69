"""The server's worker thread: takes one prompt after the other and runs it."""

import logging
import threading
import time
from typing import Any

from local.comfyui.fault_injection import WorkerLostError
from local.comfyui.faults import FaultKind, Occasion
from local.comfyui.media_folders import MediaFolders
from local.comfyui.prompt_queue import PromptQueue, QueuedPrompt
from local.comfyui.prompt_run import PromptRun, Workshop
from local.comfyui.run_log import RunLog

# A real server says that a job succeeded a moment before its history holds it.
HISTORY_DELAY_SECONDS = 0.01

# An interrupt between taking a prompt and beginning it is lost, on a real server too.
START_DELAY_SECONDS = 0.002

# How long stopping waits for a node that does not look for an interrupt.
STOP_SECONDS = 2.0

_logger = logging.getLogger(__name__)


class PromptWorker:
    """Runs the prompts of a queue in a thread of its own."""

    def __init__(self, queue: PromptQueue, workshop: Workshop, runs: RunLog) -> None:
        self._queue = queue
        self._runs = runs
        self._workshop = workshop
        self._lock = threading.Lock()
        self._is_stopping = False
        self._run: PromptRun | None = None
        # A daemon, so that a node that hangs cannot keep the process alive.
        self._thread = threading.Thread(target=self._work, name="comfyui-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what runs and end the thread. Blocks for at most STOP_SECONDS."""
        with self._lock:
            self._is_stopping = True
            self._workshop.interrupt.set()
        self._workshop.faults.end()
        self._queue.close()
        self._thread.join(STOP_SECONDS)

    def interrupt(self) -> None:
        """Cancel the running prompt at its next node or progress step.

        Without effect on a prompt that was taken but has not begun, as on a real server.
        """
        self._workshop.interrupt.set()

    @property
    def current_node(self) -> str | None:
        """The node that runs now."""
        run = self._run
        return None if run is None else run.current_node

    def _work(self) -> None:
        try:
            while not self._queue.is_closed:
                item = self._queue.take()
                if item is not None:
                    self._execute(item)
                elif self._queue.take_free_memory_request():
                    self._workshop.cache.clear()
        except (Exception, WorkerLostError) as error:  # noqa: BLE001
            # The server goes on without its worker, as ComfyUI does: jobs are accepted, never run.
            # Only the kind of error is logged: its text can quote a prompt.
            if not self._is_stopping:
                _logger.error("comfyui worker died", extra={"error": type(error).__name__})

    def _execute(self, item: QueuedPrompt) -> None:
        time.sleep(START_DELAY_SECONDS)
        with self._lock:
            if not self._is_stopping:
                self._workshop.interrupt.clear()
        fault = self._workshop.faults.board.take(Occasion.PROMPT)
        place = self._runs.begin(item.prompt_id)
        run = self._run = PromptRun(item, self._workshop, fault)
        result = run.execute()
        self._run = None
        if fault is not None and fault.kind is FaultKind.MISSING_OUTPUT:
            _remove_files(self._workshop.folders, result["outputs"])
        time.sleep(HISTORY_DELAY_SECONDS)
        if self._is_stopping:
            return
        # Before the history tells of it: whoever saw the end there finds it here, too.
        self._runs.end(place, run.end, run.computed_nodes)
        self._queue.finish(result)
        if item.client_id is not None:
            end: dict[str, Any] = {"node": None, "prompt_id": item.prompt_id}
            self._workshop.events.send("executing", end, item.client_id)


def _remove_files(folders: MediaFolders, outputs: dict[str, Any]) -> None:
    """Remove what a prompt has listed, as a person or a full disk would."""
    for shown in outputs.values():
        for items in shown.values():
            for item in items:
                if isinstance(item, dict):
                    path = folders.resolve(item["type"], item["subfolder"], item["filename"])
                    path.unlink(missing_ok=True)
