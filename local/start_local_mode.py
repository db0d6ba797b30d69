"""Starting local mode from another program, and ending it."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.backend import Backend
from ml_service.domain.errors import MlServiceError

_READY_SECONDS = 60
_STOP_SECONDS = 10


class LocalModeError(MlServiceError):
    """When local mode does not come up."""


@contextmanager
def running_local_mode(directory: Path, *options: str) -> Iterator[Backend]:
    """Local mode in a process of its own, as a user would start it; ended with the block.

    Its ready file and its log lie in the directory. Raises LocalModeError if it does not come up.
    """
    ready_file = directory / "ready.json"
    ready_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "local.cli", "local", "--port", "0", *options]
    with (directory / "local.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready_file)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            end = time.monotonic() + _READY_SECONDS
            while not ready_file.exists():
                if process.poll() is not None:
                    raise LocalModeError(f"local mode ended at once: see {log.name}")
                if time.monotonic() > end:
                    raise LocalModeError(f"local mode is not up after {_READY_SECONDS} s")
                time.sleep(0.1)
            yield Backend(json.loads(ready_file.read_text(encoding="utf-8")))
        finally:
            process.terminate()
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
