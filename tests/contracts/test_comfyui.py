"""What the ComfyUI port promises, kept by the client against a simulated server."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from requests.adapters import HTTPAdapter

from local.comfyui.simulator import running_simulator
from local.sample_media import make_image
from ml_service.adapters.comfyui import HttpComfyUI, HttpComfyUIConnector
from ml_service.domain.errors import (
    InstanceUnreachableError,
    OutputMissingError,
    PromptRefusedError,
)
from ml_service.domain.prompts import Prompt, PromptState, make_prompt_id
from ml_service.domain.results import OutputFile, list_output_files
from ml_service.ports import MediaStream

ENDED = (PromptState.SUCCEEDED, PromptState.FAILED, PromptState.UNKNOWN)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    with running_simulator(tmp_path) as server:
        yield server


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[Any]:
    with running_simulator(tmp_path, prompt_seconds=1.0) as server:
        yield server


def connect(server: Any) -> HttpComfyUI:
    return HttpComfyUIConnector(port=server.port).connect("127.0.0.1")


def prompt_id(attempt: int = 1) -> str:
    return make_prompt_id(stage="dev", job_id="job", attempt=attempt)


def picture(color: int = 255, prefix: str = "result") -> dict[str, Any]:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color},
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": prefix},
        },
    }


def wait_for(comfyui: HttpComfyUI, wanted: str) -> Prompt:
    end = time.monotonic() + 10
    with comfyui.watch(wanted) as wait_for_news:
        while time.monotonic() < end:
            prompt = comfyui.find(wanted)
            if prompt.state in ENDED:
                return prompt
            wait_for_news(1)
    raise AssertionError("the prompt did not end")


class _LosesAnswers(HTTPAdapter):
    """A network that delivers the first POST /prompt, or not, and loses the answer."""

    def __init__(self, *, delivers: bool) -> None:
        super().__init__()
        self.posts = 0
        self._delivers = delivers

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        if request.method != "POST" or not str(request.url).endswith("/prompt"):
            return super().send(request, *args, **kwargs)
        self.posts += 1
        if self.posts > 1:
            return super().send(request, *args, **kwargs)
        if self._delivers:
            super().send(request, *args, **kwargs)
        raise requests.ConnectionError("reset")


def test_a_prompt_runs_and_its_files_can_be_read(server: Any):
    comfyui = connect(server)
    comfyui.submit(prompt_id(), picture(color=0x0000FF))
    prompt = wait_for(comfyui, prompt_id())
    (file,) = list_output_files(prompt.outputs)
    with comfyui.open_output(file) as content:
        image = Image.open(io.BytesIO(content.read()))
    assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_the_end_of_a_prompt_is_noticed_at_once(slow_server: Any):
    comfyui = connect(slow_server)
    comfyui.submit(prompt_id(), picture())
    looks = 0
    with comfyui.watch(prompt_id()) as wait_for_news:
        while comfyui.find(prompt_id()).state not in ENDED:
            looks += 1
            wait_for_news(30)
    # Far fewer looks than a poll would need, and none waited out its 30 s.
    assert looks < 10


def test_waiting_without_a_websocket_is_only_waiting():
    comfyui = HttpComfyUI("127.0.0.1:9", read_seconds=1)
    with comfyui.watch(prompt_id()) as wait_for_news:
        started = time.monotonic()
        wait_for_news(0.2)
        assert 0.2 <= time.monotonic() - started < 1


def test_pending_prompts_know_their_position(slow_server: Any):
    comfyui = connect(slow_server)
    for attempt in (1, 2, 3):
        comfyui.submit(prompt_id(attempt), picture(attempt))
    time.sleep(0.1)
    states = [comfyui.find(prompt_id(attempt)) for attempt in (1, 2, 3)]
    assert [(p.state, p.position) for p in states] == [
        (PromptState.RUNNING, 0),
        (PromptState.PENDING, 1),
        (PromptState.PENDING, 2),
    ]
    assert comfyui.count_prompts() == 3


def test_an_unknown_prompt_is_unknown(server: Any):
    assert connect(server).find(prompt_id()).state is PromptState.UNKNOWN


def test_a_failing_node_is_named_without_its_text(server: Any):
    comfyui = connect(server)
    name = comfyui.upload("broken.png", MediaStream(io.BytesIO(b"no picture"), 10))
    graph = picture() | {"1": {"class_type": "LoadImage", "inputs": {"image": name}}}
    comfyui.submit(prompt_id(), graph)
    prompt = wait_for(comfyui, prompt_id())
    assert prompt.state is PromptState.FAILED
    assert prompt.failure.startswith("Node 1 (LoadImage) failed with ")
    assert "broken" not in prompt.failure


def test_a_refused_prompt_says_where_it_is_wrong(server: Any):
    comfyui = connect(server)
    graph = picture()
    graph["1"]["inputs"]["width"] = "secret"
    with pytest.raises(PromptRefusedError, match=r"node 1 \(EmptyImage\): invalid_input_type") as e:
        comfyui.submit(prompt_id(), graph)
    assert "secret" not in str(e.value)


def test_a_prompt_accepted_in_part_is_refused_and_dropped(slow_server: Any):
    comfyui = connect(slow_server)
    graph = picture() | {
        "3": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}}
    }
    with pytest.raises(PromptRefusedError, match="node 3"):
        comfyui.submit(prompt_id(), graph)
    assert comfyui.count_prompts() == 0


@pytest.mark.parametrize("delivers", [True, False], ids=["answer lost", "request lost"])
def test_a_prompt_whose_answer_was_lost_runs_once(slow_server: Any, delivers: bool):
    comfyui = connect(slow_server)
    network = _LosesAnswers(delivers=delivers)
    comfyui._session.mount("http://", network)
    comfyui.submit(prompt_id(), picture())
    assert network.posts == (1 if delivers else 2)
    assert comfyui.count_prompts() == 1
    assert wait_for(comfyui, prompt_id()).state is PromptState.SUCCEEDED


def test_an_upload_can_be_used_under_the_name_it_got(server: Any):
    comfyui = connect(server)
    content = make_image(color=(1, 2, 3))
    name = comfyui.upload("Gruppe 42 é.png", MediaStream(io.BytesIO(content), len(content)))
    graph = picture() | {"1": {"class_type": "LoadImage", "inputs": {"image": name}}}
    comfyui.submit(prompt_id(), graph)
    assert wait_for(comfyui, prompt_id()).state is PromptState.SUCCEEDED


def test_a_missing_output_is_told(server: Any):
    with (
        pytest.raises(OutputMissingError),
        connect(server).open_output(OutputFile(filename="no.png")),
    ):
        pass


def test_cancelling_drops_one_prompt_and_no_other(slow_server: Any):
    comfyui = connect(slow_server)
    for attempt in (1, 2, 3):
        comfyui.submit(prompt_id(attempt), picture(attempt))
    time.sleep(0.2)
    comfyui.cancel(prompt_id(1))  # runs
    comfyui.cancel(prompt_id(3))  # waits
    comfyui.cancel(prompt_id(9))  # is unknown
    assert wait_for(comfyui, prompt_id(1)).failure == "The prompt was interrupted."
    assert wait_for(comfyui, prompt_id(2)).state is PromptState.SUCCEEDED
    assert wait_for(comfyui, prompt_id(3)).state is PromptState.UNKNOWN


def test_a_server_that_is_not_there_is_unreachable():
    comfyui = HttpComfyUI("127.0.0.1:9", read_seconds=1)
    for call in (
        comfyui.count_prompts,
        lambda: comfyui.find(prompt_id()),
        lambda: comfyui.submit(prompt_id(), picture()),
    ):
        with pytest.raises(InstanceUnreachableError):
            call()


def test_news_reaches_a_watcher_in_another_thread(slow_server: Any):
    comfyui = connect(slow_server)
    waited: list[float] = []

    def watch() -> None:
        with connect(slow_server).watch(prompt_id()) as wait_for_news:
            started = time.monotonic()
            wait_for_news(0.05)  # the status message of the connection itself
            wait_for_news(20)
            waited.append(time.monotonic() - started)

    thread = threading.Thread(target=watch)
    thread.start()
    time.sleep(0.5)
    comfyui.submit(prompt_id(), picture())
    thread.join(timeout=10)
    assert waited
    assert waited[0] < 5
