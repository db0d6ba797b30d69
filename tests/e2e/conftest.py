"""Local mode as a user starts it, once for all tests of a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.backend import Backend
from local.start_local_mode import running_local_mode


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    directory: Path = tmp_path_factory.mktemp("local-mode")
    with running_local_mode(directory, "--prompt-seconds", "0") as backend:
        yield backend
