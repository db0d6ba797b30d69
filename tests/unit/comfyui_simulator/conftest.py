import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.comfyui.prompt_durations import PromptDurations
from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SimulatorClient]:
    """A client of a server whose prompts take no longer than they must."""
    with running_simulator(tmp_path) as server:
        yield SimulatorClient(server.url)


@dataclass
class FirstTakes:
    """Seconds for the first prompt, and none for those after it."""

    seconds: float

    def draw(self, dice: random.Random) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds


@pytest.fixture
def blocked_client(tmp_path: Path) -> Iterator[SimulatorClient]:
    """A client of a server whose first prompt keeps it busy for 0.6 seconds."""
    with running_simulator(tmp_path, durations=PromptDurations(FirstTakes(0.6))) as server:
        yield SimulatorClient(server.url)


@pytest.fixture
def slow_client(tmp_path: Path) -> Iterator[SimulatorClient]:
    """A client of a server whose prompts take 0.6 seconds."""
    with running_simulator(tmp_path, prompt_seconds=0.6) as server:
        yield SimulatorClient(server.url)
