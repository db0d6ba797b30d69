"""Large files pass through the client piece by piece, and a file that breaks off is an error."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ml_service.adapters.comfyui import HttpComfyUI
from ml_service.domain.errors import InstanceSilentError, InstanceUnreachableError
from ml_service.domain.results import OutputFile
from tests.contracts import measure_transfer
from tests.contracts.comfyui_targets import HASTY, read_output

MIB = 2**20
PIECE_BYTES = 2**16
PIECE = bytes(PIECE_BYTES)


@dataclass
class Received:
    """Bytes in the bodies of requests, by the last part of their path."""

    sizes: dict[str, int] = field(default_factory=dict)
    parts: int = 0


class Handler(BaseHTTPRequestHandler):
    """ComfyUI's /view and /upload, and so much of S3 as an upload in parts needs."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    received: Received

    def do_GET(self) -> None:
        """Send a file of as many zeros as its name says; a name can also say what goes wrong."""
        (name,) = parse_qs(urlsplit(self.path).query)["filename"]
        size, _, fault = name.removesuffix(".mp4").partition("-")
        assert self.headers["Accept-Encoding"] == "identity"
        self.send_response(200)
        self.send_header("Content-Length", size)
        self.end_headers()
        for _ in range(int(size) // PIECE_BYTES // (2 if fault else 1)):
            self.wfile.write(PIECE)
        self.wfile.flush()
        if fault == "silent":
            threading.Event().wait(HASTY.transfer + 0.5)
        self.close_connection = bool(fault)

    def do_POST(self) -> None:
        self._drain()
        if "uploadId" in self.path:
            self._answer(b"<CompleteMultipartUploadResult/>")
        elif self.path.endswith("?uploads"):
            text = "<InitiateMultipartUploadResult><UploadId>1</UploadId>"
            self._answer(text.encode() + b"</InitiateMultipartUploadResult>")
        else:
            self._answer(b'{"name": "a.mp4", "subfolder": "", "type": "input"}')

    def do_PUT(self) -> None:
        self.received.parts += 1
        self._drain()
        self._answer(b"", ETag='"1"')

    def handle_expect_100(self) -> bool:
        """boto3 sends a body only when it is told to go on."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _drain(self) -> None:
        left = int(self.headers.get("Content-Length", 0))
        key = urlsplit(self.path).path.rsplit("/", 1)[1]
        self.received.sizes[key] = self.received.sizes.get(key, 0) + left
        while left:
            left -= len(self.rfile.read(min(left, MIB)))

    def _answer(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(received: Received) -> Iterator[int]:
    handler = type("ReceivingHandler", (Handler,), {"received": received})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("direction", ["upload", "download"])
def test_500_mb_take_less_than_32_mib_of_memory(direction: str):
    received = Received()
    with serving(received) as port:
        size = 500 * MIB
        command = [sys.executable, "-m", measure_transfer.__name__, direction, str(port), str(size)]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(received.sizes.values()) >= size
    assert int(done.stdout) < 32 * MIB


@pytest.mark.parametrize(
    ("fault", "error"), [("short", InstanceUnreachableError), ("silent", InstanceSilentError)]
)
def test_a_file_that_breaks_off_is_not_taken_for_a_whole_one(
    fault: str, error: type[InstanceUnreachableError]
):
    with serving(Received()) as port, pytest.raises(error):
        read_output(
            HttpComfyUI(f"127.0.0.1:{port}", HASTY),
            OutputFile(filename=f"{4 * MIB}-{fault}.mp4"),
        )
