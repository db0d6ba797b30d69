"""What the ComfyUI port promises, kept by the client against every server that it can meet.

These are simulators and, if COMFYUI_URL names one, a real server, of which only stock nodes are
used. It should be idle, since it is asked how many prompts it has.
"""

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from local.comfyui.profiles import PROFILES
from local.comfyui.simulator import running_simulator
from local.sample_media import make_image
from ml_service.domain.errors import OutputMissingError, PromptRefusedError
from ml_service.domain.prompts import PromptState
from ml_service.domain.results import OutputFile, list_output_files
from ml_service.ports import MediaStream
from tests.contracts.comfyui_targets import (
    ComfyUITarget,
    make_heavy_picture,
    make_picture,
    make_prompt_id,
    read_output,
    wait_for,
    wait_until_running,
)

SERVERS = [*PROFILES, "real"]


@pytest.fixture(scope="module", params=SERVERS)
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyUITarget]:
    """A server whose slow prompts take long enough to be seen running."""
    yield from serve(request.param, tmp_path_factory.mktemp("slow"), prompt_seconds=0.45)


@pytest.fixture(scope="module", params=SERVERS)
def quick_target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyUITarget]:
    """A server for prompts whose time does not matter."""
    yield from serve(request.param, tmp_path_factory.mktemp("quick"), prompt_seconds=0.0)


def serve(name: str, folder: Path, *, prompt_seconds: float) -> Iterator[ComfyUITarget]:
    if name == "real":
        yield real_server()
        return
    with running_simulator(folder, prompt_seconds=prompt_seconds, profile=name) as server:
        yield ComfyUITarget(server.address, server.port)


def real_server() -> ComfyUITarget:
    url = urlsplit(os.environ.get("COMFYUI_URL", ""))
    if not url.hostname:
        pytest.skip("COMFYUI_URL names no real ComfyUI")
    return ComfyUITarget(url.hostname, url.port or 80, make_heavy_picture)


def test_a_prompt_runs_and_its_files_can_be_read(quick_target: ComfyUITarget):
    comfyui, prompt_id = quick_target.connect(), make_prompt_id()
    comfyui.submit(prompt_id, make_picture(0x0000FF))
    (file,) = list_output_files(wait_for(comfyui, prompt_id).outputs)
    image = Image.open(io.BytesIO(read_output(comfyui, file)))
    assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_a_prompt_of_cached_nodes_has_its_outputs_too(quick_target: ComfyUITarget):
    comfyui, graph = quick_target.connect(), make_picture()
    for _ in range(2):
        prompt_id = make_prompt_id()
        comfyui.submit(prompt_id, graph)
        assert list_output_files(wait_for(comfyui, prompt_id).outputs)


def test_fault_16_submitting_again_changes_nothing(target: ComfyUITarget):
    comfyui, prompt_id, graph = target.connect(), make_prompt_id(), target.make_slow_picture()
    for _ in range(2):
        comfyui.submit(prompt_id, graph)
    assert comfyui.count_prompts() == 1
    wait_for(comfyui, prompt_id)
    comfyui.submit(prompt_id, graph)
    assert comfyui.find(prompt_id).state is PromptState.SUCCEEDED


def test_the_end_of_a_prompt_is_noticed_at_once(target: ComfyUITarget):
    comfyui, prompt_id = target.connect(), make_prompt_id()
    comfyui.submit(prompt_id, target.make_slow_picture())
    looks = 0
    with comfyui.watch(prompt_id) as watch:
        while comfyui.find(prompt_id).is_queued:
            looks += 1
            watch.wait(60)
    # Far fewer looks than a poll would need, and none waited out its 60 s.
    assert looks < 10


def test_a_running_prompt_tells_its_progress(target: ComfyUITarget):
    comfyui, prompt_id = target.connect(), make_prompt_id()
    seen = []
    with comfyui.watch(prompt_id) as watch:
        comfyui.submit(prompt_id, target.make_slow_picture())
        while comfyui.find(prompt_id).is_queued:
            watch.wait(0.1)
            if watch.progress is not None:
                seen.append(watch.progress)
    assert {progress.node_id for progress in seen} - {""}
    assert all(0 <= progress.share <= 1 for progress in seen)
    assert seen[-1].nodes_done >= seen[0].nodes_done


def test_pending_prompts_know_their_position(target: ComfyUITarget):
    comfyui = target.connect()
    ids = [make_prompt_id() for _ in range(3)]
    for prompt_id in ids:
        comfyui.submit(prompt_id, target.make_slow_picture())
    wait_until_running(comfyui, ids[0])
    prompts = [comfyui.find(prompt_id) for prompt_id in ids]
    assert [(p.state, p.position, p.head) for p in prompts] == [
        (PromptState.RUNNING, 0, ids[0]),
        (PromptState.PENDING, 1, ids[0]),
        (PromptState.PENDING, 2, ids[0]),
    ]
    assert comfyui.count_prompts() == 3
    for prompt_id in reversed(ids):
        assert comfyui.cancel(prompt_id, seconds=60)


def test_an_unknown_prompt_is_unknown(quick_target: ComfyUITarget):
    assert quick_target.connect().find(make_prompt_id()).state is PromptState.UNKNOWN


def test_a_failing_node_is_named_and_its_text_kept_apart(quick_target: ComfyUITarget):
    comfyui, prompt_id = quick_target.connect(), make_prompt_id()
    name = comfyui.upload("broken.png", MediaStream(io.BytesIO(b"no picture"), 10))
    load = {"class_type": "LoadImage", "inputs": {"image": name}}
    comfyui.submit(prompt_id, make_picture() | {"1": load})
    prompt = wait_for(comfyui, prompt_id)
    assert prompt.state is PromptState.FAILED
    assert prompt.failure is not None
    assert prompt.failure.sentence.startswith("Node 1 (LoadImage) failed with ")
    assert prompt.failure.exception_type.endswith("UnidentifiedImageError")
    assert prompt.failure.message
    assert prompt.failure.message not in f"{prompt} {prompt.failure.sentence}"


def test_a_refused_prompt_says_where_it_is_wrong(quick_target: ComfyUITarget):
    graph = make_picture()
    graph["1"]["inputs"]["width"] = "secret"
    with pytest.raises(PromptRefusedError, match=r"node 1 \(EmptyImage\): invalid_input_type") as e:
        quick_target.connect().submit(make_prompt_id(), graph)
    assert "secret" not in str(e.value)


def test_an_unknown_node_class_is_refused(quick_target: ComfyUITarget):
    graph = make_picture() | {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    with pytest.raises(PromptRefusedError, match="missing_node_type|invalid_prompt"):
        quick_target.connect().submit(make_prompt_id(), graph)


def test_a_prompt_accepted_in_part_is_refused_and_dropped(target: ComfyUITarget):
    comfyui, prompt_id = target.connect(), make_prompt_id()
    graph = target.make_slow_picture()
    save = {"images": ["99", 0], "filename_prefix": "x"}
    graph["50"] = {"class_type": "SaveImage", "inputs": save}
    with pytest.raises(PromptRefusedError, match="node 50"):
        comfyui.submit(prompt_id, graph)
    assert comfyui.count_prompts() == 0
    assert comfyui.find(prompt_id).state in (PromptState.INTERRUPTED, PromptState.UNKNOWN)


def test_an_upload_can_be_used_under_the_name_it_got(quick_target: ComfyUITarget):
    comfyui, prompt_id = quick_target.connect(), make_prompt_id()
    content = make_image(color=(1, 2, 3))
    name = comfyui.upload("Gruppe 42 é.png", MediaStream(io.BytesIO(content), len(content)))
    load = {"class_type": "LoadImage", "inputs": {"image": name}}
    comfyui.submit(prompt_id, make_picture() | {"1": load})
    assert wait_for(comfyui, prompt_id).state is PromptState.SUCCEEDED


def test_a_missing_output_is_told(quick_target: ComfyUITarget):
    with pytest.raises(OutputMissingError):
        read_output(quick_target.connect(), OutputFile(filename="no.png"))


def test_cancelling_drops_one_prompt_and_no_other(target: ComfyUITarget):
    comfyui = target.connect()
    running, next_one, waiting, unknown = (make_prompt_id() for _ in range(4))
    for prompt_id in (running, next_one, waiting):
        comfyui.submit(prompt_id, target.make_slow_picture())
    wait_until_running(comfyui, running)
    for prompt_id in (running, waiting, unknown):
        assert comfyui.cancel(prompt_id, seconds=60)
    assert wait_for(comfyui, running).state is PromptState.INTERRUPTED
    assert wait_for(comfyui, next_one).state is PromptState.SUCCEEDED
    # Versions with a cancel route may remember what never ran.
    assert comfyui.find(waiting).state in (PromptState.UNKNOWN, PromptState.INTERRUPTED)
    assert comfyui.find(unknown).state is PromptState.UNKNOWN


def test_a_prompt_cancelled_right_after_its_post_does_not_go_on(target: ComfyUITarget):
    """ComfyUI forgets an interrupt that comes just before the prompt starts."""
    comfyui = target.connect()
    for _ in range(5):
        prompt_id = make_prompt_id()
        comfyui.submit(prompt_id, target.make_slow_picture())
        assert comfyui.cancel(prompt_id, seconds=60)
        assert comfyui.find(prompt_id).state in (PromptState.INTERRUPTED, PromptState.UNKNOWN)


def test_a_forgotten_prompt_is_unknown_and_its_neighbour_is_not(quick_target: ComfyUITarget):
    comfyui = quick_target.connect()
    ids = [make_prompt_id() for _ in range(2)]
    for prompt_id in ids:
        comfyui.submit(prompt_id, make_picture())
        wait_for(comfyui, prompt_id)
    comfyui.forget(ids[0])
    assert [comfyui.find(prompt_id).state for prompt_id in ids] == [
        PromptState.UNKNOWN,
        PromptState.SUCCEEDED,
    ]


def test_news_reaches_a_watcher_in_another_thread(target: ComfyUITarget):
    comfyui, prompt_id = target.connect(), make_prompt_id()
    waited: list[float] = []

    def watch_prompt() -> None:
        with target.connect().watch(prompt_id) as watch:
            watch.wait(0.05)  # the status message of the connection itself
            started = time.monotonic()
            watch.wait(20)
            waited.append(time.monotonic() - started)

    thread = threading.Thread(target=watch_prompt)
    thread.start()
    time.sleep(0.5)
    comfyui.submit(prompt_id, make_picture())
    thread.join(timeout=10)
    assert waited
    assert waited[0] < 5
    wait_for(comfyui, prompt_id)
