"""The open websockets, and the sending of events to them in one order."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import ClientConnectionResetError, web


class _Event(NamedTuple):
    client_id: str | None
    text: str


class WebsocketHub:
    """Sends events to websockets by client id. Made on the event loop; `send` is thread-safe.

    Nothing is delivered before `wait_for_stall` returns.
    """

    def __init__(self, wait_for_stall: Callable[[], Awaitable[None]]) -> None:
        self._wait_for_stall = wait_for_stall
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._sockets: dict[str, web.WebSocketResponse] = {}

    def send(self, event: str, data: Mapping[str, Any], client_id: str | None = None) -> None:
        """Send an event to one client, or to all; nothing is kept for one that is not there."""
        text = json.dumps({"type": event, "data": data})
        self._loop.call_soon_threadsafe(self._events.put_nowait, _Event(client_id, text))

    def add(self, client_id: str, socket: web.WebSocketResponse) -> None:
        """Register a socket; an older one of the same client stays open and gets nothing more."""
        self._sockets[client_id] = socket

    def remove(self, client_id: str) -> None:
        """Unregister a client.

        It is by id, as on a real server: when an old socket closes after its client has connected
        again, the new one stays open and is silent.
        """
        self._sockets.pop(client_id, None)

    async def publish(self) -> None:
        """Deliver events until cancelled."""
        while True:
            event = await self._events.get()
            await self._wait_for_stall()
            if event.client_id is None:
                receivers = list(self._sockets.values())
            else:
                receivers = [
                    socket for key, socket in self._sockets.items() if key == event.client_id
                ]
            for socket in receivers:
                # The socket's own handler sees the lost connection too, and unregisters it.
                with contextlib.suppress(ClientConnectionResetError):
                    await socket.send_str(event.text)

    async def close(self) -> None:
        """Close every socket."""
        for socket in list(self._sockets.values()):
            await socket.close()
        self._sockets = {}
