"""await_prompt with the real client on a simulated server: what it sees, and how soon."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from local.comfyui.profiles import PROFILES
from local.comfyui.simulator import RunningSimulator, running_simulator
from ml_service.adapters.clock import SystemClock
from ml_service.adapters.comfyui import HttpComfyUI, HttpComfyUIConnector, Timeouts
from ml_service.domain.errors import PromptFailedError
from ml_service.domain.prompts import Stall, StallLimits
from ml_service.services.await_prompt import Awaited, AwaitPrompt, AwaitStatus
from tests.contracts.comfyui_targets import (
    HASTY,
    make_picture,
    make_prompt_id,
    wait_until_running,
)
from tests.fakes import InMemoryFleetStore, InMemoryJobStore
from tests.makers import FLEETS, make_instance, make_job


@dataclass
class Bench:
    """Awaits prompts of a server, each as a job of its own."""

    server: RunningSimulator
    poll_seconds: float = 30.0
    stall_limits: StallLimits = field(default_factory=StallLimits)
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __post_init__(self) -> None:
        self.connector = HttpComfyUIConnector(port=self.server.port, timeouts=self.timeouts)
        self.comfyui: HttpComfyUI = self.connector.connect(self.server.address)
        self.clock = SystemClock()

    def submit(self) -> str:
        prompt_id = make_prompt_id()
        self.comfyui.submit(prompt_id, make_picture())
        return prompt_id

    def await_prompt(self, prompt_id: str) -> Awaited:
        job = (
            make_job()
            .admit(instance="i-a#1", instance_id="i-a", address=self.server.address, at=self.now())
            .submit(prompt_id=prompt_id, at=self.now())
        )
        return AwaitPrompt(
            fleets=FLEETS,
            jobs=InMemoryJobStore(job),
            store=InMemoryFleetStore(job.fleet, make_instance("a")),
            connector=self.connector,
            clock=self.clock,
            stall_limits=self.stall_limits,
            poll_seconds=self.poll_seconds,
        ).await_prompt(job.job_id)

    def now(self) -> Any:
        return self.clock.now()

    def end_of(self, prompt_id: str) -> float:
        """When ComfyUI says that the prompt ended."""
        history = requests.get(f"{self.server.url}/history/{prompt_id}", timeout=5).json()
        return history[prompt_id]["status"]["messages"][-1][1]["timestamp"] / 1000


@pytest.fixture(params=PROFILES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path, prompt_seconds=0.2, profile=request.param) as server:
        yield server


def test_an_end_is_seen_within_250_ms_and_never_without_outputs(server: RunningSimulator):
    bench = Bench(server)
    delays = []
    for _ in range(5):
        prompt_id = bench.submit()
        awaited = bench.await_prompt(prompt_id)
        delays.append(time.time() - bench.end_of(prompt_id))
        assert awaited.status is AwaitStatus.SUCCEEDED
        assert len(awaited.job.outputs) == 1
    assert max(delays) < 0.25


def test_an_end_is_seen_within_one_poll_when_the_websocket_is_silent(server: RunningSimulator):
    server.add_fault("silent-websocket")
    bench = Bench(server, poll_seconds=0.5)
    prompt_id = bench.submit()
    assert bench.await_prompt(prompt_id).status is AwaitStatus.SUCCEEDED
    assert time.time() - bench.end_of(prompt_id) < 0.5 + 0.25


def test_a_failure_names_node_class_and_exception(server: RunningSimulator):
    server.add_fault("exception")
    bench = Bench(server)
    with pytest.raises(PromptFailedError, match=r"\(EmptyImage\) failed with RuntimeError"):
        bench.await_prompt(bench.submit())


def test_a_gpu_without_memory_is_a_fault_of_the_instance(server: RunningSimulator):
    server.add_fault("oom")
    bench = Bench(server)
    awaited = bench.await_prompt(bench.submit())
    assert awaited.status is AwaitStatus.LOST
    assert "(EmptyImage) failed with torch.OutOfMemoryError." in awaited.job.fault


def test_fault_18_a_restart_is_seen_as_a_loss_within_one_poll(server: RunningSimulator):
    bench = Bench(server, poll_seconds=0.3)
    server.add_fault("restart", on="prompt")
    prompt_id = bench.submit()
    started = time.monotonic()
    awaited = bench.await_prompt(prompt_id)
    assert (awaited.status, awaited.stall) == (AwaitStatus.LOST, None)
    # Half a prompt, a poll, one second of looking for what is unknown; the rest is slack.
    assert time.monotonic() - started < 5


def test_a_zombie_is_known_by_its_prompt_that_never_ends(server: RunningSimulator):
    server.add_fault("worker-death")
    limits = StallLimits(running=0.6, idle=0.6)
    bench = Bench(server, poll_seconds=0.2, stall_limits=limits, timeouts=HASTY)
    running, waiting = bench.submit(), bench.submit()
    wait_until_running(bench.comfyui, running)
    assert bench.await_prompt(waiting).stall is Stall.BLOCKED
    assert bench.await_prompt(running).stall is Stall.HUNG
    assert not bench.comfyui.find(waiting).is_queued


@pytest.mark.parametrize("profile", PROFILES)
def test_a_zombie_is_known_by_prompts_that_wait_while_none_runs(profile: str, tmp_path: Path):
    with running_simulator(tmp_path, prompt_seconds=60, profile=profile) as server:
        bench = Bench(server, poll_seconds=0.2, stall_limits=StallLimits(running=60, idle=0.6))
        running = bench.submit()
        wait_until_running(bench.comfyui, running)
        # Two prompts of one number and one id cannot be compared: that kills ComfyUI's worker
        # thread when it takes the one before them, here as soon as the running one is cancelled.
        twins = [{"prompt_id": make_prompt_id(), "number": 0}] * 2
        for body in ({"number": -1}, *twins):
            prompt = body | {"prompt": make_picture()}
            requests.post(f"{server.url}/prompt", json=prompt, timeout=5).raise_for_status()
        prompt_id = bench.submit()
        assert bench.comfyui.cancel(running, seconds=10)
        awaited = bench.await_prompt(prompt_id)
        assert (awaited.status, awaited.stall) == (AwaitStatus.LOST, Stall.IDLE)
        assert not bench.comfyui.find(prompt_id).is_queued
