"""Local mode as a user starts it, once for all tests of a module."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.backend import Backend
from local.start_local_mode import running_local_mode


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    directory: Path = tmp_path_factory.mktemp("local-mode")
    with running_local_mode(directory, "--prompt-seconds", "0") as backend:
        yield backend


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
