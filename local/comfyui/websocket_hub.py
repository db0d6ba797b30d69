"""The open websockets, and the sending of events to them in one order."""

import asyncio
import contextlib
import io
import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import ClientConnectionResetError, web
from PIL import Image

# Kinds of binary messages, and of the picture in a preview without metadata.
_PREVIEW = 1
_TEXT = 3
_PREVIEW_WITH_METADATA = 4
_JPEG = 1


class _Event(NamedTuple):
    """One message: a text, or the two forms of a binary one."""

    client_id: str | None
    text: str = ""
    plain: bytes = b""
    with_metadata: bytes = b""


class WebsocketHub:
    """Sends events to websockets by client id. Made on the event loop; `send` is thread-safe.

    Nothing is delivered before `wait_for_stall` returns.
    """

    def __init__(self, wait_for_stall: Callable[[], Awaitable[None]]) -> None:
        self._wait_for_stall = wait_for_stall
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._takes_metadata: set[str] = set()

    def send(self, event: str, data: Mapping[str, Any], client_id: str | None = None) -> None:
        """Send an event to one client, or to all; nothing is kept for one that is not there."""
        text = json.dumps({"type": event, "data": data})
        self._loop.call_soon_threadsafe(self._events.put_nowait, _Event(client_id, text=text))

    def send_preview(
        self, image: Image.Image, metadata: Mapping[str, Any], client_id: str | None = None
    ) -> None:
        """Send a picture to one client, or to all, with metadata where a client takes them."""
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        described = json.dumps({**metadata, "image_type": "image/jpeg"}).encode()
        event = _Event(
            client_id,
            plain=struct.pack(">II", _PREVIEW, _JPEG) + buffer.getvalue(),
            with_metadata=struct.pack(">II", _PREVIEW_WITH_METADATA, len(described))
            + described
            + buffer.getvalue(),
        )
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def send_node_text(self, node_id: str, text: str, client_id: str | None = None) -> None:
        """Send what a node says of its work, to one client, or to all."""
        name = node_id.encode()
        message = struct.pack(">II", _TEXT, len(name)) + name + text.encode()
        event = _Event(client_id, plain=message, with_metadata=message)
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def take_metadata(self, client_id: str) -> None:
        """Send previews with metadata to this client from now on."""
        self._takes_metadata.add(client_id)

    def add(self, client_id: str, socket: web.WebSocketResponse) -> None:
        """Register a socket; an older one of the same client stays open and gets nothing more."""
        self._sockets[client_id] = socket
        self._takes_metadata.discard(client_id)

    def remove(self, client_id: str) -> None:
        """Unregister a client.

        It is by id, as on a real server: when an old socket closes after its client has connected
        again, the new one stays open and is silent.
        """
        self._sockets.pop(client_id, None)
        self._takes_metadata.discard(client_id)

    async def publish(self) -> None:
        """Deliver events until cancelled."""
        while True:
            event = await self._events.get()
            await self._wait_for_stall()
            for client_id, socket in list(self._sockets.items()):
                if event.client_id in (None, client_id):
                    # The socket's own handler sees a lost connection too, and unregisters it.
                    with contextlib.suppress(ClientConnectionResetError):
                        await self._deliver(event, client_id, socket)

    async def _deliver(self, event: _Event, client_id: str, socket: web.WebSocketResponse) -> None:
        if event.text:
            await socket.send_str(event.text)
        elif client_id in self._takes_metadata:
            await socket.send_bytes(event.with_metadata)
        else:
            await socket.send_bytes(event.plain)

    async def close(self) -> None:
        """Close every socket."""
        for socket in list(self._sockets.values()):
            await socket.close()
        self._sockets = {}
