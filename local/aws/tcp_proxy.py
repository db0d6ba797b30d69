"""Passes TCP connections on, so that a real server stands behind a simulated instance's address."""

import asyncio
import contextlib
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024


class TcpProxy:
    """Listens on one address and joins each connection with one to the real server."""

    def __init__(self, target_host: str, target_port: int) -> None:
        """Take the real server's address."""
        self.target = (target_host, target_port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen; raises OSError."""
        self._server = await asyncio.start_server(self._join, host, port)

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._exchange(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Where the server is down, the caller sees its connection closed: as by an instance
            # that has died.
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(*self.target)
                try:
                    await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
                finally:
                    far_writer.close()
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
