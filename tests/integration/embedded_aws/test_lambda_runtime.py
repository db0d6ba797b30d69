"""Functions run as on Lambda, with awslambdaric and with the built-in runtime client."""

import asyncio
import importlib.util
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from local.aws.lambda_runtime import (
    FunctionConfig,
    FunctionNotFoundError,
    InvocationResult,
    LambdaRuntime,
    RuntimeClient,
    TooManyRequestsError,
)
from local.aws.virtual_clock import VirtualClock

from .conftest import SAMPLE_APP, wait_for

pytestmark = pytest.mark.timeout(60)

MISBEHAVE = FunctionConfig(
    name="misbehave",
    arn="arn:aws:lambda:us-east-1:123456789012:function:misbehave",
    handler="app.handler",
    code_folder=SAMPLE_APP / "functions" / "misbehave",
    layer_folders=(SAMPLE_APP / "layers" / "shared",),
    environment={"COLOUR": "red"},
    timeout_seconds=20,
    memory_mb=128,
    reserved_concurrency=2,
)


class Functions:
    """Runs coroutines that use a runtime, which lives as long as the loop."""

    def __init__(self, client: RuntimeClient, folder: Path) -> None:
        self.folder = folder
        self._client = client

    def run(self, use: Callable[[LambdaRuntime], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            runtime = LambdaRuntime(
                clock=VirtualClock.starting_now(600),
                run_folder=self.folder,
                environment={"AWS_REGION": "us-east-1"},
                client=self._client,
            )
            runtime.add_function(MISBEHAVE)
            runtime.add_function(replace(MISBEHAVE, name="hasty", timeout_seconds=1))
            runtime.add_function(
                replace(MISBEHAVE, name="broken", handler="no_such_module.handler")
            )
            in_layer = replace(MISBEHAVE, name="in-layer", handler="sample_shared.absent")
            runtime.add_function(in_layer)
            runtime.add_function(replace(in_layer, name="without-layer", layer_folders=()))
            try:
                return await use(runtime)
            finally:
                await runtime.stop()

        return asyncio.run(run())

    def call(self, event: Any, name: str = "misbehave") -> InvocationResult:
        payload = json.dumps(event).encode()
        result: InvocationResult = self.run(lambda runtime: runtime.invoke(name, payload, "id-1"))
        return result

    def log(self, name: str = "misbehave") -> str:
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture(params=["awslambdaric", "builtin"])
def functions(request: pytest.FixtureRequest, tmp_path: Path) -> Functions:
    if request.param == "awslambdaric" and not importlib.util.find_spec("awslambdaric"):
        pytest.skip("awslambdaric has no wheel for this system")
    return Functions(request.param, tmp_path)


def test_a_handler_gets_the_event_and_the_context(functions: Functions) -> None:
    result = functions.call({"do": "context"})
    answer = json.loads(result.payload)
    assert not result.failed
    assert 0 < answer.pop("remaining_ms") <= 20_000
    assert answer.pop("process_id") != os.getpid()
    assert answer == {
        "request_id": "id-1",
        "arn": MISBEHAVE.arn,
        "name": "misbehave",
        "memory": "128",
        "decimal": 1.5,
    }


def test_an_error_keeps_its_type_text_and_trace_and_is_logged(functions: Functions) -> None:
    result = functions.call({"do": "raise"})
    error = json.loads(result.payload)
    assert result.failed
    assert (error["errorType"], error["errorMessage"]) == ("OddError", "as asked")
    assert error["requestId"] == "id-1"
    assert len(error["stackTrace"]) == 1
    assert "misbehave/app.py" in error["stackTrace"][0]
    assert "OddError: as asked" in functions.log()


def test_a_function_has_its_own_layers_and_no_other(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> list[str]:
        results = [await runtime.invoke(n, b"{}", n) for n in ("in-layer", "without-layer")]
        return [json.loads(result.payload)["errorType"] for result in results]

    assert functions.run(use) == ["Runtime.HandlerNotFound", "Runtime.ImportModuleError"]


@pytest.mark.parametrize(
    ("wish", "error_type"),
    [
        ("unserializable", "Runtime.MarshalError"),
        ("large", "Function.ResponseSizeTooLarge"),
        ("exit", "Runtime.ExitError"),
    ],
)
def test_a_runtimes_errors_have_lambdas_names(
    functions: Functions, wish: str, error_type: str
) -> None:
    result = functions.call({"do": wish})
    assert result.failed
    assert json.loads(result.payload)["errorType"] == error_type


def test_a_handler_that_cannot_be_imported_says_so(functions: Functions) -> None:
    result = functions.call({}, name="broken")
    assert result.failed
    error = json.loads(result.payload)
    assert error["errorType"] == "Runtime.ImportModuleError"
    assert "no_such_module" in error["errorMessage"]


def test_a_timeout_kills_the_process_with_its_children(
    functions: Functions, tmp_path: Path
) -> None:
    child_file = tmp_path / "child"
    began = time.monotonic()
    result = functions.call({"do": "hang", "file": str(child_file)}, name="hasty")
    assert result.failed
    assert json.loads(result.payload)["errorType"] == "Sandbox.Timedout"
    assert "timed out after 1.00 seconds" in json.loads(result.payload)["errorMessage"]
    assert time.monotonic() - began < 10
    child_id = int(child_file.read_text())
    wait_for(lambda: not _is_running(child_id), seconds=2)


def test_after_a_timeout_the_next_call_gets_a_new_process(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> list[InvocationResult]:
        calls = [{"do": "exit"}, {"do": "sleep", "seconds": 5}, {"still": "there"}]
        return [
            await runtime.invoke("hasty", json.dumps(call).encode(), str(number))
            for number, call in enumerate(calls)
        ]

    results = functions.run(use)
    assert [result.failed for result in results] == [True, True, False]
    assert json.loads(results[2].payload) == {"still": "there"}


def test_each_concurrent_call_has_a_process_and_more_than_reserved_are_throttled(
    functions: Functions,
) -> None:
    async def use(runtime: LambdaRuntime) -> list[Any]:
        nap = json.dumps({"do": "sleep", "seconds": 0.5}).encode()
        calls = (runtime.invoke("misbehave", nap, str(number)) for number in range(3))
        return await asyncio.gather(*calls, return_exceptions=True)

    results = functions.run(use)
    assert [type(result) for result in results] == [
        InvocationResult,
        InvocationResult,
        TooManyRequestsError,
    ]


def test_one_process_serves_one_call_after_the_other(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> float:
        await runtime.invoke("misbehave", b"{}", "first")
        began = time.monotonic()
        for number in range(50):
            await runtime.invoke("misbehave", b"{}", str(number))
        return time.monotonic() - began

    # A delayed acknowledgement alone would take 40 ms a call, a new process more than that.
    assert functions.run(use) < 1.0


def test_a_function_without_a_process_gets_one_while_others_grow(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> InvocationResult:
        for _ in range(os.cpu_count() or 1):
            # As the start of another function's process does, for as long as it takes.
            await runtime._start_slots.acquire()
        return await runtime.invoke("misbehave", b'{"still": "there"}', "id-1")

    assert json.loads(functions.run(use).payload) == {"still": "there"}


def test_a_process_can_be_killed_in_the_middle_of_a_call_and_only_then(
    functions: Functions,
) -> None:
    async def use(runtime: LambdaRuntime) -> tuple[str | None, InvocationResult, str | None]:
        nap = json.dumps({"do": "sleep", "seconds": 0.9}).encode()
        call = asyncio.create_task(runtime.invoke("misbehave", nap, "id-1"))
        while (killed := runtime.kill_working(["broken", "misbehave"])) is None:
            await asyncio.sleep(0.01)
        result = await call
        return killed, result, runtime.kill_working(["misbehave"])

    killed, result, killed_when_idle = functions.run(use)
    assert killed == "misbehave"
    assert result.failed
    assert json.loads(result.payload)["errorType"] == "Runtime.ExitError"
    assert killed_when_idle is None


def test_a_process_that_was_killed_while_it_asked_for_work_gets_none(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> InvocationResult:
        await runtime.invoke("misbehave", b"{}", "first")
        pool = runtime._pools["misbehave"]
        while not pool._idle:
            await asyncio.sleep(0.01)
        worker, _ = pool._idle[0]
        await worker.stop()
        # Its request was on the way when it died.
        with pytest.raises(web.HTTPGone):
            await asyncio.wait_for(pool.next_invocation(worker), 2)
        return await runtime.invoke("misbehave", b'{"still": "there"}', "second")

    assert json.loads(functions.run(use).payload) == {"still": "there"}


def test_the_environment_is_built_from_nothing(functions: Functions) -> None:
    environment = json.loads(functions.call({"do": "environment"}).payload)
    assert environment["COLOUR"] == "red"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["PYTHONPATH"].split(os.pathsep) == [
        str(MISBEHAVE.code_folder),
        str(MISBEHAVE.layer_folders[0]),
    ]
    assert not {"HOME", "PYTEST_CURRENT_TEST"} & environment.keys()


def test_a_failing_asynchronous_call_is_tried_three_times(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> None:
        runtime.invoke_later("misbehave", b'{"do": "raise"}')
        await asyncio.sleep(0)
        end = time.monotonic() + 15
        while functions.log().count("OddError: as asked") < 3 and time.monotonic() < end:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)

    (functions.folder / "misbehave.log").touch()
    functions.run(use)
    assert functions.log().count("OddError: as asked") == 3


def test_a_destination_is_told_of_an_asynchronous_call_that_succeeded(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> None:
        runtime.add_function(replace(MISBEHAVE, name="teller", on_success="misbehave"))
        runtime.invoke_later("teller", b'{"colour": "blue"}')
        end = time.monotonic() + 15
        while "told of" not in functions.log() and time.monotonic() < end:
            await asyncio.sleep(0.1)

    (functions.folder / "misbehave.log").touch()
    functions.run(use)
    assert "told of {'colour': 'blue'}" in functions.log()


def test_a_warm_function_has_its_process_before_the_first_call(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> int:
        runtime.warm_up()
        await asyncio.to_thread(wait_for, lambda: "loaded" in functions.log())
        result = await runtime.invoke("misbehave", b'{"do": "context"}', "first")
        return int(json.loads(result.payload)["process_id"])

    (functions.folder / "misbehave.log").touch()
    process_id = functions.run(use)
    assert [line for line in functions.log().splitlines() if "loaded" in line] == [
        f"loaded by process {process_id}"
    ]


def test_an_unknown_function_is_an_error_for_both_kinds_of_calls(functions: Functions) -> None:
    async def use(runtime: LambdaRuntime) -> None:
        with pytest.raises(FunctionNotFoundError):
            await runtime.invoke("nobody", b"{}", "id")
        with pytest.raises(FunctionNotFoundError):
            runtime.invoke_later("nobody", b"{}")

    functions.run(use)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # A killed process may stay a zombie until its new parent looks.
    status = Path(f"/proc/{process_id}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
