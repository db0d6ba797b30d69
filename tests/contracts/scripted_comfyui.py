"""A ComfyUI of few words for what no simulator does: a test decides every answer."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.contracts.comfyui_targets import ComfyUITarget


@dataclass
class ScriptedComfyUI:
    """A queue in which nothing moves by itself, and a note of every call that is not for one id."""

    has_cancel_route: bool = False
    pending: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    global_calls: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and body of an answer: bytes go out as they are, all else as JSON."""
        first, *rest = path.split("?", maxsplit=1)[0].strip("/").split("/")
        route = getattr(self, f"{method.lower()}_{first}", None)
        if route is None:
            return (404, b"") if method == "GET" else (405, b"405: Method Not Allowed")
        return route(rest, body)

    def get_prompt(self, rest: list[str], body: Any) -> tuple[int, Any]:
        return 200, {"exec_info": {"queue_remaining": len(self.pending + self.running)}}

    def post_prompt(self, rest: list[str], body: Any) -> tuple[int, Any]:
        self.pending.append(body["prompt_id"])
        return 200, {"prompt_id": body["prompt_id"], "number": 0, "node_errors": {}}

    def get_queue(self, rest: list[str], body: Any) -> tuple[int, Any]:
        return 200, {
            "queue_running": [[0, key, {}, {}, []] for key in self.running],
            "queue_pending": [[1, key, {}, {}, []] for key in self.pending],
        }

    def post_queue(self, rest: list[str], body: Any) -> tuple[int, Any]:
        for key in body["delete"]:
            if key in self.pending:
                self.pending.remove(key)
        return 200, b""

    def get_history(self, rest: list[str], body: Any) -> tuple[int, Any]:
        return 200, {key: self.history[key] for key in rest if key in self.history}

    def post_history(self, rest: list[str], body: Any) -> tuple[int, Any]:
        for key in body["delete"]:
            self.history.pop(key, None)
        return 200, b""

    def post_interrupt(self, rest: list[str], body: Any) -> tuple[int, Any]:
        if body["prompt_id"] in self.running:
            self.interrupt(body["prompt_id"])
        return 200, b""

    def post_api(self, rest: list[str], body: Any) -> tuple[int, Any]:
        if not self.has_cancel_route:
            return 404, b""
        key = rest[1]
        is_known = key in self.pending + self.running
        if key in self.running:
            self.interrupt(key)
        self.pending = [other for other in self.pending if other != key]
        return 200, {"cancelled": is_known}

    def post_upload(self, rest: list[str], body: Any) -> tuple[int, Any]:
        return 200, {"name": "a.png", "subfolder": "", "type": "input"}

    def get_view(self, rest: list[str], body: Any) -> tuple[int, Any]:
        return 200, b"picture"

    def interrupt(self, prompt_id: str) -> None:
        self.running.remove(prompt_id)
        self.end(prompt_id, "error", [["execution_interrupted", {"prompt_id": prompt_id}]])

    def end(self, prompt_id: str, status: str = "success", messages: Any = ()) -> None:
        state = {"status_str": status, "completed": status == "success", "messages": messages}
        self.history[prompt_id] = {"outputs": {}, "status": state}

    def note_call(self, method: str, path: str, body: Any) -> None:
        self.calls.append(f"{method} {path.split('?', maxsplit=1)[0]}")
        if self._is_global(method, path, body):
            self.global_calls.append(f"{method} {path} {body}")

    def _is_global(self, method: str, path: str, body: Any) -> bool:
        """Whether ComfyUI, of any version, would do more than something to named prompts."""
        if method == "GET" or path in ("/prompt", "/upload/image"):
            return False
        if path == "/interrupt":
            return not (isinstance(body, dict) and body.get("prompt_id"))
        if path in ("/queue", "/history"):
            return set(body or {}) != {"delete"} or not all(body["delete"])
        return not (path.startswith("/api/jobs/") and path.endswith("/cancel"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """A client that hangs up is what the tests are about."""


@contextmanager
def serving(comfyui: ScriptedComfyUI) -> Iterator[ComfyUITarget]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for headers and body, or each answer waits for an ACK

        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_json = self.headers.get("Content-Type") == "application/json"
            body = json.loads(content) if is_json and content else None
            comfyui.note_call(self.command, self.path, body)
            status, answer = comfyui.answer(self.command, self.path, body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield ComfyUITarget("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
