"""Runs a simulated ComfyUI server: in a thread while a block lasts, or alone until a signal."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from local.comfyui.faults import Fault, FaultBoard, make_fault
from local.comfyui.profiles import PROFILE_0_12, PROFILES
from local.comfyui.prompt_durations import FixedDuration, PromptDurations
from local.comfyui.run_log import Run
from local.comfyui.simulated_server import ComfyUiSimulator
from local.comfyui.simulator_settings import SimulatorSettings
from ml_service.domain.errors import MlServiceError

# What a supervisor sees of a process that was killed.
_LOST_STATUS = 137

_Result = TypeVar("_Result")


class SimulatorError(MlServiceError):
    """When a simulated server cannot start."""


class RunningSimulator:
    """A handle on a server that runs in a thread of its own. Every call is thread-safe."""

    def __init__(self, simulator: ComfyUiSimulator, loop: asyncio.AbstractEventLoop) -> None:
        self._simulator = simulator
        self._loop = loop

    @property
    def address(self) -> str:
        """The host that it listens on."""
        return self._simulator.address[0]

    @property
    def port(self) -> int:
        """The port that it listens on; it stays the same over restarts."""
        return self._simulator.address[1]

    @property
    def url(self) -> str:
        """The base address for HTTP."""
        return f"http://{self.address}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return self._simulator.is_running

    def add_fault(self, kind: str, **options: Any) -> str:
        """Switch a fault on and return its id. Raises FaultError for options without meaning."""
        fault = make_fault({"kind": kind} | options)
        return str(self._simulator.faults.add(fault)["id"])

    def remove_fault(self, fault_id: str) -> None:
        """Switch one fault off."""
        self._simulator.faults.remove(fault_id)

    def clear_faults(self) -> None:
        """Switch every fault off."""
        self._simulator.faults.clear()

    @property
    def faults(self) -> list[dict[str, Any]]:
        """All faults that were switched on, each with the number of its `strikes`."""
        return self._simulator.faults.list()

    @property
    def runs(self) -> list[Run]:
        """Every execution of a prompt, oldest first, over all restarts."""
        return self._simulator.runs.read()

    @property
    def start_number(self) -> int:
        """How often the server was started."""
        return self._simulator.runs.start_number

    def leave(self) -> None:
        """Be gone as a killed process is; return when connections are refused."""
        self._await(self._simulator.leave())

    def come_back(self) -> None:
        """Start again under the same address, knowing no prompt; return when it listens."""
        self._await(self._simulator.come_back())

    def restart(self) -> None:
        """Lose queue, history, cache and counter, and keep the files."""
        self.leave()
        self.come_back()

    def _await(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


@contextlib.contextmanager
def running_simulator(
    directory: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    prompt_seconds: float = 0.0,
    *,
    profile: str = PROFILE_0_12.name,
    faults: Iterable[Fault] = (),
    **more: Any,
) -> Iterator[RunningSimulator]:
    """Run a simulator in a thread of its own while the block runs.

    `more` are further members of SimulatorSettings.
    """
    settings: dict[str, Any] = {
        "profile": PROFILES[profile],
        "durations": PromptDurations(FixedDuration(prompt_seconds)),
        "faults": FaultBoard.of(faults),
    }
    simulator = ComfyUiSimulator(directory, SimulatorSettings(**settings | more))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="comfyui-loop", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(simulator.start(host, port), loop).result()
        try:
            yield RunningSimulator(simulator, loop)
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def serve(host: str, port: int, directory: Path, settings: SimulatorSettings) -> int:
    """Run one server until SIGINT or SIGTERM; return the exit status, that of a lost server too.

    Raises SimulatorError where the address cannot be used.
    """
    try:
        return asyncio.run(_serve(host, port, ComfyUiSimulator(directory, settings)))
    except OSError as error:
        raise SimulatorError(f"cannot listen on {host}:{port}: {error.strerror}") from error


async def _serve(host: str, port: int, simulator: ComfyUiSimulator) -> int:
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled.set)
    await simulator.start(host, port)
    sys.stdout.write(f"simulated ComfyUI: http://{host}:{simulator.address[1]}\n")
    sys.stdout.flush()
    endings = [
        loop.create_task(signalled.wait()),
        loop.create_task(simulator.wait_until_gone()),
    ]
    try:
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for ending in endings:
            ending.cancel()
        await simulator.stop()
    return 0 if signalled.is_set() else _LOST_STATUS
