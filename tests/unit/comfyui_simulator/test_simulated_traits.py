"""Traits of real servers that clients trip over, one test each, in the order of the protocol page.

Others are proved elsewhere: order by number and front, a partial acceptance, duplicate ids, cached
outputs, an empty history while running, progress without a client, the silent second socket, lost
traces of deleted prompts, renamed uploads, origins (test_simulated_prompts, _websocket, _files,
_recordings), the two versions (_profiles), zombies and stalls (_faults).
"""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from local.comfyui.fault_injection import FaultInjector
from local.comfyui.faults import FaultBoard
from local.comfyui.media_folders import MediaFolders
from local.comfyui.node_cache import NodeCache
from local.comfyui.node_catalog import NodeCatalog
from local.comfyui.profiles import PROFILE_0_12
from local.comfyui.prompt_durations import FixedDuration, PromptDurations
from local.comfyui.prompt_queue import PromptQueue, QueuedPrompt
from local.comfyui.prompt_run import Workshop
from local.comfyui.prompt_worker import PromptWorker
from local.comfyui.run_log import RunLog
from local.comfyui.simulator import RunningSimulator, running_simulator
from tests.unit.comfyui_simulator.simulator_client import (
    Events,
    SimulatorClient,
    node,
    picture_graph,
)

PREVIEWED = {"preview_method": "auto"}


@contextmanager
def hung(tmp_path: Path, **settings: Any) -> Iterator[tuple[RunningSimulator, SimulatorClient]]:
    """A server whose first prompt never ends, so that others wait."""
    with running_simulator(tmp_path, **settings) as server:
        server.add_fault("hang")
        client = SimulatorClient(server.url)
        client.await_running(client.submit(picture_graph(), prompt_id="hung"))
        yield server, client


def test_pending_prompts_are_listed_in_heap_order_and_not_in_run_order(tmp_path: Path) -> None:
    with hung(tmp_path) as (_, client):
        for number in (5, 4, 3, 2, 1):
            client.submit(picture_graph(), prompt_id=f"p{number}", number=number)
        pending = [item[1] for item in client.get("/queue").json()["queue_pending"]]

    assert pending[0] == "p1"
    assert pending != sorted(pending)


def test_prompts_of_one_number_run_in_the_order_of_their_ids(slow_client: SimulatorClient) -> None:
    slow_client.await_running(slow_client.submit(picture_graph(1), prompt_id="first"))
    for prompt_id in ("c", "a", "b"):
        slow_client.submit(picture_graph(1), prompt_id=prompt_id, number=7)
    for prompt_id in ("a", "b", "c"):
        slow_client.await_history(prompt_id)

    assert list(slow_client.get("/history").json()) == ["first", "a", "b", "c"]


def test_two_prompts_to_the_front_run_latest_first(slow_client: SimulatorClient) -> None:
    slow_client.await_running(slow_client.submit(picture_graph(1), prompt_id="running"))
    slow_client.submit(picture_graph(1), prompt_id="normal")
    for prompt_id in ("front-1", "front-2"):
        slow_client.submit(picture_graph(1), prompt_id=prompt_id, front=True)
    slow_client.await_history("normal")

    assert list(slow_client.get("/history").json()) == ["running", "front-2", "front-1", "normal"]


def test_a_partly_valid_prompt_is_accepted_and_its_good_outputs_run(
    client: SimulatorClient,
) -> None:
    graph = picture_graph() | {"3": node("SaveImage", filename_prefix="x")}
    answer = client.post("/prompt", {"prompt": graph, "client_id": "me"})

    assert answer.status_code == 200
    assert answer.json()["node_errors"].keys() == {"3"}
    entry = client.await_history(answer.json()["prompt_id"])
    assert entry["status"]["completed"] is True
    assert entry["outputs"].keys() == {"2"}


def test_an_id_that_waits_twice_is_listed_twice_and_deleted_once(tmp_path: Path) -> None:
    with hung(tmp_path) as (_, client):
        for color in (1, 2):
            client.submit(picture_graph(color), prompt_id="twice")

        def waiting() -> list[str]:
            return [item[1] for item in client.get("/queue").json()["queue_pending"]]

        assert waiting() == ["twice", "twice"]
        client.post("/queue", {"delete": ["twice"]})
        assert waiting() == ["twice"]


def test_a_deleted_output_file_is_still_listed_by_a_cached_run(
    client: SimulatorClient, tmp_path: Path
) -> None:
    client.run(picture_graph())
    (tmp_path / "output" / "ml_00001_.png").unlink()
    (item,) = client.run(picture_graph())["outputs"]["2"]["images"]

    assert item["filename"] == "ml_00001_.png"
    assert client.get("/view", params=item).status_code == 404


class ListedEvents:
    """Takes the place of the websockets."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def send(self, event: str, data: Any, client_id: str | None = None) -> None:
        self.events.append(event)

    def send_preview(self, image: Any, metadata: Any, client_id: str | None = None) -> None:
        self.events.append("preview")

    def send_node_text(self, node_id: str, text: str, client_id: str | None = None) -> None:
        self.events.append("text")


def test_an_interrupt_between_dequeue_and_start_is_lost(tmp_path: Path) -> None:
    folders = MediaFolders(tmp_path)
    folders.prepare()
    # Called at every change, so also when the prompt has just been taken.
    queue = PromptQueue(lambda _remaining: worker.interrupt())
    workshop = Workshop(
        profile=PROFILE_0_12,
        catalog=NodeCatalog(folders),
        folders=folders,
        cache=NodeCache(),
        events=ListedEvents(),
        interrupt=threading.Event(),
        faults=FaultInjector(FaultBoard(), lambda _seconds: None),
        durations=PromptDurations(FixedDuration(0)),
    )
    worker = PromptWorker(queue, workshop, RunLog())
    queue.put(QueuedPrompt(0, "mine", picture_graph(), {}, ["2"], {}))
    worker.start()
    deadline = time.monotonic() + 5
    while (entry := queue.read_history_entry("mine")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.stop()

    assert entry["status"]["status_str"] == "success"


def test_an_interrupt_takes_effect_only_at_the_next_step(tmp_path: Path) -> None:
    with running_simulator(tmp_path, prompt_seconds=0.2) as server:
        client = SimulatorClient(server.url)
        server.add_fault("hang", seconds=0.8)
        with client.events("me") as events:
            started = time.monotonic()
            prompt_id = client.submit(picture_graph(), client_id="me")
            while events.read()["type"] != "execution_start":
                pass
        client.post("/interrupt", {"prompt_id": prompt_id})
        entry = client.await_history(prompt_id)

    assert time.monotonic() - started > 0.8  # The hang began after the prompt was posted.
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


def test_a_deleted_prompt_leaves_no_trace_and_no_event_of_its_own(tmp_path: Path) -> None:
    with hung(tmp_path) as (_, client), client.events("me") as events:
        prompt_id = client.submit(picture_graph(2), client_id="me")
        client.post("/queue", {"delete": [prompt_id]})
        received = [events.read() for _ in range(3)]

        assert {message["type"] for message in received} == {"status"}
        assert events.is_silent(0.1)
        assert client.get(f"/api/jobs/{prompt_id}").status_code == 404
        assert client.get(f"/history/{prompt_id}").json() == {}


@pytest.mark.parametrize("path", ["/prompt", "/upload/image"])
def test_a_request_above_the_limit_is_refused_in_words(tmp_path: Path, path: str) -> None:
    with running_simulator(tmp_path, max_request_bytes=10_000) as server:
        client = SimulatorClient(server.url)
        if path == "/prompt":
            answer = client.post(path, {"prompt": picture_graph(prefix="x" * 10_000)})
        else:
            answer = client.upload("a.png", bytes(10_000))

        assert client.get("/features").json()["max_upload_size"] == 10_000
    assert answer.status_code == 413
    assert answer.text == "Maximum request body size 10000 exceeded."


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/prompt", {"data": b"{bad"}),
        ("/prompt", {"json": {"prompt": ["a"]}}),
        ("/prompt", {"json": {"prompt": picture_graph(), "extra_data": None, "client_id": "x"}}),
        ("/queue", {"data": b""}),
        ("/interrupt", {"json": []}),
        ("/upload/image", {"files": {"image": (None, "text")}}),
    ],
)
def test_a_body_that_the_server_trips_over_is_answered_with_a_text(
    client: SimulatorClient, path: str, sent: dict[str, Any]
) -> None:
    answer = client.request("POST", path, **sent)

    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text == "500 Internal Server Error\n\nServer got itself in trouble"


def test_a_websocket_of_another_origin_is_refused(client: SimulatorClient) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "http://localhost:8188",
    }
    answer = client.get("/ws", headers=upgrade)

    assert (answer.status_code, answer.content) == (403, b"")


def test_a_question_for_options_is_answered_except_to_another_origin(
    client: SimulatorClient,
) -> None:
    def ask(path: str, origin: str) -> tuple[int, bytes]:
        answer = client.request("OPTIONS", path, headers={"Origin": origin})
        return answer.status_code, answer.content

    assert ask("/prompt", client.url) == ask("/nonsense", "") == (200, b"")
    assert ask("/prompt", "http://evil.example") == (403, b"")


def test_a_queue_of_fat_prompts_is_a_fat_answer(tmp_path: Path) -> None:
    with hung(tmp_path) as (_, client):
        fat = {"extra_pnginfo": {"workflow": {"nodes": "x" * 60_000}}}
        for _ in range(300):
            client.submit(picture_graph(), extra_data=fat)
        answer = client.get("/queue")

        assert len(answer.content) > 18_000_000
        assert len(client.get("/prompt").content) < 100


def test_the_history_forgets_the_oldest_when_it_is_full(tmp_path: Path) -> None:
    with running_simulator(tmp_path, max_history=3) as server:
        client = SimulatorClient(server.url)
        for number in range(5):
            client.run(picture_graph(), prompt_id=f"p{number}")

        assert list(client.get("/history").json()) == ["p2", "p3", "p4"]


def test_previews_have_metadata_for_a_client_that_asked_for_it(tmp_path: Path) -> None:
    with running_simulator(tmp_path, prompt_seconds=0.5) as server:
        client = SimulatorClient(server.url)
        with client.events("plain") as plain, client.events("rich") as rich:
            flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            rich.send(flags)
            plain_id = client.submit(picture_graph(1), client_id="plain", extra_data=PREVIEWED)
            rich_id = client.submit(picture_graph(2), client_id="rich", extra_data=PREVIEWED)
            plain_previews = previews(plain, plain_id)
            rich_previews = previews(rich, rich_id)

    assert {(preview["binary"], preview["format"]) for preview in plain_previews} == {(1, 1)}
    assert {preview["binary"] for preview in rich_previews} == {4}
    assert rich_previews[0]["metadata"] == {
        "node_id": "1",
        "prompt_id": rich_id,
        "display_node_id": "1",
        "parent_node_id": None,
        "real_node_id": "1",
        "image_type": "image/jpeg",
    }
    for preview in plain_previews + rich_previews:
        assert Image.open(io.BytesIO(preview["picture"])).format == "JPEG"


def test_a_client_that_connects_again_has_to_ask_for_metadata_again(
    slow_client: SimulatorClient,
) -> None:
    with slow_client.events("me") as events:
        events.read()
        events.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        assert events.read()["type"] == "feature_flags"
    # The server must have seen the end of the first connection, or it would drop the second.
    time.sleep(0.05)
    with slow_client.events("me") as events:
        prompt_id = slow_client.submit(picture_graph(), client_id="me", extra_data=PREVIEWED)

        assert {preview["binary"] for preview in previews(events, prompt_id)} == {1}


def previews(events: Events, prompt_id: str) -> list[dict[str, Any]]:
    return [message for message in events.read_until_done(prompt_id) if "binary" in message]


def test_no_previews_are_sent_unless_they_are_wanted(slow_client: SimulatorClient) -> None:
    with slow_client.events("me") as events:
        assert previews(events, slow_client.submit(picture_graph(), client_id="me")) == []


def test_what_a_node_says_of_its_work_is_a_binary_message(client: SimulatorClient) -> None:
    graph = picture_graph(batch_size=2) | {
        "3": node("GetImageSize", image=["1", 0]),
        "4": node("PreviewAny", source=["3", 0]),
    }
    with client.events("me") as events, client.events("other") as other:
        messages = events.read_until_done(client.submit(graph, client_id="me"))
        other_kinds = [other.read()["type"] for _ in range(3)]

    (said,) = [message for message in messages if "binary" in message]
    assert said == {"binary": 3, "node": "3", "text": "width: 64, height: 64\n batch size: 2"}
    assert set(other_kinds) == {"status"}


def test_embeddings_are_listed_as_a_text_names_them(tmp_path: Path) -> None:
    with running_simulator(tmp_path, models={"embeddings": ("faces/easy.v2.pt",)}) as server:
        assert SimulatorClient(server.url).get("/embeddings").json() == ["faces/easy.v2"]


def test_an_operator_finds_the_usual_models_and_one_user(client: SimulatorClient) -> None:
    assert "checkpoints" in client.get("/models").json()
    assert "ae.safetensors" in client.get("/api/models/vae").json()
    assert client.get("/api/models/gligen").json() == []
    assert client.get("/models/nonsense").status_code == 404
    assert client.get("/embeddings").json() == []
    assert client.get("/extensions").json() == []
    assert client.get("/users").json() == {"storage": "server", "migrated": False}


def test_unknown_paths_and_methods_are_refused_with_empty_hands(client: SimulatorClient) -> None:
    assert client.get("/jobs").status_code == 404
    assert client.get("/nonsense").content == b""
    assert client.request("PUT", "/prompt").status_code == 405


def test_the_connection_is_lost_when_the_server_dies_in_the_middle_of_an_answer(
    tmp_path: Path,
) -> None:
    with running_simulator(tmp_path) as server:
        client = SimulatorClient(server.url)
        server.add_fault("stall", seconds=30)
        errors: list[Exception] = []

        def ask() -> None:
            try:
                client.get("/prompt")
            except requests.ConnectionError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)
        server.leave()
        thread.join(5)

        assert len(errors) == 1
