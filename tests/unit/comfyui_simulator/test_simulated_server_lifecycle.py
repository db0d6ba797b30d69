import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from local.comfyui.simulated_server import ComfyUiSimulator
from local.comfyui.simulator import running_simulator
from local.comfyui.simulator_settings import SimulatorSettings
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient, picture_graph

SERVE = """
import sys
from pathlib import Path
from local.comfyui.prompt_durations import FixedDuration, PromptDurations
from local.comfyui.simulator import serve
from local.comfyui.simulator_settings import SimulatorSettings
settings = SimulatorSettings(durations=PromptDurations(FixedDuration(30)))
serve("127.0.0.1", int(sys.argv[1]), Path(sys.argv[2]), settings)
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_server_started_alone_ends_at_a_signal_in_the_middle_of_a_prompt(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(port), str(tmp_path)]
    with subprocess.Popen(command, env=os.environ) as process:
        client = SimulatorClient(f"http://127.0.0.1:{port}")
        await_answer(client)
        client.await_running(client.submit(picture_graph()))
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 0
        assert time.monotonic() - started < 4


def await_answer(client: SimulatorClient) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.get("/prompt")
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not start")


def test_a_taken_port_is_an_error_and_the_server_can_start_elsewhere(tmp_path: Path) -> None:
    async def start_twice(port: int) -> int:
        simulator = ComfyUiSimulator(tmp_path / "second", SimulatorSettings())
        with pytest.raises(OSError, match="in use"):
            await simulator.start("127.0.0.1", port)
        await simulator.start("127.0.0.1", 0)
        _, other_port = simulator.address
        await simulator.stop()
        await simulator.stop()
        return other_port

    with running_simulator(tmp_path / "first") as server:
        assert asyncio.run(start_twice(server.port)) != server.port


def test_servers_on_different_addresses_share_a_port_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with (
        running_simulator(tmp_path / "a", host="127.0.1.4", port=port) as first,
        running_simulator(tmp_path / "b", host="127.0.1.5", port=port) as second,
    ):
        assert (first.address, first.port) == ("127.0.1.4", port)
        one, other = SimulatorClient(first.url), SimulatorClient(second.url)
        one.run(picture_graph(), prompt_id="mine")

        assert other.get("/history/mine").json() == {}
        assert list((tmp_path / "b" / "output").iterdir()) == []


def test_stopping_closes_open_websockets(tmp_path: Path) -> None:
    with ExitStack() as connections:
        with running_simulator(tmp_path) as server:
            client = SimulatorClient(server.url)
            for number in range(3):
                connections.enter_context(client.events(str(number))).read()
            started = time.monotonic()

        # The clients do not even answer the closing of their connection.
        assert time.monotonic() - started < 5
