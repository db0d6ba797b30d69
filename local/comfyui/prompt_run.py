"""One execution of one prompt: runs its nodes in order."""

import threading
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from PIL import Image

from local.comfyui.execution_order import ExecutionOrder
from local.comfyui.fault_injection import FaultInjector
from local.comfyui.faults import Fault, FaultKind
from local.comfyui.graph_links import is_link, linked_nodes
from local.comfyui.media_folders import MediaFolders
from local.comfyui.node_cache import NodeCache, sign_nodes
from local.comfyui.node_catalog import NodeCatalog
from local.comfyui.node_run import NodeResult, NodeRun, OutOfMemoryError, PromptInterruptedError
from local.comfyui.profiles import Profile
from local.comfyui.prompt_durations import PromptDurations
from local.comfyui.prompt_queue import QueuedPrompt
from local.comfyui.prompt_report import EventSender, PromptReport
from local.comfyui.unknown_nodes import StandIn

# A node that waits for its share of the prompt's time reports progress at most so often.
MAX_PROGRESS_STEPS = 10
MIN_STEP_SECONDS = 0.1

# A batch of pictures has a long printed form that helps nobody.
_LONGEST_PRINTED_VALUE = 1000

_PREVIEW_METHODS = ("auto", "latent2rgb", "taesd")
_PREVIEW_SIZE = (64, 64)

_OUT_OF_MEMORY_ADVICE = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a "
    "large number."
)

# What strikes a node in the middle of its work and not at its beginning.
_LATE_FAULTS = (FaultKind.EXCEPTION, FaultKind.OOM, FaultKind.EXIT, FaultKind.RESTART)


@dataclass(frozen=True)
class Workshop:
    """What every execution on one server shares."""

    profile: Profile
    catalog: NodeCatalog
    folders: MediaFolders
    cache: NodeCache
    events: EventSender
    interrupt: threading.Event
    faults: FaultInjector
    durations: PromptDurations


class PromptRun:
    """The execution of one prompt, whose first node suffers `fault`.

    `current_node` may be read from other threads.
    """

    def __init__(self, item: QueuedPrompt, workshop: Workshop, fault: Fault | None = None) -> None:
        self.current_node: str | None = None
        self._fault = fault
        self._seconds = workshop.durations.draw(item.prompt)
        self._item = item
        self._workshop = workshop
        self._signatures = sign_nodes(item.prompt, item.outputs, workshop.catalog, workshop.folders)
        self._report = PromptReport(item, workshop.events)
        self._outputs: dict[str, Any] = {}
        self._executed: list[str] = []

    def execute(self) -> dict[str, Any]:
        """Run the prompt to its end; return outputs, status and meta for the history."""
        self._workshop.cache.keep_only(set(self._signatures.values()))
        self._report.add("execution_start", {})
        cached = [node_id for node_id in self._item.prompt if self._is_cached(node_id)]
        self._report.add("execution_cached", {"nodes": cached})
        is_success = self._run_nodes()
        return {
            "outputs": self._outputs,
            "status": {
                "status_str": "success" if is_success else "error",
                "completed": is_success,
                "messages": self._report.messages,
            },
            "meta": {node_id: _describe_output(node_id) for node_id in self._outputs},
        }

    @property
    def computed_nodes(self) -> int:
        """The number of nodes that ran to their end and were not taken from the cache."""
        return len(self._executed)

    @property
    def end(self) -> str:
        """How the run ended: success, error or interrupted."""
        return self._report.end

    def _run_nodes(self) -> bool:
        order = ExecutionOrder(self._item.outputs, self._linked_nodes, self._is_cached)
        to_run = sum(not self._is_cached(node_id) for node_id in order.node_ids)
        started = time.monotonic()
        while (node_id := order.next_node()) is not None:
            self.current_node = node_id
            try:
                self._check_interrupt()
                share = self._seconds * (len(self._executed) + 1) / max(to_run, 1)
                if self._is_cached(node_id):
                    self._suffer(node_id, due=started + share)
                    self._use_cached(node_id)
                else:
                    self._run_node(node_id, due=started + share)
            except PromptInterruptedError:
                self._report.add("execution_interrupted", self._position(node_id), is_for_all=True)
                return False
            except Exception as error:  # noqa: BLE001
                # Whatever a node raises is the job's error and never the server's.
                self._report.add("execution_error", self._describe_error(node_id, error))
                return False
            order.mark_done(node_id)
        self._report.add("execution_success", {})
        return True

    def _use_cached(self, node_id: str) -> None:
        result = self._cached(node_id)
        self._report.show_output(node_id, result.shown)
        is_listed = (
            self._item.client_id is not None
            or self._workshop.profile.lists_cached_outputs_without_client
        )
        if is_listed and result.shown is not None:
            self._outputs[node_id] = result.shown
        self._report.end_node(node_id)

    def _run_node(self, node_id: str, due: float) -> None:
        self._report.begin_node(node_id)
        self._suffer(node_id, due)
        node = self._item.prompt[node_id]
        run_node = self._workshop.catalog.implement(node)
        result = run_node(self._node_run(node_id), **self._inputs(node_id))
        self._wait_until(node_id, due)
        self._workshop.cache.put(self._signatures[node_id], result)
        self._executed.append(node_id)
        if result.shown is not None:
            self._outputs[node_id] = result.shown
            self._report.show_output(node_id, result.shown)
        self._report.end_node(node_id)

    def _suffer(self, node_id: str, due: float) -> None:
        """Let the first node meet the prompt's fault, at its beginning or after its time."""
        fault, self._fault = self._fault, None
        if fault is None or fault.kind is FaultKind.MISSING_OUTPUT:
            return
        if fault.kind in _LATE_FAULTS:
            self._wait_until(node_id, due)
        self._workshop.faults.strike_node(fault)

    def _wait_until(self, node_id: str, due: float) -> None:
        """Report progress until the node's share of the prompt's time is over.

        A node that has taken longer than its share by itself reports only that it is done.
        """
        if self._seconds <= 0:
            return
        remaining = max(0.0, due - time.monotonic())
        steps = max(1, min(MAX_PROGRESS_STEPS, int(remaining / MIN_STEP_SECONDS)))
        preview = None
        if self._item.extra_data.get("preview_method") in _PREVIEW_METHODS:
            preview = Image.new("RGB", _PREVIEW_SIZE)
        for step in range(1, steps + 1):
            self._workshop.interrupt.wait(remaining / steps)
            self._step(node_id, step, steps, preview)

    def _step(
        self, node_id: str, value: float, highest: float, preview: Image.Image | None = None
    ) -> None:
        self._check_interrupt()
        self._report.step_node(node_id, value, highest, preview)

    def _check_interrupt(self) -> None:
        if self._workshop.interrupt.is_set():
            raise PromptInterruptedError

    def _node_run(self, node_id: str) -> NodeRun:
        return NodeRun(
            folders=self._workshop.folders,
            now=datetime.now(UTC),
            prompt=self._item.prompt,
            extra_png_info=self._item.extra_data.get("extra_pnginfo") or {},
            check_interrupt=self._check_interrupt,
            report_progress=partial(self._step, node_id),
            tell_text=partial(self._report.tell_text, node_id),
        )

    def _inputs(self, node_id: str) -> dict[str, Any]:
        node = self._item.prompt[node_id]
        given = node["inputs"]
        return {
            item.name: self._resolve(given[item.name], item.kind)
            for item in self._workshop.catalog.define_in_full(node).inputs
            if item.name in given
        }

    def _resolve(self, value: Any, kind: object) -> Any:
        """Return an input's value; what an unknown node made takes the form that is asked for."""
        if not is_link(value):
            return value
        made = self._cached(value[0]).values[value[1]]
        return made.convert(kind) if isinstance(made, StandIn) else made

    def _linked_nodes(self, node_id: str) -> list[str]:
        node = self._item.prompt[node_id]
        return linked_nodes(node, self._workshop.catalog.define_in_full(node))

    def _is_cached(self, node_id: str) -> bool:
        signature = self._signatures.get(node_id)
        return signature is not None and self._workshop.cache.get(signature) is not None

    def _cached(self, node_id: str) -> NodeResult:
        result = self._workshop.cache.get(self._signatures[node_id])
        if result is None:
            raise RuntimeError(f"node {node_id} has not run")
        return result

    def _position(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "node_type": self._item.prompt[node_id]["class_type"],
            "executed": list(self._executed),
        }

    def _describe_error(self, node_id: str, error: Exception) -> dict[str, Any]:
        advice = _OUT_OF_MEMORY_ADVICE if isinstance(error, OutOfMemoryError) else ""
        return self._position(node_id) | {
            "exception_message": f"{error}\n{advice}",
            "exception_type": _type_name(error),
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {
                name: [_printable(value)] for name, value in self._inputs(node_id).items()
            },
            "current_outputs": [key for key in self._item.prompt if key in self._signatures],
        }


def _describe_output(node_id: str) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "display_node": node_id,
        "parent_node": None,
        "real_node_id": node_id,
    }


def _type_name(error: Exception) -> str:
    kind = type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _printable(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)[:_LONGEST_PRINTED_VALUE]
