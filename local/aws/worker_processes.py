"""Starts the processes that functions run in."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol


@dataclass(frozen=True)
class WorkerOrder:
    """What a function's process needs."""

    handler: str
    folder: Path
    layers: tuple[Path, ...]
    environment: Mapping[str, str]
    log_path: Path | None
    """None: this process's standard error."""


class WorkerProcess(Protocol):
    """A process that was started."""

    def kill(self) -> None:
        """End it and all that it has started; no effect on one that has ended."""

    async def wait(self) -> int:
        """Wait for its end; gives the exit status, negative for a signal."""


class WorkerProcesses(Protocol):
    """A way to start processes."""

    async def start(self, order: WorkerOrder) -> WorkerProcess:
        """Start one."""

    async def stop(self) -> None:
        """End what is left of them."""


def choose_worker_processes(client: str, temporary_folder: Path) -> WorkerProcesses:
    """Fork on Linux; elsewhere system libraries forbid to go on after a fork."""
    if sys.platform == "linux":
        return ForkedProcesses(client, temporary_folder)
    return SpawnedProcesses(client)


class SpawnedProcesses:
    """Each process begins with an empty interpreter."""

    def __init__(self, client: str) -> None:
        """Take who speaks to the Runtime API in the processes."""
        self._client = client

    async def start(self, order: WorkerOrder) -> WorkerProcess:
        """Start one."""
        with _open_log(order.log_path) as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # The folder of this program is no place to import handlers from.
                "-m",
                "local.aws.function_worker",
                str(os.getpid()),
                self._client,
                order.handler,
                cwd=order.folder,
                env=order.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return _SpawnedProcess(process)

    async def stop(self) -> None:
        """Nothing is shared between them."""


@dataclass(frozen=True)
class _SpawnedProcess:
    process: asyncio.subprocess.Process

    def kill(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def wait(self) -> int:
        return await self.process.wait()


class ForkedProcesses:
    """All processes come from one server, which has loaded what they share."""

    def __init__(self, client: str, temporary_folder: Path) -> None:
        """Take who speaks to the Runtime API in the processes, and the server's own TMPDIR."""
        self._client = client
        self._temporary_folder = temporary_folder
        self._ids = itertools.count()
        self._processes: dict[int, _ForkedProcess] = {}
        self._starting = asyncio.Lock()
        self._server: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None

    async def start(self, order: WorkerOrder) -> WorkerProcess:
        """Start one, and with the first one the server."""
        async with self._starting:
            if self._server is None:
                await self._start_server()
        process = _ForkedProcess(next(self._ids), self._send)
        self._processes[process.process_id] = process
        self._send(
            {
                "id": process.process_id,
                "handler": order.handler,
                "folder": str(order.folder),
                "layers": [str(layer) for layer in order.layers],
                "environment": dict(order.environment),
                "log": None if order.log_path is None else str(order.log_path),
            }
        )
        return process

    async def stop(self) -> None:
        """End the server and all its processes."""
        if self._server is None or self._listener is None:
            return
        if self._server.stdin is not None:
            self._server.stdin.close()
        await self._server.wait()
        await self._listener

    async def _start_server(self) -> None:
        self._server = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "local.aws.fork_server",
            self._client,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C.UTF-8",
                "TMPDIR": str(self._temporary_folder),
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._listener = asyncio.get_running_loop().create_task(self._listen(self._server))

    def _send(self, order: dict[str, Any]) -> None:
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.write(json.dumps(order).encode() + b"\n")

    async def _listen(self, server: asyncio.subprocess.Process) -> None:
        if server.stdout is not None:
            async for line in server.stdout:
                news = json.loads(line)
                self._processes.pop(news["id"]).ended.set_result(news["status"])
        # A server that has ended has taken them along.
        for process in self._processes.values():
            process.ended.set_result(-signal.SIGKILL)
        self._processes.clear()


class _ForkedProcess:
    def __init__(self, process_id: int, send: Callable[[dict[str, Any]], None]) -> None:
        self.process_id = process_id
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._send = send

    def kill(self) -> None:
        self._send({"kill": self.process_id})

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)


def _open_log(path: Path | None) -> IO[bytes]:
    return os.fdopen(os.dup(2), "wb") if path is None else path.open("ab")
