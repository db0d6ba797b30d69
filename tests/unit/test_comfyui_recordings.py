"""The client reads what a real ComfyUI 0.12.1 said; the recordings are no part of the project."""

import json
from typing import Any

import pytest

from ml_service.adapters.comfyui.read_answers import read_history, read_queue
from ml_service.adapters.comfyui.watch_prompt import WebsocketPromptWatch
from ml_service.domain.prompts import PromptState
from ml_service.domain.results import list_output_files
from tests.makers import PROJECT

RECORDINGS = PROJECT.parent / "shared" / "comfyui-captures"
pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not here")


def read(name: str) -> Any:
    recorded = json.loads((RECORDINGS / f"{name}.json").read_text())
    is_call = isinstance(recorded, dict) and "body" in recorded
    return recorded["body"] if is_call else recorded


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("animated_webp_1", 1),
        ("audio_1", 1),
        ("batch4_1", 4),
        ("multi_output_1", 2),
        ("video_1", 1),
        ("sleep_progress_1", 1),
    ],
)
def test_outputs_of_every_kind_are_found(name: str, files: int):
    (prompt_id, entry), *_ = read(f"history_{name}").items()
    prompt = read_history({prompt_id: entry}, prompt_id)
    assert prompt is not None
    assert prompt.state is PromptState.SUCCEEDED
    assert len(list_output_files(prompt.outputs)) == files


@pytest.mark.parametrize(
    ("name", "exception_type"),
    [
        ("fail_exception_1", "ValueError"),
        ("fail_oom_1", "torch.OutOfMemoryError"),
        ("fail_partial_1", "ValueError"),
    ],
)
def test_failures_name_their_exception(name: str, exception_type: str):
    ((prompt_id, entry),) = read(f"history_{name}").items()
    prompt = read_history({prompt_id: entry}, prompt_id)
    assert prompt is not None
    assert prompt.state is PromptState.FAILED
    assert prompt.failure is not None
    assert (prompt.failure.class_type, prompt.failure.exception_type) == ("MLFail", exception_type)
    assert prompt.failure.message


def test_an_interruption_is_no_failure():
    ((prompt_id, entry),) = read("history_interrupted").items()
    prompt = read_history({prompt_id: entry}, prompt_id)
    assert prompt is not None
    assert prompt.state is PromptState.INTERRUPTED


def test_a_queue_tells_who_runs_and_in_which_order_the_others_wait():
    queue = read("queue_running_and_pending")
    ((_, running, *_),) = queue["queue_running"]
    waiting = [item[1] for item in sorted(queue["queue_pending"], key=lambda item: item[:2])]
    prompts = [read_queue(queue, prompt_id) for prompt_id in (running, *waiting)]
    assert [(p.state, p.position, p.head) for p in prompts if p is not None] == [
        (PromptState.RUNNING, 0, running),
        *((PromptState.PENDING, place + 1, running) for place in range(len(waiting))),
    ]


def test_an_id_that_was_posted_twice_stands_in_the_queue_twice():
    queue = read("queue_duplicate_id")
    prompt = read_queue(queue, queue["queue_pending"][-1][1])
    assert prompt is not None
    assert prompt.copies == 2


@pytest.mark.parametrize("name", ["sleep_progress_1", "fail_oom_1", "video_1", "batch4_1"])
def test_the_last_message_of_a_prompt_is_news_and_its_progress_was_told(name: str):
    messages = [message for message in read(f"ws_{name}") if message.get("type")]
    prompt_id = next(m["data"]["prompt_id"] for m in messages if m["type"] == "execution_start")
    watch = WebsocketPromptWatch("ws://127.0.0.1:9/ws", prompt_id, connect_seconds=0.1)
    news = [watch._take(json.dumps(message)) for message in messages]
    assert messages[-1]["data"] == {"node": None, "prompt_id": prompt_id}
    assert news[-1]
    assert sum(news) < 10
    assert watch.progress is not None
