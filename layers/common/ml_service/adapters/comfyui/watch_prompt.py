"""Waiting for news of a prompt over ComfyUI's websocket, which may fall silent at any time."""

import json
import time
import uuid
from typing import Any

import websocket

from ml_service.adapters.comfyui.read_answers import read_progress
from ml_service.domain.prompts import Progress

_RECONNECT_PAUSE_SECONDS = 0.5
"""So that a server that hangs up on every connection is not flooded."""
_CLOSE_SECONDS = 1.0


class WebsocketPromptWatch:
    """A watch whose waits are only waits while there is no connection.

    The first connection has the prompt's client id, so that its own events come. ComfyUI forgets
    the newer of two connections of one client when the older one closes, so each later connection
    has a fresh id: it gets the ``status`` events alone, one at each change of the queue.
    """

    def __init__(self, url: str, prompt_id: str, *, connect_seconds: float) -> None:
        self.progress: Progress | None = None
        self._url = url
        self._prompt_id = prompt_id
        self._connect_seconds = connect_seconds
        self._socket = self._connect(prompt_id, connect_seconds)

    def wait(self, seconds: float) -> None:
        """Return at news of the prompt or of the queue, at the latest after so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._socket is None:
                self._socket = self._connect(str(uuid.uuid4()), min(left, self._connect_seconds))
            if self._socket is None:
                time.sleep(max(0.0, end - time.monotonic()))
                return
            try:
                self._socket.settimeout(left)
                if self._take(self._socket.recv()):
                    return
            except websocket.WebSocketTimeoutException:
                return
            except (OSError, websocket.WebSocketException):
                self._socket.shutdown()
                self._socket = None
                time.sleep(max(0.0, min(_RECONNECT_PAUSE_SECONDS, end - time.monotonic())))

    def close(self) -> None:
        """Say goodbye and wait for the answer: the next watch may use the same client id."""
        if self._socket is not None:
            self._socket.close(timeout=_CLOSE_SECONDS)
            self._socket = None

    def _connect(self, client_id: str, seconds: float) -> websocket.WebSocket | None:
        socket = websocket.WebSocket()
        try:
            # Neither an Origin header, which ComfyUI may refuse, nor a proxy of the environment.
            socket.connect(
                f"{self._url}?clientId={client_id}",
                timeout=seconds,
                suppress_origin=True,
                http_no_proxy=["*"],
            )
        except (OSError, websocket.WebSocketException):
            socket.shutdown()
            return None
        return socket

    def _take(self, message: str | bytes) -> bool:
        """Note what a message says; True if it is a reason to look at the prompt."""
        if not isinstance(message, str):  # a preview picture
            return False
        try:
            event = json.loads(message)
            return self._take_event(event["type"], event["data"])
        except (ValueError, TypeError, LookupError, AttributeError):
            return False  # a hint that cannot be read is none

    def _take_event(self, kind: str, data: Any) -> bool:
        if kind == "status":
            return True
        if data["prompt_id"] != self._prompt_id:
            return False
        if kind == "progress_state":
            self.progress = read_progress(data["nodes"])
            return False
        # execution_success comes before the history is written, node null after it.
        return kind in ("execution_start", "execution_error", "execution_interrupted") or (
            kind == "executing" and data["node"] is None
        )
