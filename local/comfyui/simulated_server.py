"""A simulated ComfyUI server that can be started, stopped, lost and started again."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from local.comfyui.fault_injection import FaultInjector, reset_transport
from local.comfyui.faults import FaultBoard
from local.comfyui.media_folders import MediaFolders
from local.comfyui.node_cache import NodeCache
from local.comfyui.node_catalog import NodeCatalog
from local.comfyui.prompt_queue import PromptQueue
from local.comfyui.prompt_routes import queue_info
from local.comfyui.prompt_run import Workshop
from local.comfyui.prompt_worker import PromptWorker
from local.comfyui.run_log import RunLog
from local.comfyui.server import build_application
from local.comfyui.server_state import ServerState
from local.comfyui.simulator_settings import SimulatorSettings
from local.comfyui.validation import PromptValidator
from local.comfyui.websocket_hub import WebsocketHub

DEFAULT_PORT = 8188

# Connections that are still busy when a server stops are cut after this time.
_SHUTDOWN_SECONDS = 0.5

_logger = logging.getLogger(__name__)


class ComfyUiSimulator:
    """One server. Its queue and history live in memory, its files in `directory`.

    A server that was stopped or lost can be started again: it then knows no prompt, its counter
    begins at 0, and its files, its file counters, its faults and the record of its runs go on.
    """

    def __init__(self, directory: Path, settings: SimulatorSettings) -> None:
        self.runs = RunLog()
        self.faults = FaultBoard(
            shared=settings.faults,
            is_shared_due=lambda: not settings.spares_first_prompt or self.runs.has_ended,
        )
        self._settings = settings
        self._folders = MediaFolders(directory)
        self._address: tuple[str, int] | None = None
        self._running: _Running | None = None
        self._absence: asyncio.Task[None] | None = None
        self._has_left = asyncio.Event()
        self._is_recalled = asyncio.Event()
        # One leaving or coming back at a time.
        self._changing = asyncio.Lock()

    async def start(self, host: str, port: int = DEFAULT_PORT) -> None:
        """Listen and work. Port 0 takes a free one. Raises OSError where the address is taken."""
        if self._running is not None:
            raise RuntimeError("the simulator runs already")
        self._folders.prepare()
        injector = FaultInjector(self.faults, self._leave_from(asyncio.get_running_loop()))
        hub = WebsocketHub(injector.wait_for_stall)
        queue = PromptQueue(
            lambda remaining: hub.send("status", {"status": queue_info(remaining)}),
            max_history=self._settings.max_history,
        )
        catalog = NodeCatalog(
            self._folders,
            (*self._settings.profile.nodes, *self._settings.custom_nodes),
            models=self._settings.models,
            allow_unknown=self._settings.allow_unknown_nodes,
        )
        workshop = Workshop(
            profile=self._settings.profile,
            catalog=catalog,
            folders=self._folders,
            cache=NodeCache(),
            events=hub,
            interrupt=threading.Event(),
            faults=injector,
            durations=self._settings.durations,
        )
        worker = PromptWorker(queue, workshop, self.runs)
        validator = PromptValidator(catalog, names_cycles=self._settings.profile.names_cycles)
        state = ServerState(
            profile=self._settings.profile,
            max_request_bytes=self._settings.max_request_bytes,
            folders=self._folders,
            catalog=catalog,
            queue=queue,
            worker=worker,
            validator=validator,
            hub=hub,
            faults=injector,
            runs=self.runs,
        )
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
        self.runs.begin_start()
        worker.start()
        self._address = host, runner.addresses[0][1]
        self._running = _Running(runner, worker, hub, publisher)

    async def stop(self) -> None:
        """Interrupt the running prompt, close every connection and forget all prompts."""
        self._is_recalled.set()
        if self._absence is not None:
            await self._absence
        async with self._changing:
            if self._running is not None:
                running, self._running = self._running, None
                await running.hub.close()
                await running.end()

    async def leave(self) -> None:
        """Be gone as a killed process is: connections are reset and new ones refused."""
        async with self._changing:
            if self._running is None:
                return
            running, self._running = self._running, None
            for site in list(running.runner.sites):
                await site.stop()
            server = running.runner.server
            for connection in [] if server is None else server.connections:
                reset_transport(connection.transport)
            await running.end()

    async def come_back(self) -> None:
        """Start again under the old address, unless it is back already.

        An absence of so many seconds ends with it. Raises OSError where somebody else has taken
        the address.
        """
        self._is_recalled.set()
        await self._start_again()

    async def _start_again(self) -> None:
        async with self._changing:
            if self._running is None:
                await self.start(*self.address)

    async def wait_until_gone(self) -> None:
        """Wait until the server has left without a time for coming back."""
        await self._has_left.wait()

    @property
    def is_running(self) -> bool:
        """Whether the server listens."""
        return self._running is not None

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port that the server listens on, or did before it left."""
        if self._address is None:
            raise RuntimeError("the simulator was never started")
        return self._address

    def _leave_from(self, loop: asyncio.AbstractEventLoop) -> Callable[[float | None], None]:
        def leave(seconds: float | None) -> None:
            loop.call_soon_threadsafe(self._begin_absence, seconds)

        return leave

    def _begin_absence(self, seconds: float | None) -> None:
        is_leaving = self._absence is not None and not self._absence.done()
        if self._running is not None and not is_leaving:
            self._is_recalled.clear()
            self._absence = asyncio.get_running_loop().create_task(self._be_absent(seconds))

    async def _be_absent(self, seconds: float | None) -> None:
        await self.leave()
        if seconds is None:
            self._has_left.set()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_recalled.wait(), seconds)
            return
        try:
            await self._start_again()
        except OSError:
            _logger.exception("comfyui cannot come back")


@dataclass(frozen=True)
class _Running:
    """What is there while a server listens, and ends with it."""

    runner: web.AppRunner
    worker: PromptWorker
    hub: WebsocketHub
    publisher: asyncio.Task[None]

    async def end(self) -> None:
        self.publisher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.publisher
        await asyncio.to_thread(self.worker.stop)
        await self.runner.cleanup()
