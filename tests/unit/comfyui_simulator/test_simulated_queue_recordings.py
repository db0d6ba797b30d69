"""Replays what was recorded of a busy server: queues, cancelling, duplicates, reconnecting."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.recorded_nodes import make_recorded_nodes
from tests.unit.comfyui_simulator.recordings import (
    assert_same_answer,
    comparable,
    comparable_history,
    needs_recordings,
    recording,
)
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient, node, picture_graph

pytestmark = needs_recordings


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SimulatorClient]:
    with running_simulator(tmp_path, custom_nodes=make_recorded_nodes()) as server:
        yield SimulatorClient(server.url)


def count_to(client: SimulatorClient, number: int) -> None:
    """Let the next prompt have this number, as the recorded one: refused prompts count."""
    for _ in range(number):
        client.post("/prompt", {"prompt": {}})


def submit_item(client: SimulatorClient, item: list[Any], **body: Any) -> None:
    """Post what a recorded queue lists, under its id."""
    _, prompt_id, prompt, extra_data, _ = item
    extra = {key: extra_data[key] for key in extra_data if key not in ("client_id", "create_time")}
    client_id = extra_data["client_id"]
    client.submit(prompt, prompt_id=prompt_id, client_id=client_id, extra_data=extra, **body)


def replay(client: SimulatorClient, *names: str) -> None:
    """Ask what was recorded, and compare the answers."""
    for name in names:
        recorded = recording(name)
        request = recorded["request"]
        answer = client.request(request["method"], request["path"], json=request["json"])
        assert_same_answer(answer, recorded)


@pytest.fixture
def unhurried_client(tmp_path: Path) -> Iterator[SimulatorClient]:
    """A client of a server whose first recorded prompt outlasts all that is asked meanwhile."""
    with running_simulator(tmp_path, custom_nodes=make_recorded_nodes(speed=1)) as server:
        yield SimulatorClient(server.url)


def test_a_busy_queue_is_listed_changed_and_worked_off_as_recorded(
    unhurried_client: SimulatorClient,
) -> None:
    client = unhurried_client
    queue = recording("queue_running_and_pending")["body"]
    (running,) = queue["queue_running"]
    pending = {item[0]: item for item in queue["queue_pending"]}
    count_to(client, running[0])
    with client.events("qclient") as events:
        submit_item(client, running)
        messages = [events.read()]
        while messages[-1]["data"].get("node") != "2":
            messages.append(events.read())
        fill_queue(client, pending)
        replay(client, "prompt_get_busy", "queue_running_and_pending", "api_job_pending")
        # What had ended before the queue was recorded is not among the simulator's jobs.
        listed = recording("api_jobs_busy")["body"]["jobs"]
        waiting = [job for job in listed if job["status"] in ("pending", "in_progress")]
        assert sorted_jobs(client.get("/api/jobs").json()["jobs"]) == sorted_jobs(waiting)
        replay(client, "queue_delete", "history_of_deleted", "queue_delete_running")
        replay(client, "queue_delete_unknown", "interrupt_wrong_id", "interrupt_targeted")
        messages += events.read_until_done(pending[60][1])

    recorded = recording("ws_queue_ops")
    # The recorded server had written six files of this name before.
    renamed = {f"v_{number + 6:05}_.png": f"v_{number:05}_.png" for number in range(1, 6)}
    assert comparable(without_progress(messages)) == comparable(without_progress(recorded), renamed)
    entry = client.await_history(running[1])
    (expected,) = recording("history_interrupted").values()
    assert comparable_history(entry, {}) == comparable_history(expected, {})
    job = client.get(f"/api/jobs/{running[1]}").json()
    assert comparable(job) == comparable(recording("api_job_cancelled")["body"])


def fill_queue(client: SimulatorClient, pending: dict[float, list[Any]]) -> None:
    for number in (57, 58, 59, 60):
        submit_item(client, pending[number])
    submit_item(client, pending[-61], front=True)
    submit_item(client, pending[-1000.0], number=-1000)


def without_progress(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what depends on the moment; the progress of single prompts is compared elsewhere."""
    return [item for item in messages if item["type"] not in ("progress", "progress_state")]


def sorted_jobs(jobs: list[dict[str, Any]]) -> Any:
    """Bring jobs that were posted within a millisecond into one order."""
    return sorted((comparable(job) for job in jobs), key=lambda job: str(job["id"]))


@pytest.mark.parametrize("name", ["prompt_front", "prompt_number"])
def test_a_chosen_place_in_the_queue_is_answered_as_recorded(
    client: SimulatorClient, name: str
) -> None:
    recorded = recording(name)
    count_to(client, 61)
    answer = client.post("/prompt", recorded["request"]["json"])

    assert answer.json()["number"] == recorded["body"]["number"]
    assert_same_answer(answer, recorded)


def test_an_id_that_is_posted_twice_is_queued_and_kept_as_recorded(
    client: SimulatorClient,
) -> None:
    queue = recording("queue_duplicate_id")["body"]
    first, second = queue["queue_running"] + queue["queue_pending"]
    posted = recording("prompt_duplicate_id_second")
    count_to(client, first[0])
    submit_item(client, first)
    client.await_running(first[1])
    answer = client.post("/prompt", posted["request"]["json"])
    assert_same_answer(answer, posted)
    assert answer.json()["number"] == second[0]
    replay(client, "queue_duplicate_id")

    deadline = time.monotonic() + 10
    while client.get("/prompt").json()["exec_info"]["queue_remaining"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    expected = recording("history_duplicate_id")["body"][first[1]]
    entry = client.await_history(first[1])
    # The recorded server had written more files of this name before.
    expected["outputs"]["3"]["images"][0]["filename"] = "v_00002_.png"
    assert comparable_history(entry, {}) == comparable_history(expected, {})


def test_one_number_and_id_posted_twice_are_answered_as_recorded(client: SimulatorClient) -> None:
    recorded = recording("prompt_same_number_same_id")
    body = recorded["request"]["json"]
    blocker = {**body["prompt"], "2": node("MLSleep", **sleeping(4.0, 40))}
    client.await_running(client.submit(blocker))
    client.post("/prompt", body)

    assert_same_answer(client.post("/prompt", body | {"prompt": blocker}), recorded)


def sleeping(seconds: float, steps: int) -> dict[str, Any]:
    return {"image": ["1", 0], "seconds": seconds, "steps": steps, "seed": 1, "preview": False}


def test_failed_jobs_are_listed_as_recorded(client: SimulatorClient) -> None:
    listed = recording("api_jobs_failed")["body"]["jobs"]
    count_to(client, 15)
    for job in reversed(listed):
        entry = next(iter(recording(history_of(job)).values()))
        submit_item(client, entry["prompt"])
        client.await_history(job["id"])
    answer = client.get("/api/jobs?status=failed").json()

    assert answer["pagination"] == recording("api_jobs_failed")["body"]["pagination"]
    assert comparable(answer["jobs"]) == comparable(listed)


def history_of(job: dict[str, Any]) -> str:
    names = {15: "exception_1", 16: "oom_1", 17: "oom_stock_1", 18: "partial_1", 19: "partial_2"}
    return f"history_fail_{names[job['priority']]}"


def test_a_client_that_reconnects_is_told_the_rest_as_recorded(client: SimulatorClient) -> None:
    before, after = recording("ws_reconnect_before"), recording("ws_reconnect_after")
    graph = picture_graph(color=0, prefix="v") | {"2": node("MLSleep", **sleeping(3.0, 30))}
    graph["3"] = node("SaveImage", images=["2", 0], filename_prefix="v")
    with client.events("recon") as events:
        first = [events.read()]
        prompt_id = client.submit(graph, client_id="recon")
        first += [events.read() for _ in range(len(before) - 1)]
    # The server must have seen the end of the first connection, or it would drop the second.
    time.sleep(0.05)
    with client.events("recon") as events:
        second = events.read_until_done(prompt_id)

    renamed = {
        prompt_id: "id",
        before[3]["data"]["prompt_id"]: "id",
        "v_00013_.png": "v_00001_.png",
    }
    assert comparable(first, renamed) == comparable(before, renamed)
    assert comparable(second[:2], renamed) == comparable(after[:2], renamed)
    # Between them lies the progress since then, which depends on the moment.
    assert comparable(second[-10:], renamed) == comparable(after[-10:], renamed)


def test_the_other_client_of_any_prompt_sees_what_was_recorded(client: SimulatorClient) -> None:
    recorded = recording("ws_load_scale_invert_1_other_client")
    with client.events(recorded[0]["data"]["sid"]) as events:
        received = [events.read()]
        client.submit(picture_graph(), client_id="another")
        received += [events.read() for _ in recorded[1:]]

    assert received == recorded


@pytest.mark.parametrize(("name", "subfolder"), [("view_input", ""), ("view_subfolder", "t/j")])
def test_an_uploaded_picture_is_viewed_as_recorded(
    client: SimulatorClient, name: str, subfolder: str
) -> None:
    recorded = recording(name)
    content = recorded["body"].encode("latin-1")
    file_name = {"": "a38762.png", "t/j": "b38762.png"}[subfolder]
    client.upload(file_name, content, subfolder=subfolder)
    answer = client.get(recorded["request"]["path"])

    assert answer.status_code == recorded["status"]
    assert answer.content == content
    for header, value in recorded["headers"].items():
        assert answer.headers[header] == value, header
