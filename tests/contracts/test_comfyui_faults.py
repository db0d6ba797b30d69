"""What the client makes of servers and networks that fail; the numbers are the faults' own."""

import io
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from local.comfyui.profiles import PROFILES
from local.comfyui.run_log import Run
from local.comfyui.simulator import RunningSimulator, running_simulator
from ml_service.adapters.comfyui import HttpComfyUI, HttpComfyUIConnector, Timeouts
from ml_service.adapters.comfyui.read_answers import (
    expecting_comfyui,
    explain_refusal,
    read_history,
    read_progress,
    read_queue,
)
from ml_service.domain.errors import (
    InstanceFaultyError,
    InstanceSilentError,
    InstanceUnreachableError,
    OutputMissingError,
)
from ml_service.domain.prompts import PromptState
from ml_service.domain.results import OutputFile, list_output_files
from ml_service.ports import MediaStream
from ml_service.services.observe_instances import ObserveInstances
from tests.contracts.comfyui_targets import (
    HASTY,
    ComfyUITarget,
    make_picture,
    make_prompt_id,
    read_output,
    wait_for,
    wait_until_running,
    wait_until_struck,
)
from tests.contracts.scripted_comfyui import ScriptedComfyUI, serving


@pytest.fixture(params=PROFILES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path, prompt_seconds=0.25, profile=request.param) as server:
        yield server


def connect(server: RunningSimulator) -> HttpComfyUI:
    return ComfyUITarget(server.address, server.port).connect(HASTY)


def runs_of(server: RunningSimulator, prompt_id: str) -> list[Run]:
    return [run for run in server.runs if run.prompt_id == prompt_id]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("slow-post", {"seconds": 1.0}, id="timed-out"),
        pytest.param("reset-after-accept", {}, id="reset"),
        pytest.param("reset-after-accept", {"times": 3}, id="reset-again-and-again"),
        pytest.param("error-after-accept", {}, id="status-500"),
    ],
)
def test_fault_14_a_prompt_that_was_queued_with_a_lost_answer_runs_once(
    server: RunningSimulator, kind: str, options: dict[str, Any]
):
    check_one_run_in_spite_of(server, kind, options)


@pytest.mark.parametrize("times", [1, 2])
def test_fault_15_a_prompt_whose_post_broke_before_it_was_queued_runs_once(
    server: RunningSimulator, times: int
):
    check_one_run_in_spite_of(server, "reset-before-accept", {"times": times})


def check_one_run_in_spite_of(server: RunningSimulator, kind: str, options: dict[str, Any]) -> None:
    comfyui, prompt_id = connect(server), make_prompt_id()
    fault = server.add_fault(kind, **options)
    comfyui.submit(prompt_id, make_picture())
    assert wait_for(comfyui, prompt_id).state is PromptState.SUCCEEDED
    assert next(f for f in server.faults if f["id"] == fault)["strikes"]
    (run,) = runs_of(server, prompt_id)
    assert (run.end, run.nodes) == ("success", 2)


def test_a_prompt_whose_server_restarted_after_its_post_runs_once_since_then(
    server: RunningSimulator,
):
    comfyui, prompt_id = connect(server), make_prompt_id()
    server.add_fault("restart", on="post")
    comfyui.submit(prompt_id, make_picture())
    assert wait_for(comfyui, prompt_id).state is PromptState.SUCCEEDED
    assert [run.start_number for run in runs_of(server, prompt_id) if run.end == "success"] == [2]
    assert len({run.start_number for run in runs_of(server, prompt_id)}) == len(
        runs_of(server, prompt_id)
    )


def test_a_second_copy_that_runs_gives_the_result(server: RunningSimulator):
    comfyui, prompt_id = connect(server), make_prompt_id()
    for _ in range(2):
        body = {"prompt": make_picture(), "prompt_id": prompt_id, "client_id": prompt_id}
        requests.post(f"{server.url}/prompt", json=body, timeout=5)
    outputs = wait_for(comfyui, prompt_id).outputs
    assert [run.end for run in runs_of(server, prompt_id)] == ["success"] * 2
    (file,) = list_output_files(outputs)
    assert file.filename.endswith("_00002_.png")


def test_a_second_copy_found_in_time_does_not_run(server: RunningSimulator):
    comfyui, prompt_id = connect(server), make_prompt_id()
    for _ in range(3):
        body = {"prompt": make_picture(), "prompt_id": prompt_id, "client_id": prompt_id}
        requests.post(f"{server.url}/prompt", json=body, timeout=5)
    wait_until_running(comfyui, prompt_id)
    assert comfyui.find(prompt_id).copies == 3
    comfyui.drop_copies(prompt_id)
    assert wait_for(comfyui, prompt_id).state is PromptState.SUCCEEDED
    assert len(runs_of(server, prompt_id)) == 1


def test_fault_18_every_prompt_of_a_restarted_server_is_unknown(server: RunningSimulator):
    comfyui = connect(server)
    ids = [make_prompt_id() for _ in range(9)]
    for prompt_id in ids:
        comfyui.submit(prompt_id, make_picture())
    wait_until_running(comfyui, ids[0])
    server.restart()
    assert {comfyui.find(prompt_id).state for prompt_id in ids} == {PromptState.UNKNOWN}


def test_fault_23_a_silent_instance_has_an_unknown_queue_not_an_empty_one(server: RunningSimulator):
    server.add_fault("stall", seconds=10)
    connector = HttpComfyUIConnector(port=server.port, timeouts=HASTY)
    started = time.monotonic()
    assert ObserveInstances(connector).observe([server.address]) == {server.address: None}
    assert time.monotonic() - started < 5


def test_fault_24_a_look_waits_for_a_server_that_is_slow(server: RunningSimulator):
    server.add_fault("stall", seconds=0.7)
    patient = ComfyUITarget(server.address, server.port).connect()
    assert patient.find(make_prompt_id()).state is PromptState.UNKNOWN


def test_fault_27_a_listed_file_that_is_not_there_is_missing(server: RunningSimulator):
    comfyui, prompt_id = connect(server), make_prompt_id()
    server.add_fault("missing-output")
    comfyui.submit(prompt_id, make_picture())
    (file,) = list_output_files(wait_for(comfyui, prompt_id).outputs)
    with pytest.raises(OutputMissingError):
        read_output(comfyui, file)


def test_a_node_that_hangs_cannot_be_cancelled_and_that_is_told(server: RunningSimulator):
    comfyui, prompt_id = connect(server), make_prompt_id()
    server.add_fault("hang")
    comfyui.submit(prompt_id, make_picture())
    wait_until_struck(server)
    started = time.monotonic()
    assert not comfyui.cancel(prompt_id, seconds=0.5)
    assert time.monotonic() - started < 5


@dataclass
class _AcceptsLate(ScriptedComfyUI):
    """Takes the first POST in together with the second, when nobody expects it any more."""

    starts: bool = False
    posts: int = 0

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) != ("POST", "/prompt"):
            return super().answer(method, path, body)
        self.posts += 1
        if self.posts == 1:
            time.sleep(HASTY.submit + 0.1)
            return 200, b""
        (self.running if self.starts else self.pending).append(body["prompt_id"])
        return super().answer(method, path, body)


@pytest.mark.parametrize("starts", [False, True], ids=["both wait", "one runs"])
def test_of_two_copies_one_is_left(starts: bool):
    comfyui, prompt_id = _AcceptsLate(starts=starts), make_prompt_id()
    with serving(comfyui) as target:
        target.connect(HASTY).submit(prompt_id, make_picture())
    assert comfyui.posts == 2
    assert (comfyui.running, comfyui.pending) == (
        ([prompt_id], []) if starts else ([], [prompt_id])
    )


class _SilentAfterPost(ScriptedComfyUI):
    """As a server that begins to load a model: neither POST nor the next look is answered."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        answer = super().answer(method, path, body)
        if self.calls.count("POST /prompt") and len(self.calls) <= 4:
            time.sleep(HASTY.command + 0.1)
        return answer


def test_a_prompt_is_looked_for_again_when_the_first_look_was_not_answered():
    comfyui, prompt_id = _SilentAfterPost(), make_prompt_id()
    with serving(comfyui) as target:
        target.connect(HASTY).submit(prompt_id, make_picture())
    assert comfyui.pending == [prompt_id]
    assert comfyui.calls.count("POST /prompt") == 1


class _NeverAccepts(ScriptedComfyUI):
    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) == ("POST", "/prompt"):
            return 500, b"500 Internal Server Error"
        return super().answer(method, path, body)


def test_posting_ends_after_three_times():
    comfyui = _NeverAccepts()
    with serving(comfyui) as target, pytest.raises(InstanceUnreachableError, match="status 500"):
        target.connect(HASTY).submit(make_prompt_id(), make_picture())
    assert comfyui.calls.count("POST /prompt") == 3


class _EndsBetweenTwoCalls(ScriptedComfyUI):
    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        answer = super().answer(method, path, body)
        while self.running:
            self.end(self.running.pop())
        return answer


def test_fault_17_a_prompt_that_ends_between_the_calls_of_a_look_is_seen():
    prompt_id = make_prompt_id()
    with serving(_EndsBetweenTwoCalls(running=[prompt_id])) as target:
        states = [target.connect(HASTY).find(prompt_id).state for _ in range(2)]
    assert states == [PromptState.RUNNING, PromptState.SUCCEEDED]


class _NamesPromptsItself(ScriptedComfyUI):
    """As ComfyUI before 0.3.45."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) == ("POST", "/prompt"):
            body = body | {"prompt_id": "its-own"}
        return super().answer(method, path, body)


def test_a_server_that_names_prompts_itself_is_of_no_use_and_keeps_none():
    comfyui = _NamesPromptsItself()
    with serving(comfyui) as target, pytest.raises(InstanceFaultyError):
        target.connect(HASTY).submit(make_prompt_id(), make_picture())
    assert comfyui.pending == []


class _RegistersAssets(ScriptedComfyUI):
    """As newer versions that keep an index of their files."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        status, answer = super().answer(method, path, body)
        if path == "/upload/image":
            answer = answer | {"name": "a (1).png", "asset": {"id": "x", "name": "a.png"}}
        return status, answer


def test_an_upload_has_the_name_of_its_file_whatever_else_is_answered():
    with serving(_RegistersAssets()) as target:
        name = target.connect(HASTY).upload("a.png", MediaStream(io.BytesIO(b"x"), 1))
    assert name == "a (1).png"


@dataclass
class _Answers(ScriptedComfyUI):
    """Gives one answer to everything."""

    status: int = 200
    body: Any = b""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        return self.status, self.body


CALLS: dict[str, Callable[[HttpComfyUI], object]] = {
    "count_prompts": lambda comfyui: comfyui.count_prompts(),
    "find": lambda comfyui: comfyui.find(make_prompt_id()),
    "submit": lambda comfyui: comfyui.submit(make_prompt_id(), make_picture()),
    "cancel": lambda comfyui: comfyui.cancel(make_prompt_id(), seconds=0),
    "drop_copies": lambda comfyui: comfyui.drop_copies(make_prompt_id()),
    "forget": lambda comfyui: comfyui.forget(make_prompt_id()),
    "withdraw": lambda comfyui: comfyui.withdraw(make_prompt_id()),
    "upload": lambda comfyui: comfyui.upload("a.png", MediaStream(io.BytesIO(b"x"), 1)),
    "open_output": lambda comfyui: read_output(comfyui, OutputFile(filename="a.png")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_server_that_fails_may_be_asked_again_later(call: Callable[[HttpComfyUI], object]):
    with serving(_Answers(status=500)) as target, pytest.raises(InstanceUnreachableError):
        call(target.connect(HASTY))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_server_that_is_not_there_is_unreachable(call: Callable[[HttpComfyUI], object]):
    with pytest.raises(InstanceUnreachableError):
        call(HttpComfyUI("127.0.0.1:9", HASTY))


@contextmanager
def listening_in_silence(*, accepts: bool) -> Iterator[str]:
    """A port on which connections are accepted but never answered, or not even accepted."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        if accepts:
            listener.listen(100)
        else:  # what is in the backlog blocks what comes after it
            stack.enter_context(socket.create_connection(listener.getsockname()))
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_call_ends_in_time_when_there_is_no_answer(call: Callable[[HttpComfyUI], object]):
    timeouts = Timeouts(connect=9, probe=0.2, command=0.2, submit=0.2, doubt=0.1, transfer=0.2)
    with listening_in_silence(accepts=True) as host:
        started = time.monotonic()
        with pytest.raises(InstanceSilentError):
            call(HttpComfyUI(host, timeouts))
    assert 0.2 <= time.monotonic() - started < 5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what they cannot accept")
def test_each_call_ends_in_time_when_there_is_no_connection():
    timeouts = replace(HASTY, connect=0.1, probe=0.1, command=9, submit=9, transfer=9)
    with listening_in_silence(accepts=False) as host:
        for call in CALLS.values():
            started = time.monotonic()
            with pytest.raises(InstanceUnreachableError) as raised:
                call(HttpComfyUI(host, timeouts))
            # Nobody took the request, so this is no server that is merely busy.
            assert raised.type is InstanceUnreachableError
            assert time.monotonic() - started < 5


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_no_comfyui_is_faulty(call: Callable[[HttpComfyUI], object]):
    with serving(_Answers(status=301)) as target, pytest.raises(InstanceFaultyError):
        call(target.connect(HASTY))


@pytest.mark.parametrize(
    "body", [b"<html>", [], {}, {"exec_info": 1}, {"queue_running": [7], "queue_pending": []}]
)
@pytest.mark.parametrize("name", ["count_prompts", "find", "submit", "cancel"])
def test_an_answer_of_another_form_is_faulty(name: str, body: Any):
    with serving(_Answers(body=body)) as target, pytest.raises(InstanceFaultyError):
        CALLS[name](target.connect(HASTY))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "queue_running",
                    "queue_pending",
                    "p",
                    "status",
                    "status_str",
                    "messages",
                    "outputs",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(answer=JSON)
@pytest.mark.parametrize(
    "read",
    [
        lambda answer: read_queue(answer, "p"),
        lambda answer: read_history(answer, "p"),
        lambda answer: explain_refusal(answer, 400),
        read_progress,
    ],
    ids=["queue", "history", "refusal", "progress"],
)
def test_whatever_a_server_answers_is_understood_or_faulty(
    read: Callable[[Any], object], answer: Any
):
    with suppress(InstanceFaultyError), expecting_comfyui("GET /"):
        read(answer)


@dataclass
class _FailsFirst(ScriptedComfyUI):
    fails: int = 2

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if len(self.calls) <= self.fails:
            return 500, b""
        return super().answer(method, path, body)


def test_a_look_is_tried_three_times():
    comfyui = _FailsFirst(fails=2)
    with serving(comfyui) as target:
        assert target.connect(HASTY).find(make_prompt_id()).state is PromptState.UNKNOWN
    assert comfyui.calls[:3] == ["GET /queue"] * 3


def test_a_silent_look_is_not_repeated():
    comfyui = _SilentAfterPost(calls=["POST /prompt"])
    with serving(comfyui) as target, pytest.raises(InstanceSilentError):
        target.connect(HASTY).find(make_prompt_id())
    assert comfyui.calls[1:] == ["GET /queue"]


def test_a_forget_that_failed_is_not_repeated():
    comfyui = _FailsFirst(fails=1)
    with serving(comfyui) as target, pytest.raises(InstanceUnreachableError):
        target.connect(HASTY).forget(make_prompt_id())
    assert comfyui.calls == ["POST /history"]


def test_cancelling_goes_on_where_the_server_failed():
    prompt_id = make_prompt_id()
    with serving(_FailsFirst(fails=2, pending=[prompt_id])) as target:
        assert target.connect(HASTY).cancel(prompt_id, seconds=5)


@pytest.mark.parametrize("status", [404, 405])
def test_a_cancel_route_that_is_not_there_is_asked_for_once(status: int):
    class Answers(ScriptedComfyUI):
        def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
            if path.startswith("/api/"):
                return status, b""
            return super().answer(method, path, body)

    comfyui, ids = Answers(), [make_prompt_id() for _ in range(2)]
    comfyui.pending += ids
    with serving(comfyui) as target:
        client = target.connect(HASTY)
        assert all(client.cancel(prompt_id, seconds=1) for prompt_id in ids)
    assert sum("/api/jobs/" in call for call in comfyui.calls) == 1
    assert comfyui.pending == []


def test_the_cancel_route_is_enough_where_there_is_one():
    running, waiting = make_prompt_id(), make_prompt_id()
    comfyui = ScriptedComfyUI(has_cancel_route=True, running=[running], pending=[waiting])
    with serving(comfyui) as target:
        client = target.connect(HASTY)
        assert all(client.cancel(prompt_id, seconds=1) for prompt_id in (running, waiting))
    assert {call for call in comfyui.calls if call.startswith("POST")} == {
        f"POST /api/jobs/{running}/cancel",
        f"POST /api/jobs/{waiting}/cancel",
    }


@dataclass
class _LosesInterrupts(ScriptedComfyUI):
    """As ComfyUI just before a prompt starts."""

    loses: int = 2

    def interrupt(self, prompt_id: str) -> None:
        if self.calls.count("POST /interrupt") > self.loses:
            super().interrupt(prompt_id)


def test_a_lost_interrupt_is_repeated():
    prompt_id = make_prompt_id()
    comfyui = _LosesInterrupts(running=[prompt_id])
    with serving(comfyui) as target:
        assert target.connect(HASTY).cancel(prompt_id, seconds=5)
    assert comfyui.calls.count("POST /interrupt") == 3


def test_a_waiting_prompt_is_withdrawn_and_a_running_one_is_left_alone(server: RunningSimulator):
    comfyui = HttpComfyUIConnector(port=server.port).connect(server.address)
    server.add_fault("hang", seconds=1)
    running, waiting = make_prompt_id(), make_prompt_id()
    for prompt_id in (running, waiting):
        comfyui.submit(prompt_id, make_picture())
    wait_until_running(comfyui, running)
    assert comfyui.withdraw(waiting)
    assert comfyui.find(waiting).state is PromptState.UNKNOWN
    assert not comfyui.withdraw(running)
    assert comfyui.find(running).state is PromptState.RUNNING


@pytest.mark.parametrize("has_cancel_route", [False, True])
def test_fault_37_no_method_makes_a_global_call(has_cancel_route: bool):
    used = {name for name in vars(HttpComfyUI) if not name.startswith("_")}
    assert used == CALLS.keys() | {"watch"}, "a new method belongs into this test"
    prompt_id, other = make_prompt_id(), make_prompt_id()
    for running, pending in ([], []), ([other], [prompt_id]), ([prompt_id], [prompt_id, other]):
        comfyui = ScriptedComfyUI(has_cancel_route, pending=pending, running=running)
        with serving(comfyui) as target:
            client = target.connect(HASTY)
            for call in CALLS.values():
                call(client)
            client.drop_copies(prompt_id)
            client.submit(prompt_id, make_picture())
            client.cancel(prompt_id, seconds=1)
            client.withdraw(prompt_id)
            client.forget(prompt_id)
            with client.watch(prompt_id) as watch:
                watch.wait(0.01)
        assert comfyui.global_calls == []
        assert other in [*comfyui.running, *comfyui.pending] or not running
        assert any(call.startswith("POST /api/jobs/") for call in comfyui.calls)


@settings(max_examples=50)
@given(prompt_id=st.just("") | st.text() | st.uuids().map(lambda key: str(key).upper()))
def test_fault_37_what_is_no_prompt_id_is_never_sent(prompt_id: str):
    client = HttpComfyUI("127.0.0.1:9", HASTY)
    assume(not _is_canonical(prompt_id))
    for call in (
        lambda: client.find(prompt_id),
        lambda: client.submit(prompt_id, {}),
        lambda: client.drop_copies(prompt_id),
        lambda: client.cancel(prompt_id, seconds=0),
        lambda: client.forget(prompt_id),
        lambda: client.withdraw(prompt_id),
        lambda: client.watch(prompt_id).__enter__(),
    ):
        with pytest.raises(ValueError, match="UUID"):
            call()


def _is_canonical(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None
