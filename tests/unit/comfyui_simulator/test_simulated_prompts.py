import time
from pathlib import Path
from typing import Any

import pytest

from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.simulator_client import (
    SimulatorClient,
    node,
    picture_graph,
)


def test_a_prompt_runs_and_its_history_lists_the_file(client: SimulatorClient) -> None:
    entry = client.run(picture_graph(), prompt_id="p1", extra_data={"my_tag": "x"})

    assert entry["outputs"] == {
        "2": {"images": [{"filename": "ml_00001_.png", "subfolder": "", "type": "output"}]}
    }
    number, prompt_id, prompt, extra_data, outputs = entry["prompt"]
    assert (number, prompt_id, prompt, outputs) == (0, "p1", picture_graph(), ["2"])
    assert extra_data.keys() == {"my_tag", "client_id", "create_time"}
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    events = [event for event, _ in entry["status"]["messages"]]
    assert events == ["execution_start", "execution_cached", "execution_success"]
    assert entry["meta"]["2"]["display_node"] == "2"


def test_every_route_exists_under_api_too(client: SimulatorClient) -> None:
    prompt_id = client.post("/api/prompt", {"prompt": picture_graph()}).json()["prompt_id"]
    client.await_history(prompt_id)

    assert client.get("/api/prompt").json() == {"exec_info": {"queue_remaining": 0}}
    assert client.get(f"/api/history/{prompt_id}").json().keys() == {prompt_id}
    with client.events("me", "/api/ws") as events:
        assert events.read()["data"]["sid"] == "me"


@pytest.mark.parametrize(("sent", "used"), [("", ""), (None, "None"), (7, "7"), ("A/b", "A/b")])
def test_any_prompt_id_is_taken_as_text(client: SimulatorClient, sent: Any, used: str) -> None:
    answer = client.post("/prompt", {"prompt": picture_graph(), "prompt_id": sent}).json()

    assert answer["prompt_id"] == used


def test_values_are_converted_and_echoed(client: SimulatorClient) -> None:
    entry = client.run(picture_graph(width="64", color=7.9))

    assert entry["prompt"][2]["1"]["inputs"]["width"] == 64
    assert entry["prompt"][2]["1"]["inputs"]["color"] == 7


def test_refused_prompts_count_too(client: SimulatorClient) -> None:
    client.post("/prompt", {"prompt": {}})
    client.post("/prompt", [1])

    assert client.post("/prompt", {"prompt": picture_graph()}).json()["number"] == 2


def test_secrets_are_in_no_answer(client: SimulatorClient) -> None:
    prompt_id = client.submit(picture_graph(), extra_data={"api_key_comfy_org": "hidden"})
    entry = client.await_history(prompt_id)

    assert "api_key_comfy_org" not in entry["prompt"][3]
    assert "hidden" not in client.get(f"/api/jobs/{prompt_id}").text


def test_only_the_targets_of_a_partial_execution_run(client: SimulatorClient) -> None:
    graph = picture_graph() | {"3": node("PreviewImage", images=["1", 0])}
    entry = client.run(graph, partial_execution_targets=["3"])

    assert entry["outputs"].keys() == {"3"}
    assert entry["outputs"]["3"]["images"][0]["type"] == "temp"


def test_pending_prompts_run_by_number_and_leave_no_trace_when_deleted(
    blocked_client: SimulatorClient,
) -> None:
    blocker = blocked_client.submit(picture_graph(1), prompt_id="blocker")
    blocked_client.await_running(blocker)
    blocked_client.submit(picture_graph(2), prompt_id="second")
    blocked_client.submit(picture_graph(3), prompt_id="gone")
    blocked_client.submit(picture_graph(4), prompt_id="front", front=True)
    blocked_client.submit(picture_graph(5), prompt_id="first", number=-100)
    assert blocked_client.get("/prompt").json() == {"exec_info": {"queue_remaining": 5}}

    assert blocked_client.post("/queue", {"delete": ["gone", "blocker", "unknown"]}).text == ""
    queue = blocked_client.get("/queue").json()
    assert [item[1] for item in queue["queue_running"]] == ["blocker"]
    pending = sorted(queue["queue_pending"], key=lambda item: (item[0], item[1]))
    assert [(item[0], item[1]) for item in pending] == [
        (-100.0, "first"),
        (-3, "front"),
        (1, "second"),
    ]
    assert blocked_client.get("/history/second").json() == {}
    assert blocked_client.get("/history/blocker").json() == {}

    for prompt_id in ("blocker", "first", "front", "second"):
        blocked_client.await_history(prompt_id)
    assert list(blocked_client.get("/history").json()) == ["blocker", "first", "front", "second"]


def test_clear_drops_what_waits_and_not_what_runs(blocked_client: SimulatorClient) -> None:
    running = blocked_client.submit(picture_graph(1))
    blocked_client.await_running(running)
    waiting = blocked_client.submit(picture_graph(2))
    blocked_client.post("/queue", {"clear": True})

    assert blocked_client.await_history(running)["status"]["completed"] is True
    assert blocked_client.get("/prompt").json() == {"exec_info": {"queue_remaining": 0}}
    assert blocked_client.get(f"/history/{waiting}").json() == {}


def test_one_id_posted_twice_runs_twice_and_the_later_run_is_kept(
    blocked_client: SimulatorClient,
) -> None:
    first = blocked_client.submit(picture_graph(1), prompt_id="twice")
    blocked_client.await_running(first)
    blocked_client.submit(picture_graph(2), prompt_id="twice")
    blocked_client.await_history("twice")
    deadline = time.monotonic() + 5
    while blocked_client.get("/prompt").json()["exec_info"]["queue_remaining"]:
        assert time.monotonic() < deadline

    entry = blocked_client.await_history("twice")
    assert entry["prompt"][0] == 1
    assert entry["outputs"]["2"]["images"][0]["filename"] == "ml_00002_.png"


def test_one_number_and_id_posted_twice_kills_the_worker(blocked_client: SimulatorClient) -> None:
    first = blocked_client.submit(picture_graph(1))
    blocked_client.await_running(first)
    body = {"prompt": picture_graph(2), "prompt_id": "same", "number": 5}
    assert blocked_client.post("/prompt", body).status_code == 200
    again = blocked_client.post("/prompt", body | {"prompt": picture_graph(3)})

    assert again.status_code == 500
    # To take one that goes before them out of the heap, the two are compared.
    blocked_client.submit(picture_graph(4), number=4)
    blocked_client.await_history(first)
    # Time enough for all others to end, if there were a worker.
    time.sleep(0.3)
    assert blocked_client.get("/queue").json()["queue_running"] == []
    assert blocked_client.get("/prompt").json() == {"exec_info": {"queue_remaining": 2}}


def test_interrupt_by_id_ends_only_that_prompt(slow_client: SimulatorClient) -> None:
    prompt_id = slow_client.submit(picture_graph())
    slow_client.await_running(prompt_id)
    time.sleep(0.1)
    slow_client.post("/interrupt", {"prompt_id": "another"})
    assert slow_client.get(f"/history/{prompt_id}").json() == {}

    slow_client.post("/interrupt", {"prompt_id": prompt_id})
    entry = slow_client.await_history(prompt_id)

    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["completed"] is False
    event, data = entry["status"]["messages"][-1]
    assert event == "execution_interrupted"
    assert (data["node_id"], data["node_type"], data["executed"]) == ("1", "EmptyImage", [])
    job = slow_client.get(f"/api/jobs/{prompt_id}").json()
    assert (job["status"], job["outputs_count"]) == ("cancelled", 0)
    # The flag does not hit the next prompt.
    assert slow_client.run(picture_graph(2))["status"]["completed"] is True


def test_inputs_that_a_node_does_not_know_are_ignored(client: SimulatorClient) -> None:
    graph = picture_graph(surprise=["99", 0], another=[1, 2, 3])

    assert client.run(graph)["status"]["completed"] is True


def test_a_plain_list_can_be_passed_as_a_value(client: SimulatorClient) -> None:
    graph = {"1": node("PreviewAny", source={"__value__": ["a", "b"]})}

    assert client.run(graph)["outputs"] == {"1": {"text": ['["a", "b"]']}}


def test_an_unchanged_prompt_is_answered_from_the_cache(client: SimulatorClient) -> None:
    first = client.run(picture_graph())
    second = client.run(picture_graph())

    assert second["outputs"] == first["outputs"]
    assert second["status"]["messages"][1][1]["nodes"] == ["1", "2"]


def test_a_cached_prompt_without_client_id_lists_no_outputs(client: SimulatorClient) -> None:
    client.run(picture_graph(), client_id=None)

    entry = client.run(picture_graph(), client_id=None)

    assert entry["status"]["completed"] is True
    assert entry["outputs"] == {}


def test_only_the_changed_part_of_a_graph_runs_again(client: SimulatorClient) -> None:
    client.run(picture_graph(prefix="a"))
    entry = client.run(picture_graph(prefix="b"))

    assert entry["status"]["messages"][1][1]["nodes"] == ["1"]


def test_free_memory_empties_the_cache(client: SimulatorClient) -> None:
    client.run(picture_graph())
    assert client.post("/free", {"free_memory": True}).text == ""
    entry = client.run(picture_graph())

    assert entry["status"]["messages"][1][1]["nodes"] == []
    assert entry["outputs"]["2"]["images"][0]["filename"] == "ml_00002_.png"


def test_a_new_file_under_the_old_name_is_not_answered_from_the_cache(
    client: SimulatorClient,
) -> None:
    source = client.run(picture_graph(color=1))["outputs"]["2"]["images"][0]
    client.upload("in.png", client.download(source))
    graph = {
        "1": node("LoadImage", image="in.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="out"),
    }
    client.run(graph)
    other = client.run(picture_graph(color=2))["outputs"]["2"]["images"][0]
    client.upload("in.png", client.download(other), overwrite="true")

    assert client.run(graph)["status"]["messages"][1][1]["nodes"] == []


def test_a_node_that_fails_leaves_the_earlier_outputs(client: SimulatorClient) -> None:
    client.upload("broken.png", b"this is no picture")
    graph = picture_graph() | {
        "3": node("LoadImage", image="broken.png"),
        "4": node("SaveImage", images=["3", 0], filename_prefix="never"),
    }
    entry = client.run(graph)

    assert entry["outputs"].keys() == {"2"}
    assert entry["status"]["status_str"] == "error"
    event, data = entry["status"]["messages"][-1]
    assert event == "execution_error"
    assert data["exception_type"] == "PIL.UnidentifiedImageError"
    assert (data["node_id"], data["node_type"]) == ("3", "LoadImage")
    assert data["current_inputs"] == {"image": ["broken.png"]}
    assert client.run(picture_graph(2))["status"]["completed"] is True


def test_a_prompt_takes_at_least_its_time(slow_client: SimulatorClient) -> None:
    started = time.monotonic()
    slow_client.run(picture_graph())

    assert 0.6 <= time.monotonic() - started < 5


def test_history_can_be_read_in_parts_and_forgotten(client: SimulatorClient) -> None:
    ids = [str(number) for number in range(3)]
    for prompt_id in ids:
        client.run(picture_graph(), prompt_id=prompt_id)

    assert list(client.get("/history").json()) == ids
    assert list(client.get("/history?max_items=2").json()) == ids[1:]
    assert list(client.get("/history?max_items=2&offset=0").json()) == ids[:2]
    assert client.get("/history?max_items=abc").status_code == 500
    client.post("/history", {"delete": ["1", "unknown"]})
    assert list(client.get("/history").json()) == ["0", "2"]
    client.post("/history", {"clear": True})
    assert client.get("/history").json() == {}


def test_jobs_are_listed_by_status_and_page(slow_client: SimulatorClient) -> None:
    extra_data = {"extra_pnginfo": {"workflow": {"id": "wf-1"}}}
    done = slow_client.submit(picture_graph(1), extra_data=extra_data)
    slow_client.await_history(done)
    running = slow_client.submit(picture_graph(2))
    slow_client.await_running(running)
    waiting = slow_client.submit(picture_graph(3))

    def ids(query: str) -> list[str]:
        return [job["id"] for job in slow_client.get(f"/api/jobs?{query}").json()["jobs"]]

    assert ids("status=pending,in_progress") == [waiting, running]
    assert ids("sort_order=asc") == [done, running, waiting]
    assert ids("workflow_id=wf-1") == [done]
    page = slow_client.get("/api/jobs?limit=1&offset=1").json()
    assert page["pagination"] == {"offset": 1, "limit": 1, "total": 3, "has_more": True}
    assert slow_client.get("/api/jobs?limit=0").status_code == 400
    assert slow_client.get(f"/api/jobs/{waiting}").json()["status"] == "pending"
    assert slow_client.get(f"/api/jobs/{running}").json()["status"] == "in_progress"
    assert slow_client.get(f"/api/jobs/{done}").json()["preview_output"]["nodeId"] == "2"
    unknown = slow_client.get("/api/jobs/unknown")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "Job not found"})


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sort_by=name", "sort_by must be 'created_at' or 'execution_duration'"),
        ("sort_order=up", "sort_order must be 'asc' or 'desc'"),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("offset=x", "offset must be an integer"),
    ],
)
def test_a_list_of_jobs_says_what_it_does_not_take(
    client: SimulatorClient, query: str, reason: str
) -> None:
    answer = client.get(f"/api/jobs?{query}")

    assert (answer.status_code, answer.json()) == (400, {"error": reason})


@pytest.mark.parametrize(
    ("query", "colors"),
    [
        ("status=&workflow_id=", [2, 1, 0]),
        ("offset=-5", [2, 1, 0]),
        ("offset=9", []),
        ("limit=1&offset=1", [1]),
        ("status=COMPLETED,failed&sort_order=ASC", [0, 1, 2]),
    ],
)
def test_a_list_of_jobs_is_lenient_otherwise(
    client: SimulatorClient, query: str, colors: list[int]
) -> None:
    ids = []
    for color in range(3):
        ids.append(client.submit(picture_graph(color)))
        client.await_history(ids[-1])
        time.sleep(0.002)  # They are sorted by the millisecond.
    jobs = client.get(f"/api/jobs?{query}").json()["jobs"]

    assert [ids.index(job["id"]) for job in jobs] == colors


def test_jobs_are_sorted_by_how_long_they_ran(blocked_client: SimulatorClient) -> None:
    ids = [blocked_client.submit(picture_graph(color)) for color in range(2)]
    blocked_client.await_history(ids[1])
    jobs = blocked_client.get("/api/jobs?sort_by=execution_duration").json()["jobs"]

    assert [job["id"] for job in jobs] == ids


def test_a_restart_forgets_prompts_and_goes_on_counting_files(tmp_path: Path) -> None:
    with running_simulator(tmp_path) as server:
        client = SimulatorClient(server.url)
        entry = client.run(picture_graph(prefix="sub/x"), prompt_id="old")
        client.run({"1": picture_graph()["1"], "2": node("PreviewImage", images=["1", 0])})
    assert list((tmp_path / "temp").iterdir()) != []
    assert entry["outputs"]["2"]["images"][0]["filename"] == "x_00001_.png"

    with running_simulator(tmp_path) as server:
        client = SimulatorClient(server.url)
        assert client.get("/history/old").json() == {}
        assert list((tmp_path / "temp").iterdir()) == []
        entry = client.run(picture_graph(prefix="sub/x"))

    assert entry["prompt"][0] == 0
    assert entry["outputs"]["2"]["images"] == [
        {"filename": "x_00002_.png", "subfolder": "sub", "type": "output"}
    ]


def test_stopping_does_not_wait_for_the_running_prompt(tmp_path: Path) -> None:
    with running_simulator(tmp_path, prompt_seconds=30) as server:
        client = SimulatorClient(server.url)
        client.await_running(client.submit(picture_graph()))
        started = time.monotonic()

    assert time.monotonic() - started < 10


def test_no_prompt_text_reaches_a_log(
    client: SimulatorClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    graph = {"1": node("PreviewAny", source="a very private text")}
    client.run(graph)
    client.post("/prompt", {"prompt": graph, "number": "a very private text"})

    own = [record for record in caplog.records if record.name.startswith("local.")]
    warnings = [record.message for record in own if record.levelname == "WARNING"]
    assert warnings == ["POST /prompt failed: ValueError"]
    assert "private" not in "".join(str(record.__dict__) for record in own)
    assert "private" not in caplog.text
