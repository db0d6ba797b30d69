"""The ComfyUI port over HTTP."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import requests
from requests_toolbelt import MultipartEncoder

from ml_service.adapters.comfyui.call_instance import (
    InstanceCalls,
    Timeouts,
    read_json,
    require_ok,
)
from ml_service.adapters.comfyui.read_answers import (
    expecting_comfyui,
    explain_refusal,
    read_history,
    read_queue,
)
from ml_service.adapters.comfyui.stream_files import DownloadStream, UploadStream
from ml_service.adapters.comfyui.watch_prompt import WebsocketPromptWatch
from ml_service.domain.errors import (
    InputTooLargeError,
    InstanceFaultyError,
    InstanceSilentError,
    InstanceUnreachableError,
    OutputMissingError,
    PromptRefusedError,
)
from ml_service.domain.prompts import Prompt, PromptState
from ml_service.domain.results import OutputFile
from ml_service.ports import MediaStream

PORT = 8188
_POSTS = 3
_CANCEL_PAUSE_SECONDS = 0.25
_CANCEL_PARTIAL_SECONDS = 10.0
_PROMPT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class HttpComfyUIConnector:
    """Gives the ComfyUI of an instance by its private address."""

    def __init__(self, *, port: int = PORT, timeouts: Timeouts | None = None) -> None:
        self._port = port
        self._timeouts = timeouts or Timeouts()

    def connect(self, address: str) -> "HttpComfyUI":
        """The ComfyUI on an address, with connections of its own.

        None are kept from one invocation to the next: Lambda freezes in between, the server hangs
        up, and a POST on such a connection fails without anyone knowing whether it arrived.
        """
        return HttpComfyUI(f"{address}:{self._port}", self._timeouts)


class HttpComfyUI:
    """A client that names every prompt itself and never makes a call without a prompt's id."""

    def __init__(self, host: str, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._calls = InstanceCalls(host, self._timeouts)
        self._websocket_url = f"ws://{host}/ws"
        self._has_cancel_route = True

    def count_prompts(self) -> int:
        """Prompts pending and running, in one cheap request."""
        probe = self._timeouts.probe
        response = self._calls.send("GET", "/prompt", seconds=probe, connect_seconds=probe)
        answer = read_json(response, "GET /prompt")
        with expecting_comfyui("GET /prompt"):
            return int(answer["exec_info"]["queue_remaining"])

    def upload(self, name: str, content: MediaStream) -> str:
        """Stream a file up; the server may give it another name if this one is taken."""
        encoder = MultipartEncoder(
            {
                "overwrite": "true",
                "type": "input",
                "image": (name, UploadStream(content), "application/octet-stream"),
            }
        )
        response = self._calls.send(
            "POST",
            "/upload/image",
            seconds=self._timeouts.transfer,
            data=encoder,
            headers={"Content-Type": encoder.content_type},
        )
        if response.status_code == 413:
            raise InputTooLargeError("An input is larger than the instance accepts.")
        answer = read_json(response, "POST /upload")
        with expecting_comfyui("POST /upload"):
            subfolder = answer.get("subfolder") or ""
            return f"{subfolder}/{answer['name']}" if subfolder else str(answer["name"])

    def submit(self, prompt_id: str, graph: Mapping[str, object]) -> None:
        """Queue a prompt once, though POST /prompt itself would queue it again and again.

        It is looked for before every POST, and after a doubtful answer (none, or a status 500,
        which can come after the prompt was queued) until it is missing twice.
        """
        _require_prompt_id(prompt_id)
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": prompt_id}
        if self.find(prompt_id).state is not PromptState.UNKNOWN:
            return
        for is_repeat in (False, *[True] * (_POSTS - 1)):
            try:
                response = self._calls.send(
                    "POST", "/prompt", seconds=self._timeouts.submit, json=body
                )
            except InstanceUnreachableError as error:
                doubt = error
            else:
                if response.status_code < 500:
                    self._check_accepted(response, prompt_id)
                    if is_repeat:
                        self.drop_copies(prompt_id)
                    return
                doubt = InstanceUnreachableError(f"POST /prompt: status {response.status_code}")
            if self._is_there(prompt_id):
                if is_repeat:
                    self.drop_copies(prompt_id)
                return
        raise doubt

    def find(self, prompt_id: str) -> Prompt:
        """Where a prompt stands; queue before history, so that it cannot slip between."""
        _require_prompt_id(prompt_id)
        queue = self._get_json("/queue")
        with expecting_comfyui("GET /queue"):
            prompt = read_queue(queue, prompt_id)
        if prompt is not None:
            return prompt
        history = self._get_json(f"/history/{prompt_id}")
        with expecting_comfyui("GET /history"):
            return read_history(history, prompt_id) or Prompt(PromptState.UNKNOWN)

    def drop_copies(self, prompt_id: str) -> None:
        """Delete all but one: for each time it is told an id, ComfyUI deletes one that waits."""
        prompt = self.find(prompt_id)
        if prompt.is_queued and prompt.copies > 1:
            self._delete([prompt_id] * (prompt.copies - 1))

    @contextmanager
    def watch(self, prompt_id: str) -> Iterator[WebsocketPromptWatch]:
        """Wait for news over the websocket, or just wait where there is none."""
        _require_prompt_id(prompt_id)
        watch = WebsocketPromptWatch(
            self._websocket_url, prompt_id, connect_seconds=self._timeouts.connect
        )
        try:
            yield watch
        finally:
            watch.close()

    @contextmanager
    def open_output(self, file: OutputFile) -> Iterator[BinaryIO]:
        """Stream a saved file."""
        response = self._calls.get(
            "/view",
            seconds=self._timeouts.transfer,
            params={"filename": file.filename, "subfolder": file.subfolder, "type": "output"},
            # The file as it is: what is read from the stream is not decompressed.
            headers={"Accept-Encoding": "identity"},
            stream=True,
        )
        with response:
            if response.status_code in (400, 403, 404):
                raise OutputMissingError("An output is gone.")
            require_ok(response, "GET /view")
            yield DownloadStream(response, "GET /view").as_file()

    def cancel(self, prompt_id: str, *, seconds: float) -> bool:
        """Delete it from the queue, interrupt it by its id, and look again until it is gone.

        An interrupt in the moment before a prompt starts is lost, hence the repetition.
        """
        _require_prompt_id(prompt_id)
        end = time.monotonic() + seconds
        while True:
            try:
                if not self._cancel_once(prompt_id).is_queued:
                    return True
            except InstanceUnreachableError:
                if time.monotonic() >= end:
                    raise
            if time.monotonic() >= end:
                return False
            time.sleep(_CANCEL_PAUSE_SECONDS)

    def withdraw(self, prompt_id: str) -> bool:
        """Delete it from the queue, which leaves a running one alone, and look what came of it."""
        _require_prompt_id(prompt_id)
        self._delete([prompt_id])
        return self.find(prompt_id).state is PromptState.UNKNOWN

    def forget(self, prompt_id: str) -> None:
        """Delete an ended prompt from the history."""
        _require_prompt_id(prompt_id)
        self._command("/history", {"delete": [prompt_id]})

    def _is_there(self, prompt_id: str) -> bool:
        """Look twice: the POST whose answer did not come may still be worked on."""
        with suppress(InstanceSilentError):
            if self.find(prompt_id).state is not PromptState.UNKNOWN:
                return True
        time.sleep(self._timeouts.doubt)
        return self.find(prompt_id).state is not PromptState.UNKNOWN

    def _check_accepted(self, response: requests.Response, prompt_id: str) -> None:
        """Raise PromptRefusedError for a refusal, and for a prompt that was accepted in part."""
        status = response.status_code
        if status == 413:
            raise PromptRefusedError(explain_refusal({}, status))
        if status not in (200, 400):
            raise InstanceFaultyError(f"POST /prompt: status {status}")
        with expecting_comfyui("POST /prompt"):
            answer = response.json()
            refusal = explain_refusal(answer, status)
            if status == 400:
                raise PromptRefusedError(refusal)
            own_id, node_errors = str(answer["prompt_id"]), answer["node_errors"]
        if own_id != prompt_id:
            self._delete([own_id])
            raise InstanceFaultyError("POST /prompt: it gives prompts ids of its own")
        if node_errors:
            # Its valid part is queued.
            self.cancel(prompt_id, seconds=_CANCEL_PARTIAL_SECONDS)
            raise PromptRefusedError(refusal)

    def _cancel_once(self, prompt_id: str) -> Prompt:
        """Cancel in the best way that the server knows; returns how the prompt stands then."""
        if self._has_cancel_route:
            route = f"/api/jobs/{prompt_id}/cancel"
            response = self._calls.send("POST", route, seconds=self._timeouts.command)
            # Versions without it answer 404, or 405 where they serve files on every path.
            self._has_cancel_route = response.status_code not in (404, 405)
            if response.status_code == 200:
                return self.find(prompt_id)
        self._delete([prompt_id])
        prompt = self.find(prompt_id)
        if prompt.state is PromptState.RUNNING:
            self._command("/interrupt", {"prompt_id": prompt_id})
            prompt = self.find(prompt_id)
        return prompt

    def _delete(self, prompt_ids: list[str]) -> None:
        self._command("/queue", {"delete": prompt_ids})

    def _command(self, path: str, body: Mapping[str, Any]) -> None:
        response = self._calls.send("POST", path, seconds=self._timeouts.command, json=body)
        require_ok(response, f"POST {path}")

    def _get_json(self, path: str) -> Any:
        response = self._calls.get(path, seconds=self._timeouts.command)
        return read_json(response, f"GET /{path.split('/')[1]}")


def _require_prompt_id(prompt_id: str) -> None:
    """Raise ValueError for anything but a canonical UUID.

    An empty id would make a cancel of one prompt a cancel of whatever runs, for every stage.
    """
    if not _PROMPT_ID.fullmatch(prompt_id):
        raise ValueError("a prompt id is a UUID in canonical lowercase form")
