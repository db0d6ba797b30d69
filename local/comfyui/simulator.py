"""Starts and stops simulated ComfyUI servers: in a running event loop, in a test, or alone."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from local.comfyui.media_folders import MediaFolders
from local.comfyui.node_cache import NodeCache
from local.comfyui.node_definitions import NODE_DEFINITIONS
from local.comfyui.nodes import NODE_IMPLEMENTATIONS
from local.comfyui.prompt_queue import PromptQueue
from local.comfyui.prompt_routes import queue_info
from local.comfyui.prompt_run import Workshop
from local.comfyui.prompt_worker import PromptWorker
from local.comfyui.server import build_application
from local.comfyui.server_state import ServerState
from local.comfyui.validation import PromptValidator
from local.comfyui.websocket_hub import WebsocketHub

DEFAULT_PORT = 8188

# Connections that are still busy when a server stops are cut after this time.
_SHUTDOWN_SECONDS = 0.5


class ComfyUiSimulator:
    """One server. Its queue and history live in memory, its files in `directory`.

    `prompt_seconds` is the least time that a prompt with work to do takes. A server that was
    stopped can be started again: it then knows no prompt, and its file counters go on.
    """

    def __init__(self, directory: Path, *, prompt_seconds: float = 1.0) -> None:
        self._folders = MediaFolders(directory)
        self._prompt_seconds = prompt_seconds
        self._running: _Running | None = None

    async def start(self, host: str, port: int = DEFAULT_PORT) -> None:
        """Listen and work. Port 0 takes a free one. Raises OSError where the address is taken."""
        if self._running is not None:
            raise RuntimeError("the simulator runs already")
        self._folders.prepare()
        hub = WebsocketHub()
        queue = PromptQueue(lambda remaining: hub.send("status", {"status": queue_info(remaining)}))
        workshop = Workshop(
            definitions=NODE_DEFINITIONS,
            implementations=NODE_IMPLEMENTATIONS,
            folders=self._folders,
            cache=NodeCache(),
            events=hub,
            interrupt=threading.Event(),
            prompt_seconds=self._prompt_seconds,
        )
        worker = PromptWorker(queue, workshop)
        validator = PromptValidator(
            NODE_DEFINITIONS, self._folders.list_inputs, self._folders.has_input
        )
        state = ServerState(self._folders, queue, worker, validator, hub)
        # Without an access log: paths hold names of files, which can be names of people.
        runner = web.AppRunner(
            build_application(state), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        publisher = asyncio.create_task(hub.publish())
        worker.start()
        self._running = _Running(runner, worker, hub, publisher)

    async def stop(self) -> None:
        """Interrupt the running prompt, close every connection and forget all prompts."""
        if self._running is None:
            return
        running, self._running = self._running, None
        await asyncio.to_thread(running.worker.stop)
        await running.hub.close()
        await running.runner.cleanup()
        running.publisher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running.publisher

    @property
    def port(self) -> int:
        """The port that the running server listens on."""
        if self._running is None:
            raise RuntimeError("the simulator does not run")
        address: tuple[str, int] = self._running.runner.addresses[0]
        return address[1]


@dataclass(frozen=True)
class _Running:
    runner: web.AppRunner
    worker: PromptWorker
    hub: WebsocketHub
    publisher: asyncio.Task[None]


@dataclass(frozen=True)
class SimulatorAddress:
    """Where a simulator listens."""

    address: str
    port: int

    @property
    def url(self) -> str:
        """The base address for HTTP."""
        return f"http://{self.address}:{self.port}"


@contextlib.contextmanager
def running_simulator(
    directory: Path, host: str = "127.0.0.1", port: int = 0, prompt_seconds: float = 0.0
) -> Iterator[SimulatorAddress]:
    """Run a simulator in a thread of its own while the block runs."""
    simulator = ComfyUiSimulator(directory, prompt_seconds=prompt_seconds)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="comfyui-loop", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(simulator.start(host, port), loop).result()
        try:
            yield SimulatorAddress(host, simulator.port)
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def serve(host: str, port: int, directory: Path, prompt_seconds: float) -> None:
    """Run one server until SIGINT or SIGTERM."""
    asyncio.run(_serve(host, port, directory, prompt_seconds))


async def _serve(host: str, port: int, directory: Path, prompt_seconds: float) -> None:
    simulator = ComfyUiSimulator(directory, prompt_seconds=prompt_seconds)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await simulator.start(host, port)
    try:
        await ended.wait()
    finally:
        await simulator.stop()
