"""Runs the real handlers as Lambda does: a process per concurrent invocation, behind a Runtime API.

A process speaks to the four endpoints of the Lambda Runtime API on a port of its own: so it can run
awslambdaric, the very client that Lambda's Python runtime is made of.
"""

import asyncio
import importlib.util
import json
import logging
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from aiohttp import web

from local.aws.virtual_clock import VirtualClock
from local.aws.worker_processes import (
    WorkerOrder,
    WorkerProcess,
    WorkerProcesses,
    choose_worker_processes,
)

RuntimeClient = Literal["awslambdaric", "builtin"]

_log = logging.getLogger(__name__)

_API: Final = "/2018-06-01/runtime"
# Lambda gives a process 10 s to load its handler; two cores that load nine at once take longer.
_INIT_SECONDS: Final = 60
# With all processes of a function busy, a call waits so long for one of them before another process
# is started: starting costs half a second of a core, most calls take a few milliseconds.
_PATIENCE_SECONDS: Final = 0.1
# A process takes some 60 MB. Lambda would go on to 1,000; calls beyond this wait for their turn.
_MOST_PROCESSES: Final = 50
_RESPONSE_LIMIT: Final = 6 * 1024 * 1024
# EventBridge, SNS and asynchronous callers get these waits between Lambda's attempts.
_RETRY_WAIT_SECONDS: Final = (60.0, 120.0)
_THROTTLED_WAIT_SECONDS: Final = 1.0
# aiohttp takes 0 for "without end".
_SHUTDOWN_SECONDS: Final = 0.1
# Longer than any pause between two calls of one process, so that neither side meets a closed one.
_KEEP_ALIVE_SECONDS: Final = 7 * 24 * 3600.0


class FunctionNotFoundError(Exception):
    """When no function has this name."""


class TooManyRequestsError(Exception):
    """When a function already runs as often as its reserved concurrency allows."""


@dataclass(frozen=True)
class FunctionConfig:
    """What Lambda knows of one function."""

    name: str
    arn: str
    handler: str
    code_folder: Path
    layer_folders: tuple[Path, ...]
    environment: Mapping[str, str]
    timeout_seconds: float
    memory_mb: int
    reserved_concurrency: int | None = None
    retry_attempts: int = 2
    on_success: str | None = None
    """Name of the function that is told of each asynchronous call that succeeded."""
    url_auth: str = ""
    """Who may use the function's URL, AWS_IAM or NONE; empty if it has none."""


@dataclass(frozen=True)
class InvocationResult:
    """A handler's answer, or with ``failed`` the JSON that Lambda makes of its error."""

    payload: bytes
    failed: bool = False


@dataclass(eq=False)
class _Invocation:
    payload: bytes
    request_id: str
    result: asyncio.Future[InvocationResult] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def finish(self, result: InvocationResult) -> None:
        """Set the result, unless a timeout or an exit has set one before."""
        if not self.result.done():
            self.result.set_result(result)


def find_runtime_client() -> RuntimeClient:
    """Give awslambdaric where it is installed (its wheels are for Linux), else our own client."""
    return "awslambdaric" if importlib.util.find_spec("awslambdaric") else "builtin"


class LambdaRuntime:
    """All functions of an account, their processes, and their asynchronous invocations."""

    def __init__(
        self,
        *,
        clock: VirtualClock,
        run_folder: Path,
        environment: Mapping[str, str],
        client: RuntimeClient | None = None,
        show_logs: bool = False,
    ) -> None:
        """Take the environment that every process gets and the folder for one log per function.

        With ``show_logs`` the handlers' output goes to this process's standard error instead.
        """
        self._clock = clock
        self._run_folder = run_folder
        self._environment = dict(environment)
        self._show_logs = show_logs
        self._processes = choose_worker_processes(client or find_runtime_client(), run_folder)
        self._pools: dict[str, _FunctionPool] = {}
        self._start_slots = asyncio.Semaphore(os.cpu_count() or 1)
        self._background: set[asyncio.Task[None]] = set()

    def add_function(self, config: FunctionConfig) -> None:
        """Make a function known; its first process starts with its first invocation."""
        start = _WorkerStart(
            config=config,
            processes=self._processes,
            environment=self._environment,
            temporary_folder=self._run_folder,
            log_path=None if self._show_logs else self._run_folder / f"{config.name}.log",
        )
        self._pools[config.name] = _FunctionPool(start, self._start_slots)

    def find_url_auth(self, name: str) -> str:
        """Who may use the URL of a function of this name; empty if there is none."""
        pool = self._pools.get(name)
        return pool.config.url_auth if pool is not None else ""

    async def invoke(self, name: str, payload: bytes, request_id: str) -> InvocationResult:
        """Run one invocation and wait for its end.

        Raises FunctionNotFoundError and TooManyRequestsError; a handler's error is a result.
        """
        return await self._pool(name).invoke(payload, request_id)

    def invoke_later(self, name: str, payload: bytes, request_id: str | None = None) -> None:
        """Accept an asynchronous invocation: a failing one is tried again as Lambda does.

        Raises FunctionNotFoundError.
        """
        pool = self._pool(name)
        self._spawn(self._try_until_done(pool, payload, request_id or str(uuid.uuid4())))

    def read_usage(self) -> Mapping[str, Mapping[str, float]]:
        """Calls and their seconds by function, and its MB: what Lambda sends a bill for."""
        return {
            name: {"calls": pool.calls, "seconds": pool.seconds, "memory_mb": pool.config.memory_mb}
            for name, pool in self._pools.items()
        }

    def kill_working(self, names: Sequence[str]) -> str | None:
        """Kill a process in the middle of a call, as the end of its host would.

        It is one of the first of these functions that has a call under way, whose name is given;
        None if all are idle. Raises FunctionNotFoundError.
        """
        return next((name for name in names if self._pool(name).kill_working()), None)

    def warm_up(self) -> None:
        """Start one process of every function, in the background.

        A first call would wait a second for its process, and a job passes seven functions.
        """
        for pool in self._pools.values():
            pool.warm_up()

    async def stop(self) -> None:
        """Kill every process and forget what waits."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.gather(*(pool.stop() for pool in self._pools.values()))
        await self._processes.stop()

    def _pool(self, name: str) -> "_FunctionPool":
        try:
            return self._pools[name]
        except KeyError:
            raise FunctionNotFoundError(name) from None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _try_until_done(self, pool: "_FunctionPool", payload: bytes, request_id: str) -> None:
        waits = [*_RETRY_WAIT_SECONDS[: pool.config.retry_attempts]]
        while True:
            try:
                result = await pool.invoke(payload, request_id)
            except TooManyRequestsError:
                # Throttling costs no attempt: Lambda goes on for up to six hours.
                await asyncio.sleep(self._clock.real_seconds(_THROTTLED_WAIT_SECONDS))
                continue
            if not result.failed:
                if pool.config.on_success is not None:
                    record = _describe_success(pool.config, payload, request_id, result)
                    self.invoke_later(pool.config.on_success, record)
                return
            if not waits:
                _log.error(
                    "%s failed for good, called asynchronously (%s)", pool.config.name, request_id
                )
                return
            await asyncio.sleep(self._clock.real_seconds(waits.pop(0)))


@dataclass(frozen=True)
class _WorkerStart:
    """What a new process of a function needs."""

    config: FunctionConfig
    processes: WorkerProcesses
    environment: Mapping[str, str]
    temporary_folder: Path
    log_path: Path | None

    def process_environment(self, runtime_api: str) -> dict[str, str]:
        """Build the environment from nothing, as Lambda does; nothing of the user's leaks in."""
        config = self.config
        folders = [str(config.code_folder), *map(str, config.layer_folders)]
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "TMPDIR": str(self.temporary_folder),
            "PYTHONPATH": os.pathsep.join(folders),
            **self.environment,
            **config.environment,
            "_HANDLER": config.handler,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": config.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{uuid.uuid4().hex}",
            "AWS_LAMBDA_RUNTIME_API": runtime_api,
            "LAMBDA_TASK_ROOT": str(config.code_folder),
        }


class _FunctionPool:
    """The processes of one function: a call takes an idle one, or waits, or has one started."""

    def __init__(self, start: _WorkerStart, start_slots: asyncio.Semaphore) -> None:
        self.config = start.config
        self.calls = 0
        self.seconds = 0.0
        self._start = start
        self._start_slots = start_slots
        self._workers: set[_Worker] = set()
        self._idle: list[tuple[_Worker, asyncio.Future[_Invocation]]] = []
        self._pending: deque[_Invocation] = deque()
        self._starting: set[asyncio.Task[None]] = set()
        self._patience: asyncio.TimerHandle | None = None
        self._running = 0
        self._is_stopped = False

    async def invoke(self, payload: bytes, request_id: str) -> InvocationResult:
        """Run one invocation; raises TooManyRequestsError at the reserved concurrency."""
        limit = self.config.reserved_concurrency
        if limit is not None and self._running >= limit:
            raise TooManyRequestsError(self.config.name)
        invocation = _Invocation(payload, request_id)
        self._running += 1
        self.calls += 1
        started = time.monotonic()
        try:
            if self._idle:
                # The one used last, so that the others' memory can be paged out.
                worker, work = self._idle.pop()
                worker.begin(invocation)
                work.set_result(invocation)
            else:
                self._pending.append(invocation)
                self._grow()
            return await invocation.result
        finally:
            self._running -= 1
            self.seconds += time.monotonic() - started

    def warm_up(self) -> None:
        """Start a process if there is none."""
        if not self._workers and not self._starting:
            self._start_one(even_unneeded=True)

    def kill_working(self) -> bool:
        """Kill a process that is in a call; False if there is none."""
        worker = next((worker for worker in self._workers if worker.is_working), None)
        if worker is not None:
            worker.kill()
        return worker is not None

    async def next_invocation(self, worker: "_Worker") -> _Invocation:
        """Wait for work for a process that has none."""
        if worker not in self._workers:
            # It was killed while it asked: what it is given now would never be answered.
            raise web.HTTPGone
        if self._pending:
            invocation = self._pending.popleft()
            worker.begin(invocation)
            return invocation
        work: asyncio.Future[_Invocation] = asyncio.get_running_loop().create_future()
        self._idle.append((worker, work))
        return await work

    def forget(self, worker: "_Worker") -> None:
        """Take a process that has ended out of the pool."""
        self._workers.discard(worker)
        for entry in [entry for entry in self._idle if entry[0] is worker]:
            self._idle.remove(entry)
            entry[1].cancel()
        self._grow()

    async def stop(self) -> None:
        """Kill all processes, and start none for calls that still come."""
        self._is_stopped = True
        if self._patience is not None:
            self._patience.cancel()
        self._pending.clear()
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in list(self._workers)))

    def _grow(self) -> None:
        """Start a process when calls wait for which none is on its way."""
        if self._is_stopped or len(self._pending) <= len(self._starting):
            return
        if len(self._workers) + len(self._starting) >= _MOST_PROCESSES:
            return
        if not self._workers and not self._starting:
            self._start_one()
        elif self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(_PATIENCE_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        if len(self._pending) > len(self._starting):
            self._start_one()
            self._grow()

    def _start_one(self, *, even_unneeded: bool = False) -> None:
        task = asyncio.get_running_loop().create_task(self._add_worker(even_unneeded))
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled():
            task.result()
            self._grow()

    async def _add_worker(self, even_unneeded: bool) -> None:
        # A function without any process does not queue behind the growth of another, which under
        # load takes minutes: all jobs would stand still before this one step.
        is_first = not self._workers and not even_unneeded
        async with nullcontext() if is_first else self._start_slots:
            if not self._pending and not even_unneeded:
                return  # Another process took the call meanwhile.
            worker = _Worker(self._start, self)
            self._workers.add(worker)
            failure = await worker.start()
        if failure is not None and self._pending:
            self._pending.popleft().finish(failure)


class _Worker:
    """One process of a function and the Runtime API that it talks to."""

    def __init__(self, start: _WorkerStart, pool: _FunctionPool) -> None:
        self._start = start
        self._config = start.config
        self._pool = pool
        self._current: _Invocation | None = None
        self._timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        # None once the handler is loaded; else why it could not be.
        self._init: asyncio.Future[InvocationResult | None] = loop.create_future()
        self._api: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._process: WorkerProcess | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> InvocationResult | None:
        """Start the process; give None when it asks for work, else the error of its start."""
        loop = asyncio.get_running_loop()
        self._api = web.Server(self._answer, access_log=None, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        self._listener = await loop.create_server(self._api, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self._process = await self._start.processes.start(
            WorkerOrder(
                handler=self._config.handler,
                folder=self._config.code_folder,
                layers=self._config.layer_folders,
                environment=self._start.process_environment(f"127.0.0.1:{port}"),
                log_path=self._start.log_path,
            )
        )
        self._watch = loop.create_task(self._watch_exit(self._process))
        try:
            return await asyncio.wait_for(asyncio.shield(self._init), _INIT_SECONDS)
        except TimeoutError:
            self.kill()
            return _describe_failure(
                "Sandbox.Timedout", f"Init did not end within {_INIT_SECONDS} seconds"
            )

    def begin(self, invocation: _Invocation) -> None:
        """Take the responsibility for a call, which ends with the process at the latest."""
        timeout = self._config.timeout_seconds
        self._current = invocation
        self._timer = asyncio.get_running_loop().call_later(timeout, self._time_out, invocation)

    @property
    def is_working(self) -> bool:
        """Whether the process is in a call."""
        return self._current is not None

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        if self._process is not None:
            self._process.kill()

    async def stop(self) -> None:
        """Kill the process and wait until its traces here are gone."""
        self.kill()
        if self._watch is not None:
            await self._watch

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method, request.path.removeprefix(_API).split("/"):
            case "GET", ["", "invocation", "next"]:
                return await self._give_work()
            case "POST", ["", "invocation", request_id, "response"]:
                self._finish(request_id, await self._read_response(request))
            case "POST", ["", "invocation", request_id, "error"]:
                error = await request.content.read()
                self._finish(request_id, InvocationResult(error, failed=True))
            case "POST", ["", "init", "error"]:
                failure = InvocationResult(await request.content.read(), failed=True)
                if not self._init.done():
                    self._init.set_result(failure)
            case _:
                return web.Response(status=404)
        return web.json_response({"status": "OK"}, status=202)

    async def _read_response(self, request: web.BaseRequest) -> InvocationResult:
        payload = await request.content.read()
        if len(payload) > _RESPONSE_LIMIT:
            return _describe_failure(
                "Function.ResponseSizeTooLarge",
                "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
            )
        return InvocationResult(payload)

    async def _give_work(self) -> web.Response:
        if not self._init.done():
            self._init.set_result(None)
        invocation = await self._pool.next_invocation(self)
        deadline = time.time() + self._config.timeout_seconds
        return web.Response(
            body=invocation.payload,
            content_type="application/json",
            headers={
                "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": self._config.arn,
            },
        )

    def _finish(self, request_id: str, result: InvocationResult) -> None:
        invocation = self._current
        if invocation is None or invocation.request_id != request_id:
            return  # It timed out meanwhile.
        if self._timer is not None:
            self._timer.cancel()
        self._current = None
        invocation.finish(result)

    def _time_out(self, invocation: _Invocation) -> None:
        self.kill()
        self._current = None
        invocation.finish(
            _describe_failure(
                "Sandbox.Timedout",
                f"RequestId: {invocation.request_id} Error: Task timed out after "
                f"{self._config.timeout_seconds:.2f} seconds",
            )
        )

    async def _watch_exit(self, process: WorkerProcess) -> None:
        status = await process.wait()
        if self._timer is not None:
            self._timer.cancel()
        how = f"signal: {-status}" if status < 0 else f"exit status {status}"
        request = f"RequestId: {self._current.request_id} " if self._current else ""
        failure = _describe_failure(
            "Runtime.ExitError", f"{request}Error: Runtime exited with error: {how}"
        )
        if self._current is not None:
            self._current.finish(failure)
        if not self._init.done():
            self._init.set_result(failure)
        self._pool.forget(self)
        if self._listener is not None:
            self._listener.close()
        if self._api is not None:
            await self._api.shutdown(timeout=_SHUTDOWN_SECONDS)


def _describe_success(
    config: FunctionConfig, payload: bytes, request_id: str, result: InvocationResult
) -> bytes:
    """Give what Lambda tells a destination."""
    record = {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": request_id,
            "functionArn": f"{config.arn}:$LATEST",
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": json.loads(payload),
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": json.loads(result.payload),
    }
    return json.dumps(record).encode()


def _describe_failure(error_type: str, message: str) -> InvocationResult:
    details = {"errorType": error_type, "errorMessage": message}
    return InvocationResult(json.dumps(details).encode(), failed=True)
