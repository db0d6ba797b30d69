"""The servers that the ComfyUI contract runs against, and prompts that each of them can run."""

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local.comfyui.simulator import RunningSimulator
from ml_service.adapters.comfyui import HttpComfyUI, HttpComfyUIConnector, Timeouts
from ml_service.domain.prompts import Prompt, PromptState
from ml_service.domain.results import OutputFile

Graph = dict[str, dict[str, Any]]

HASTY = Timeouts(
    connect=0.5,
    probe=0.3,
    command=0.5,
    submit=0.3,
    doubt=0.1,
    transfer=1.0,
    retry_pauses=(0.01, 0.04),
)
"""For faults: what is silent for longer than this is silent."""


def make_prompt_id() -> str:
    return str(uuid.uuid4())


def make_picture(color: int | None = None, *, prefix: str = "ml-service-contract") -> Graph:
    """A picture of one colour, by default one that no cache has."""
    color = random.randrange(2**24) if color is None else color
    size = {"width": 16, "height": 16, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": prefix},
        },
    }


def make_heavy_picture() -> Graph:
    """A picture whose nodes keep a CPU busy for seconds, for servers that do not pretend."""
    graph = make_picture()
    graph["1"]["inputs"] |= {"width": 2048, "height": 2048}
    for number in range(3, 15):
        graph[str(number)] = {
            "class_type": "ImageBlur",
            "inputs": {
                "image": ["1" if number == 3 else str(number - 1), 0],
                "blur_radius": 31,
                "sigma": number / 4,
            },
        }
    graph["2"]["inputs"]["images"] = ["14", 0]
    return graph


@dataclass(frozen=True)
class ComfyUITarget:
    """A server to test against."""

    address: str
    port: int
    make_slow_picture: Callable[[], Graph] = make_picture
    """A prompt that runs for a second or more."""

    def connect(self, timeouts: Timeouts | None = None) -> HttpComfyUI:
        return HttpComfyUIConnector(port=self.port, timeouts=timeouts).connect(self.address)


def wait_for(comfyui: HttpComfyUI, prompt_id: str, *, seconds: float = 60) -> Prompt:
    """Stay with a prompt until it is no longer queued."""
    end = time.monotonic() + seconds
    with comfyui.watch(prompt_id) as watch:
        while (prompt := comfyui.find(prompt_id)).is_queued:
            assert time.monotonic() < end, "the prompt did not end"
            watch.wait(1)
    return prompt


def wait_until_running(comfyui: HttpComfyUI, prompt_id: str) -> None:
    for _ in range(500):
        if comfyui.find(prompt_id).state is PromptState.RUNNING:
            return
        time.sleep(0.01)
    raise AssertionError("the prompt did not start")


def wait_until_struck(server: RunningSimulator) -> None:
    """Until a fault has: an interrupt that comes before ends a prompt that runs already."""
    for _ in range(500):
        if any(fault["strikes"] for fault in server.faults):
            return
        time.sleep(0.01)
    raise AssertionError("the fault did not strike")


def read_output(comfyui: HttpComfyUI, file: OutputFile) -> bytes:
    with comfyui.open_output(file) as content:
        return content.read()
