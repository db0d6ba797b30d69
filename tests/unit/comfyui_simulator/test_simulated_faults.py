import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from local import local_mode
from local.cli import app
from local.comfyui.faults import Fault, FaultBoard, FaultError, FaultKind, Occasion, parse_fault
from local.comfyui.simulated_server import ComfyUiSimulator
from local.comfyui.simulator import RunningSimulator, running_simulator
from local.local_mode import LocalOptions, choose_settings
from tests.contracts.comfyui_targets import wait_until_struck
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient, picture_graph

FAULTS = "/_simulator/faults"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path, prompt_seconds=0.2) as server:
        yield server


@pytest.fixture
def client(server: RunningSimulator) -> SimulatorClient:
    return SimulatorClient(server.url)


@contextmanager
def seconds_taken(least: float, most: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started < most


def ended_with(entry: dict[str, Any]) -> tuple[str, str]:
    event, data = entry["status"]["messages"][-1]
    return event, data.get("exception_type", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oom", {"on": "prompt", "times": 1, "probability": 1.0, "seconds": None}),
        ("oom:times=2", {"times": 2}),
        ("oom:times=always", {"times": None}),
        ("oom:probability=0.25,seed=7", {"times": None, "probability": 0.25, "seed": 7}),
        ("oom:probability=0.25,times=3", {"times": 3}),
        ("black-hole", {"times": None}),
        ("silent-websocket", {"on": "websocket", "times": None}),
        ("stall", {"on": "request", "seconds": 5.0}),
        ("stall: on=prompt , seconds=0.5", {"on": "prompt", "seconds": 0.5}),
        ("exit", {"on": "prompt", "seconds": None}),
        ("restart:on=post", {"on": "post", "seconds": 0.0}),
    ],
)
def test_a_fault_is_read_from_a_text(text: str, expected: dict[str, Any]) -> None:
    described = parse_fault(text).model_dump()

    assert {key: described[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "kind must be exception, oom, .* or silent-websocket, not 'nonsense'"),
        ("", "kind must be"),
        ("oom:times", "is not KIND"),
        ("oom:times=1,times=2", "'times' stands twice"),
        ("oom:times=0", "times: .* greater than or equal to 1"),
        ("oom:probability=0", "probability: "),
        ("oom:probability=2", "probability: "),
        ("oom:often=2", "there is no option 'often', only on, probability, seed, seconds, times"),
        ("oom:seconds=2", "oom takes no seconds"),
        ("oom:on=request", "on must be prompt for oom"),
        ("exit:on=websocket", "on must be prompt, post or request for exit"),
    ],
)
def test_a_fault_without_meaning_is_refused_with_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(FaultError, match=reason):
        parse_fault(text)


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_can_be_switched_on_by_its_name_alone(kind: str) -> None:
    fault = parse_fault(kind)

    assert FaultBoard.of([fault]).take(fault.on) == fault


def test_readme_describes_every_kind() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()

    assert [kind for kind in FaultKind if f"`{kind}`" not in readme] == []


def test_a_seeded_fault_strikes_the_same_occasions_again() -> None:
    fault = Fault(kind=FaultKind.OOM, probability=0.3, seed=5)
    boards = FaultBoard.of([fault]), FaultBoard.of([fault])
    struck = [[board.take(Occasion.PROMPT) is not None for _ in range(100)] for board in boards]

    assert struck[0] == struck[1]
    assert 10 < sum(struck[0]) < 60


def test_a_fault_strikes_as_often_as_it_was_asked_to() -> None:
    board = FaultBoard.of([parse_fault("oom:times=2"), parse_fault("hang")])
    kinds = [board.take(Occasion.PROMPT) for _ in range(4)]

    assert [fault and fault.kind for fault in kinds] == ["oom", "oom", "hang", None]
    assert [fault["strikes"] for fault in board.list()] == [2, 1]


def test_in_local_mode_shared_faults_spare_a_servers_first_prompt(tmp_path: Path) -> None:
    settings = choose_settings("pulid", LocalOptions(faults={"pulid": (parse_fault("exception"),)}))
    server = ComfyUiSimulator(tmp_path, settings)
    assert server.faults.take(Occasion.PROMPT) is None
    server.runs.end(server.runs.begin("a warm-up"), "success", 2)
    struck = server.faults.take(Occasion.PROMPT)
    assert struck is not None
    assert struck.kind is FaultKind.EXCEPTION


def test_a_shared_fault_strikes_once_for_all_and_an_own_one_first() -> None:
    shared = FaultBoard.of([parse_fault("oom")])
    one, other = FaultBoard(shared), FaultBoard(shared)
    one.add(parse_fault("hang"))
    kinds = [board.take(Occasion.PROMPT) for board in (one, other, one, other)]

    assert [fault and fault.kind for fault in kinds] == ["hang", "oom", None, None]
    assert [fault["kind"] for fault in one.list()] == ["hang", "oom"]
    assert [fault["kind"] for fault in other.list()] == ["oom"]
    one.clear()
    assert other.list() == []


def test_faults_are_switched_by_the_admin_endpoint(client: SimulatorClient) -> None:
    first = client.post(FAULTS, {"kind": "oom", "times": 3})
    second = client.post(FAULTS, {"kind": "hang"})

    assert (first.status_code, first.json()["times"]) == (201, 3)
    assert first.json()["id"] != second.json()["id"]
    assert client.request("DELETE", f"{FAULTS}/{second.json()['id']}").status_code == 204
    assert [fault["kind"] for fault in client.get(FAULTS).json()["faults"]] == ["oom"]
    assert client.request("DELETE", FAULTS).status_code == 204
    assert client.get(FAULTS).json() == {"faults": []}


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"data": b"{"}, "the body is not JSON"),
        ({"json": {"kind": "x"}}, "kind must be exception, "),
        ({"json": []}, "valid dictionary"),
        ({"json": {"kind": "oom", "times": "x"}}, "times: "),
    ],
)
def test_the_admin_endpoint_says_what_is_wrong(
    client: SimulatorClient, sent: dict[str, Any], reason: str
) -> None:
    answer = client.request("POST", FAULTS, **sent)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_an_unknown_fault_cannot_be_removed(client: SimulatorClient) -> None:
    assert client.request("DELETE", f"{FAULTS}/unknown").status_code == 404


@pytest.mark.parametrize(
    ("kind", "exception_type"),
    [
        ("exception", "RuntimeError"),
        ("oom", "torch.OutOfMemoryError"),
        ("black-hole", "torch.AcceleratorError"),
    ],
)
def test_a_node_fails_and_the_server_lives(
    server: RunningSimulator, client: SimulatorClient, kind: str, exception_type: str
) -> None:
    server.add_fault(kind, times=1)

    assert ended_with(client.run(picture_graph())) == ("execution_error", exception_type)
    assert client.run(picture_graph())["status"]["completed"] is True
    assert [(run.end, run.nodes) for run in server.runs] == [("error", 0), ("success", 2)]


def test_a_black_hole_fails_every_prompt_long_before_its_time(tmp_path: Path) -> None:
    with running_simulator(tmp_path, prompt_seconds=30, faults=[parse_fault("black-hole")]) as it:
        client = SimulatorClient(it.url)
        for color in range(3):
            with seconds_taken(0, 5):
                assert client.run(picture_graph(color))["status"]["status_str"] == "error"


def test_a_fault_strikes_a_prompt_that_is_answered_from_the_cache(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    client.run(picture_graph())
    server.add_fault("oom")

    assert client.run(picture_graph())["status"]["status_str"] == "error"


def test_a_hung_prompt_is_deaf_to_interrupts_until_the_server_restarts(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("hang")
    prompt_id = client.submit(picture_graph())
    wait_until_struck(server)
    for _ in range(3):
        client.post("/interrupt", {"prompt_id": prompt_id})
        time.sleep(0.2)
    assert client.get("/queue").json()["queue_running"][0][1] == prompt_id

    server.restart()
    assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert client.run(picture_graph())["status"]["completed"] is True
    assert server.runs[0].end is None


def test_a_hang_may_end(server: RunningSimulator, client: SimulatorClient) -> None:
    server.add_fault("hang", seconds=0.5)

    with seconds_taken(0.5, 5):
        assert client.run(picture_graph())["status"]["completed"] is True


def test_a_dead_worker_keeps_its_prompt_in_the_queue_and_runs_nothing_more(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("worker-death")
    dead = client.submit(picture_graph(1))
    client.await_running(dead)
    waiting = client.submit(picture_graph(2))
    time.sleep(0.5)
    assert client.post("/interrupt", {"prompt_id": dead}).status_code == 200

    queue = client.get("/queue").json()
    assert [item[1] for item in queue["queue_running"]] == [dead]
    assert [item[1] for item in queue["queue_pending"]] == [waiting]
    assert client.get("/prompt").json()["exec_info"]["queue_remaining"] == 2
    assert client.get(f"/history/{dead}").json() == {}


def test_a_missing_output_is_listed_and_cannot_be_viewed(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("missing-output")
    entry = client.run(picture_graph())

    assert entry["status"]["completed"] is True
    assert client.get("/view", params=entry["outputs"]["2"]["images"][0]).status_code == 404


def test_a_server_that_exits_refuses_connections_and_can_come_back_empty(
    server: RunningSimulator, client: SimulatorClient, tmp_path: Path
) -> None:
    client.run(picture_graph(1), prompt_id="before")
    server.add_fault("exit")
    client.submit(picture_graph(2), prompt_id="lost")
    await_state(server, is_running=False)
    with pytest.raises(requests.ConnectionError):
        client.get("/prompt")

    server.come_back()
    assert client.get("/history").json() == {}
    entry = client.run(picture_graph(1), prompt_id="after")
    assert entry["prompt"][0] == 0
    assert entry["outputs"]["2"]["images"][0]["filename"] == "ml_00002_.png"
    assert [(run.prompt_id, run.start_number, run.end) for run in server.runs] == [
        ("before", 1, "success"),
        ("lost", 1, None),
        ("after", 2, "success"),
    ]


def await_state(server: RunningSimulator, *, is_running: bool) -> None:
    deadline = time.monotonic() + 5
    while server.is_running is not is_running:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_exit_with_seconds_comes_back_by_itself(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("exit", seconds=0.6, on="request")
    with pytest.raises(requests.ConnectionError):
        client.get("/prompt")
    await_state(server, is_running=False)

    with seconds_taken(0.2, 5):
        await_state(server, is_running=True)
    assert client.get("/prompt").json() == {"exec_info": {"queue_remaining": 0}}


def test_a_server_that_is_away_for_a_while_can_be_brought_back_and_stopped_before(
    tmp_path: Path,
) -> None:
    started = time.monotonic()
    with running_simulator(tmp_path) as server:
        for _ in range(2):
            server.add_fault("exit", seconds=30, on="request")
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{server.url}/prompt", timeout=5)
            await_state(server, is_running=False)
            server.come_back()
            server.come_back()
            assert requests.get(f"{server.url}/prompt", timeout=5).status_code == 200
        server.restart()

    assert time.monotonic() - started < 10


def test_a_restart_after_a_post_loses_the_prompt(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("restart", on="post")
    with pytest.raises(requests.ConnectionError):
        client.submit(picture_graph(), prompt_id="lost")
    await_answers(client)

    assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert client.get("/history/lost").json() == {}


def await_answers(client: SimulatorClient) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            client.get("/prompt")
        except requests.ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the server did not come back")


def test_a_stall_holds_every_answer_back(server: RunningSimulator, client: SimulatorClient) -> None:
    server.add_fault("stall", seconds=1)

    with seconds_taken(1, 5):
        assert client.get("/system_stats").status_code == 200
    with seconds_taken(0, 1):
        client.get("/prompt")


def test_the_admin_endpoint_answers_in_a_stall(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("stall", seconds=30)
    with pytest.raises(requests.Timeout):
        requests.get(f"{server.url}/prompt", timeout=0.1)

    with seconds_taken(0, 5):
        assert client.get(FAULTS).json()["faults"][0]["strikes"] == 1


def test_a_node_that_holds_the_interpreter_stalls_answers(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("stall", on="prompt", seconds=0.8)
    with client.events("me") as events:
        submitted = time.monotonic()
        prompt_id = client.submit(picture_graph(), client_id="me")
        time.sleep(0.2)
        # This one question is not answered before the stall is over.
        assert client.get(f"/history/{prompt_id}").status_code == 200
        assert time.monotonic() - submitted > 0.7
        events.read_until_done(prompt_id)
    assert client.await_history(prompt_id)["status"]["completed"] is True


def test_a_stall_holds_messages_back_too(server: RunningSimulator, client: SimulatorClient) -> None:
    with client.events("me") as events:
        prompt_id = client.submit(picture_graph(), client_id="me")
        server.add_fault("stall", seconds=0.8)
        started = time.monotonic()
        with pytest.raises(requests.Timeout):
            requests.get(f"{server.url}/prompt", timeout=0.1)
        events.read_until_done(prompt_id)

        assert time.monotonic() - started > 0.7
        assert server.runs[0].end == "success"


def test_a_slow_post_is_accepted_at_once_and_answered_late(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("slow-post", seconds=10)
    with pytest.raises(requests.Timeout):
        requests.post(
            f"{server.url}/prompt",
            json={"prompt": picture_graph(), "prompt_id": "slow"},
            timeout=0.3,
        )

    assert client.await_history("slow", 5)["status"]["completed"] is True


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt"])
@pytest.mark.parametrize(
    ("kind", "is_queued"), [("reset-before-accept", False), ("reset-after-accept", True)]
)
def test_a_post_is_reset_before_or_after_the_prompt_was_queued(
    server: RunningSimulator, client: SimulatorClient, kind: str, is_queued: bool, path: str
) -> None:
    server.add_fault(kind)
    with pytest.raises(requests.ConnectionError):
        client.post(path, {"prompt": picture_graph(), "prompt_id": "mine"})

    assert client.get("/prompt").json()["exec_info"]["queue_remaining"] == is_queued


def test_a_post_can_fail_after_the_prompt_was_queued(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("error-after-accept")
    answer = client.post("/prompt", {"prompt": picture_graph(), "prompt_id": "mine"})

    assert answer.status_code == 500
    assert answer.text == "500 Internal Server Error\n\nServer got itself in trouble"
    assert client.await_history("mine")["status"]["completed"] is True


def test_a_refused_post_does_not_use_a_fault_up(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    server.add_fault("error-after-accept")
    client.post("/prompt", {"prompt": {}})

    assert server.faults[0]["strikes"] == 0


def test_a_silent_websocket_greets_and_says_nothing_more(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    fault_id = server.add_fault("silent-websocket")
    with client.events("me") as events:
        assert events.read()["data"]["sid"] == "me"
        client.run(picture_graph(1), client_id="me")
        assert events.is_silent(0.1)
    server.remove_fault(fault_id)
    with client.events("me") as events:
        events.read_until_done(client.submit(picture_graph(2), client_id="me"))


def test_runs_are_listed_by_the_admin_endpoint(client: SimulatorClient) -> None:
    began = time.time()
    client.run(picture_graph(), prompt_id="mine")

    (run,) = client.get("/_simulator/runs").json()["runs"]
    assert began < run.pop("ended_at") < time.time()
    assert run == {"prompt_id": "mine", "start_number": 1, "end": "success", "nodes": 2}


def test_a_cached_run_is_told_from_a_second_one_that_computed(
    server: RunningSimulator, client: SimulatorClient
) -> None:
    client.run(picture_graph())
    client.run(picture_graph())

    assert [run.nodes for run in server.runs] == [2, 0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["comfyui", "--fault", "nonsense"], "kind must be exception"),
        (["local", "--fault", "lip-sync:nonsense"], "kind must be exception"),
        (
            ["local", "--comfyui", "pulid=h:1", "--fault", "pulid:oom"],
            "the servers of pulid are real",
        ),
        (["local", "--fault", "nowhere:hang"], "neither a fleet (lip-sync, pulid, makeup) nor"),
    ],
)
def test_the_command_line_refuses_an_unknown_fault(arguments: list[str], reason: str) -> None:
    done = CliRunner(env={"COLUMNS": "500"}).invoke(app, arguments)

    assert done.exit_code == 2
    assert reason in done.stderr


def test_local_mode_gives_each_fleet_its_own_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[LocalOptions] = []

    def run_local(options: LocalOptions) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr(local_mode, "run_local", run_local)
    arguments = ["--fault", "lip-sync:hang:seconds=3", "--fault", "oom:times=2"]
    done = CliRunner().invoke(app, ["local", *arguments, "--profile", "0.38", "--seed", "4"])

    assert done.exit_code == 0, done.output
    (options,) = asked
    settings = {fleet: choose_settings(fleet, options) for fleet in ("lip-sync", "pulid")}
    kinds = {fleet: [fault["kind"] for fault in it.faults.list()] for fleet, it in settings.items()}
    assert kinds == {"lip-sync": ["hang", "oom"], "pulid": ["oom"]}
    assert settings["pulid"].profile.name == "0.38"
    assert settings["pulid"].durations.seed == 4


def test_a_taken_port_is_one_line(server: RunningSimulator, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local.cli", "comfyui", "--port", str(server.port)]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"ml-service: cannot listen on 127.0.0.1:{server.port}: ")
    assert done.stderr.count("\n") == 1


def test_a_server_alone_ends_with_an_error_status_when_it_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local.cli", "comfyui", "--port", "0"]
    done = subprocess.Popen(
        [*command, "--directory", str(tmp_path), "--fault", "exit:on=request"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with done:
        assert done.stdout is not None
        address = done.stdout.readline().split()[-1]
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{address}/prompt", timeout=5)
        assert done.wait(10) == 137
