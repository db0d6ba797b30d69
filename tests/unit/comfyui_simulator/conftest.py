from collections.abc import Iterator
from pathlib import Path

import pytest

from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SimulatorClient]:
    """A client of a server whose prompts take no longer than they must."""
    with running_simulator(tmp_path) as server:
        yield SimulatorClient(server.url)


@pytest.fixture
def slow_client(tmp_path: Path) -> Iterator[SimulatorClient]:
    """A client of a server whose prompts take 0.6 seconds."""
    with running_simulator(tmp_path, prompt_seconds=0.6) as server:
        yield SimulatorClient(server.url)
