"""One instance's ComfyUI over HTTP, with its websocket as a hint."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import requests
import websocket
from requests_toolbelt import MultipartEncoder

from ml_service.domain.errors import (
    InputTooLargeError,
    InstanceUnreachableError,
    OutputMissingError,
    PromptRefusedError,
)
from ml_service.domain.prompts import Prompt, PromptState
from ml_service.domain.results import OutputFile
from ml_service.ports import MediaStream

PORT = 8188
CONNECT_SECONDS = 3.05
READ_SECONDS = 30.0
"""A server that loads a model may be silent for long, and is not dead."""
PROBE_SECONDS = 2.5
"""For the queue length alone: no answer in this time is unknown."""
_SUBMIT_TRIES = 3
_CANCEL_TRIES = 5
_CANCEL_PAUSE_SECONDS = 0.5


class HttpComfyUIConnector:
    """Gives the ComfyUI of an instance by its private address."""

    def __init__(self, *, port: int = PORT, read_seconds: float = READ_SECONDS) -> None:
        self._port = port
        self._read_seconds = read_seconds

    def connect(self, address: str) -> "HttpComfyUI":
        """The ComfyUI on an address, with connections of its own.

        None are kept from one invocation to the next: Lambda freezes in between, the server hangs
        up, and a POST on such a connection fails without anyone knowing whether it arrived.
        """
        return HttpComfyUI(f"{address}:{self._port}", read_seconds=self._read_seconds)


class HttpComfyUI:
    """A client that names every prompt itself and never makes a call without a prompt's id."""

    def __init__(self, host: str, *, read_seconds: float = READ_SECONDS) -> None:
        self._url = f"http://{host}"
        self._websocket_url = f"ws://{host}/ws"
        self._timeout = (CONNECT_SECONDS, read_seconds)
        self._session = requests.Session()
        # Private addresses: a proxy from the environment could never reach them.
        self._session.trust_env = False

    def count_prompts(self) -> int:
        """Prompts pending and running, in one cheap request."""
        answer = self._json("GET", "/prompt", timeout=PROBE_SECONDS)
        try:
            return int(answer["exec_info"]["queue_remaining"])
        except (KeyError, TypeError, ValueError):
            raise InstanceUnreachableError("GET /prompt: not an answer of ComfyUI") from None

    def upload(self, name: str, content: MediaStream) -> str:
        """Stream a file up; the server may give it another name if this one is taken."""
        encoder = MultipartEncoder(
            {
                "overwrite": "true",
                "type": "input",
                "image": (name, _Remaining(content), "application/octet-stream"),
            }
        )
        response = self._request(
            "POST", "/upload/image", data=encoder, headers={"Content-Type": encoder.content_type}
        )
        if response.status_code == 413:
            raise InputTooLargeError(f"The input {name} is larger than the instance accepts.")
        _require_ok(response, "POST /upload/image")
        answer = response.json()
        subfolder = answer.get("subfolder") or ""
        return f"{subfolder}/{answer['name']}" if subfolder else str(answer["name"])

    def submit(self, prompt_id: str, graph: Mapping[str, object]) -> None:
        """Queue a prompt once, though POST /prompt itself would queue it again and again.

        After a doubtful answer the prompt is looked for before it is posted again.
        """
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": prompt_id}
        for tries_left in reversed(range(_SUBMIT_TRIES)):
            try:
                response = self._request("POST", "/prompt", json=body)
            except InstanceUnreachableError:
                if self.find(prompt_id).state is not PromptState.UNKNOWN:
                    break
                if not tries_left:
                    raise
                continue
            if response.status_code < 500:
                self._check_accepted(response, prompt_id)
                break
            # A 500 may come after the prompt was queued.
            if self.find(prompt_id).state is not PromptState.UNKNOWN:
                break
            if not tries_left:
                raise InstanceUnreachableError(f"POST /prompt: status {response.status_code}")
        if tries_left != _SUBMIT_TRIES - 1:
            self._drop_second_copy(prompt_id)

    def find(self, prompt_id: str) -> Prompt:
        """Where a prompt stands; queue before history, so that it cannot slip between."""
        queue = self._json("GET", "/queue")
        running = [item[1] for item in queue["queue_running"]]
        # The list is in heap order; prompts run in the order of number, then id.
        pending = [item[1] for item in sorted(queue["queue_pending"], key=lambda i: (i[0], i[1]))]
        if prompt_id in running:
            return Prompt(PromptState.RUNNING)
        if prompt_id in pending:
            position = pending.index(prompt_id) + len(running)
            return Prompt(PromptState.PENDING, position=position)
        entry = self._json("GET", f"/history/{prompt_id}").get(prompt_id)
        return _read_history(entry) if entry is not None else Prompt(PromptState.UNKNOWN)

    @contextmanager
    def watch(self, prompt_id: str) -> Iterator[Callable[[float], None]]:
        """Wait for news over the websocket, or just wait where there is none."""
        watcher = _Watcher(self._websocket_url, prompt_id)
        try:
            yield watcher.wait
        finally:
            watcher.close()

    @contextmanager
    def open_output(self, file: OutputFile) -> Iterator[BinaryIO]:
        """Stream a saved file."""
        response = self._request(
            "GET",
            "/view",
            params={"filename": file.filename, "subfolder": file.subfolder, "type": "output"},
            stream=True,
        )
        with response:
            if response.status_code in (400, 403, 404):
                raise OutputMissingError(f"The output {file.filename} is gone.")
            _require_ok(response, "GET /view")
            yield cast(BinaryIO, response.raw)

    def cancel(self, prompt_id: str) -> None:
        """Delete it from the queue, interrupt it by its id, and look again until it is gone.

        An interrupt in the moment before a prompt starts is lost, hence the repetition; a node
        that hangs cannot be interrupted, hence its end.
        """
        for _ in range(_CANCEL_TRIES):
            self._request("POST", "/queue", json={"delete": [prompt_id]})
            self._request("POST", "/interrupt", json={"prompt_id": prompt_id})
            if self.find(prompt_id).state not in (PromptState.PENDING, PromptState.RUNNING):
                return
            time.sleep(_CANCEL_PAUSE_SECONDS)

    def _check_accepted(self, response: requests.Response, prompt_id: str) -> None:
        """Raise PromptRefusedError for a refusal, and for a prompt that was accepted in part."""
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = {}
        if response.status_code == 200:
            if not answer.get("node_errors"):
                return
            self.cancel(prompt_id)  # its valid part is queued
        raise PromptRefusedError(_explain_refusal(answer, response.status_code))

    def _drop_second_copy(self, prompt_id: str) -> None:
        """Delete one of two: the server deletes the first of a given id that it finds."""
        queue = self._json("GET", "/queue")
        items = [*queue["queue_running"], *queue["queue_pending"]]
        if sum(item[1] == prompt_id for item in items) > 1:
            self._request("POST", "/queue", json={"delete": [prompt_id]})

    def _json(self, method: str, path: str, *, timeout: float | None = None) -> Any:
        what = f"{method} /{path.split('/')[1]}"
        response = self._request(
            method, path, timeout=(timeout, timeout) if timeout else self._timeout
        )
        _require_ok(response, what)
        try:
            return response.json()
        except requests.JSONDecodeError:
            raise InstanceUnreachableError(f"{what}: no JSON") from None

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", self._timeout)
        try:
            return self._session.request(method, self._url + path, **options)
        except requests.RequestException as error:
            # The type alone: the text holds addresses, and may hold what was sent.
            raise InstanceUnreachableError(
                f"{method} /{path.split('/')[1]}: {type(error).__name__}"
            ) from None


class _Remaining:
    """A stream in the form that the multipart encoder reads: ``len`` is what is left."""

    def __init__(self, media: MediaStream) -> None:
        self._content = media.content
        self.len = media.size

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._content.read(size)
        self.len -= len(data)
        return data


class _Watcher:
    """A websocket that may fail at any time: then waiting is only waiting."""

    def __init__(self, url: str, prompt_id: str) -> None:
        self._prompt_id = prompt_id
        self._socket: websocket.WebSocket | None = websocket.WebSocket()
        try:
            # The prompt's client id, so that its own messages come here.
            self._socket.connect(
                f"{url}?clientId={prompt_id}", timeout=CONNECT_SECONDS, suppress_origin=True
            )
        except (OSError, websocket.WebSocketException):
            self._drop()

    def wait(self, seconds: float) -> None:
        """Return at news of the prompt or of the queue, at the latest after so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._socket is None:
                time.sleep(left)
                return
            try:
                self._socket.settimeout(left)
                if self._is_news(self._socket.recv()):
                    return
            except websocket.WebSocketTimeoutException:
                return
            except (OSError, websocket.WebSocketException):
                self._drop()

    def close(self) -> None:
        """Close the connection, if there still is one."""
        if self._socket is not None:
            self._drop()

    def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.shutdown()

    def _is_news(self, message: str | bytes) -> bool:
        if not isinstance(message, str) or not message:
            return False
        try:
            event = json.loads(message)
            kind, data = event["type"], event["data"]
            if kind == "status":
                return True
            # A success message comes before the history is written; node null comes after.
            ended = kind in ("execution_error", "execution_interrupted", "execution_start") or (
                kind == "executing" and data["node"] is None
            )
            return ended and data["prompt_id"] == self._prompt_id
        except (ValueError, TypeError, KeyError):
            return False


def _explain_refusal(answer: Mapping[str, Any], status: int) -> str:
    """Nodes, classes and error types: the details may quote the prompt."""
    error = answer.get("error") or {}
    faults = [
        f"node {node} ({errors.get('class_type', '?')}): {fault.get('type', '?')}"
        for node, errors in (answer.get("node_errors") or {}).items()
        for fault in errors.get("errors", [])
    ]
    reasons = [str(error["type"])] if "type" in error else [] if faults else [f"status {status}"]
    return f"ComfyUI refused the prompt: {'; '.join([*reasons, *faults])}."


def _read_history(entry: Mapping[str, Any]) -> Prompt:
    status = entry["status"]
    if status["status_str"] == "success":
        return Prompt(PromptState.SUCCEEDED, outputs=entry["outputs"])
    for kind, data in status["messages"]:
        if kind == "execution_error":
            # Without the exception's message, which may quote the prompt.
            return Prompt(
                PromptState.FAILED,
                failure=f"Node {data['node_id']} ({data['node_type']}) failed with "
                f"{data['exception_type']}.",
            )
        if kind == "execution_interrupted":
            return Prompt(PromptState.FAILED, failure="The prompt was interrupted.")
    return Prompt(PromptState.FAILED, failure="The prompt failed without a reason.")


def _require_ok(response: requests.Response, what: str) -> None:
    if response.status_code != 200:
        raise InstanceUnreachableError(f"{what}: status {response.status_code}")
