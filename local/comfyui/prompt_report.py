"""What a running prompt tells: messages for its history, and events for the websockets."""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from PIL import Image

from local.comfyui.prompt_queue import QueuedPrompt


class EventSender(Protocol):
    """Sends events to websockets, from any thread."""

    def send(self, event: str, data: Mapping[str, Any], client_id: str | None = None) -> None:
        """Send to one client, or to all without a client id."""

    def send_preview(
        self, image: Image.Image, metadata: Mapping[str, Any], client_id: str | None = None
    ) -> None:
        """Send a picture of work in progress, to one client or to all."""

    def send_node_text(self, node_id: str, text: str, client_id: str | None = None) -> None:
        """Send what a node says of its work, to one client or to all."""


class PromptReport:
    """The messages and events of one prompt.

    A prompt without a client id tells nobody of its nodes, and everybody of its progress: so does
    ComfyUI.
    """

    def __init__(self, item: QueuedPrompt, events: EventSender) -> None:
        self.messages: list[list[Any]] = []
        self._prompt_id = item.prompt_id
        self._client_id = item.client_id
        self._events = events
        self._progress: dict[str, dict[str, Any]] = {}

    def add(self, event: str, data: Mapping[str, Any], *, is_for_all: bool = False) -> None:
        """Add a message to the prompt's history and send it."""
        message = {**data, "prompt_id": self._prompt_id, "timestamp": int(time.time() * 1000)}
        self.messages.append([event, message])
        if self._client_id is not None or is_for_all:
            self._events.send(event, message, self._client_id)

    @property
    def end(self) -> str:
        """How the prompt ended: success, error or interrupted."""
        return str(self.messages[-1][0]).removeprefix("execution_")

    def begin_node(self, node_id: str) -> None:
        """Tell that a node begins."""
        self._set_progress(node_id, "running", 0.0, 1.0)
        if self._client_id is not None:
            self._send("executing", {"node": node_id, "display_node": node_id})

    def step_node(
        self, node_id: str, value: float, highest: float, preview: Image.Image | None = None
    ) -> None:
        """Tell how far a node is, and show a picture of it."""
        self._set_progress(node_id, "running", value, highest)
        if preview is not None:
            metadata = _name_node(node_id) | {"prompt_id": self._prompt_id}
            self._events.send_preview(preview, metadata, self._client_id)
        self._send("progress", {"value": value, "max": highest, "node": node_id})

    def tell_text(self, node_id: str, text: str) -> None:
        """Tell what a node says of its work."""
        self._events.send_node_text(node_id, text, self._client_id)

    def show_output(self, node_id: str, shown: Mapping[str, list[Any]] | None) -> None:
        """Tell what an output node shows; a cached one may show nothing."""
        if self._client_id is not None:
            self._send("executed", {"node": node_id, "display_node": node_id, "output": shown})

    def end_node(self, node_id: str) -> None:
        """Tell that a node is done, or was from the start."""
        highest = self._progress.get(node_id, {"max": 1})["max"]
        self._set_progress(node_id, "finished", highest, highest)

    def _set_progress(self, node_id: str, state: str, value: float, highest: float) -> None:
        self._progress[node_id] = {
            "value": value,
            "max": highest,
            "state": state,
            "prompt_id": self._prompt_id,
            **_name_node(node_id),
        }
        self._send("progress_state", {"nodes": dict(self._progress)})

    def _send(self, event: str, data: Mapping[str, Any]) -> None:
        self._events.send(event, {**data, "prompt_id": self._prompt_id}, self._client_id)


def _name_node(node_id: str) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "display_node_id": node_id,
        "parent_node_id": None,
        "real_node_id": node_id,
    }
