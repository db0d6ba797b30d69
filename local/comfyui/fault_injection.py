"""Makes faults happen: to requests as a middleware, to prompts in the worker's thread."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from aiohttp import web

from local.comfyui.admin_routes import ADMIN_PREFIX
from local.comfyui.faults import Fault, FaultBoard, FaultKind, Occasion
from local.comfyui.node_run import OutOfMemoryError

_PROMPT_PATHS = ("/prompt", "/api/prompt")

# Makes closing a socket send a reset, without what is still to be sent.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WorkerLostError(BaseException):
    """When the worker's thread ends in the middle of a prompt; no node error, so nobody's catch."""


class AcceleratorError(RuntimeError):
    """When the simulated GPU is broken until a restart; named as the real one is."""

    __module__ = "torch"


class AcceptedAndFailedError(Exception):
    """When a request fails after its prompt has been queued."""


class FaultInjector:
    """Takes faults from a board and lets one running server suffer them.

    `leave` makes the server go away: for some seconds, or for good. Both it and every method but
    the middleware may be called from any thread.
    """

    def __init__(self, board: FaultBoard, leave: Callable[[float | None], None]) -> None:
        self.board = board
        self._leave = leave
        self._stalled_until = 0.0
        self._is_over = threading.Event()

    def end(self) -> None:
        """Let go of the worker's thread where a fault holds it: its server is no more."""
        self._is_over.set()

    async def wait_for_stall(self) -> None:
        """Wait until the server may answer again."""
        while (seconds := self._stalled_until - time.monotonic()) > 0:
            await asyncio.sleep(seconds)

    @web.middleware
    async def middleware(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let a request suffer what is switched on for it."""
        if request.path.startswith(ADMIN_PREFIX):
            return await handler(request)
        fault = self.board.take(Occasion.REQUEST)
        if fault is not None and self._strike_request(fault, request):
            return web.Response()
        await self.wait_for_stall()
        is_prompt = request.method == "POST" and request.path in _PROMPT_PATHS
        if is_prompt and self.board.take(Occasion.ARRIVAL) is not None:
            reset_connection(request)
            return web.Response()
        response = await handler(request)
        if is_prompt and response.status == 200:
            fault = self.board.take(Occasion.POST)
            if fault is not None:
                await self._strike_post(fault, request)
        await self.wait_for_stall()
        return response

    def strike_node(self, fault: Fault) -> None:
        """Let a running node suffer. Raises what the node would, and WorkerLostError."""
        match fault.kind:
            case FaultKind.EXCEPTION:
                raise RuntimeError("a simulated fault of this node")
            case FaultKind.OOM:
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            case FaultKind.BLACK_HOLE:
                raise AcceleratorError("CUDA error: an illegal memory access was encountered")
            case FaultKind.HANG:
                self._hold(fault.seconds)
            case FaultKind.STALL:
                # A node that holds the interpreter's lock: it works, and nobody else does.
                self._stall(fault)
                self._hold(fault.seconds)
            case FaultKind.EXIT | FaultKind.RESTART:
                self._leave(fault.seconds)
                self._die()
            case _:
                raise WorkerLostError(fault.kind)

    def _strike_request(self, fault: Fault, request: web.Request) -> bool:
        """Begin a stall or an absence; tell whether the request is lost with it."""
        if fault.kind is FaultKind.STALL:
            self._stall(fault)
            return False
        reset_connection(request)
        self._leave(fault.seconds)
        return True

    async def _strike_post(self, fault: Fault, request: web.Request) -> None:
        if fault.kind is FaultKind.SLOW_POST:
            await asyncio.sleep(fault.seconds or 0)
            return
        if fault.kind is FaultKind.ERROR_AFTER_ACCEPT:
            raise AcceptedAndFailedError
        reset_connection(request)
        if fault.kind in (FaultKind.EXIT, FaultKind.RESTART):
            self._leave(fault.seconds)

    def _stall(self, fault: Fault) -> None:
        self._stalled_until = time.monotonic() + (fault.seconds or 0)

    def _hold(self, seconds: float | None) -> None:
        """Block the worker for a time, or for ever, deaf to interrupts."""
        if self._is_over.wait(seconds):
            raise WorkerLostError

    def _die(self) -> NoReturn:
        self._is_over.wait()
        raise WorkerLostError


def reset_connection(request: web.Request) -> None:
    """Cut a client off: it sees a connection reset by its peer."""
    reset_transport(request.transport)


def reset_transport(transport: asyncio.BaseTransport | None) -> None:
    """Close a connection with a reset."""
    if not isinstance(transport, asyncio.Transport):
        return
    peer = transport.get_extra_info("socket")
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
