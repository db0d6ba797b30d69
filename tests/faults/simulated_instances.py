"""Instances whose prompts run by the clock, one after the other, and that can die or go silent."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO

from ml_service.domain.errors import (
    InstanceSilentError,
    InstanceUnreachableError,
    OutputMissingError,
)
from ml_service.domain.prompts import Prompt, PromptState
from ml_service.domain.results import OutputFile
from ml_service.ports import MediaStream
from tests.fakes import FakeClock


@dataclass
class SimulatedInstance:
    """One instance's ComfyUI; it keeps the port's promise that a prompt is queued once."""

    instance_id: str
    address: str
    clock: FakeClock
    runs: list[str] = field(default_factory=list)
    """Ids of the prompts that ran to their end, on all instances that share the list."""
    prompt_seconds: float = 3.0
    is_alive: bool = True
    is_silent: bool = False
    hangs: bool = False
    queue: list[str] = field(default_factory=list)
    started_at: datetime | None = None
    history: dict[str, Prompt] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    """Ids of the prompts that had run when a restart wiped the history."""

    def count_prompts(self) -> int:
        self._check()
        return len(self.queue)

    def upload(self, name: str, content: MediaStream) -> str:
        self._check()
        content.content.read()
        return name

    def submit(self, prompt_id: str, graph: Mapping[str, object]) -> None:
        self._check()
        if prompt_id not in self.queue and prompt_id not in self.history:
            self.queue.append(prompt_id)
            self._begin_next(self.clock.now())

    def find(self, prompt_id: str) -> Prompt:
        self._check()
        if prompt_id not in self.queue:
            return self.history.get(prompt_id, Prompt(PromptState.UNKNOWN))
        position = self.queue.index(prompt_id)
        state = PromptState.PENDING if position else PromptState.RUNNING
        return Prompt(state, position=position, head=self.queue[0])

    def drop_copies(self, prompt_id: str) -> None:
        raise AssertionError("there are no copies")

    @contextmanager
    def watch(self, prompt_id: str) -> Iterator["ClockedPromptWatch"]:
        yield ClockedPromptWatch(self.clock)

    @contextmanager
    def open_output(self, file: OutputFile) -> Iterator[BinaryIO]:
        self._check()
        if file.filename not in self.files:
            raise OutputMissingError(file.filename)
        yield io.BytesIO(self.files[file.filename])

    def cancel(self, prompt_id: str, *, seconds: float) -> bool:
        self._check()
        if prompt_id not in self.queue:
            return True
        if self.hangs and self.queue[0] == prompt_id:
            return False
        if self.queue[0] == prompt_id:
            self.started_at = None
        self.queue.remove(prompt_id)
        self._begin_next(self.clock.now())
        return True

    def withdraw(self, prompt_id: str) -> bool:
        self._check()
        if prompt_id in self.queue[1:]:
            self.queue.remove(prompt_id)
        return prompt_id not in self.queue and prompt_id not in self.history

    def forget(self, prompt_id: str) -> None:
        self._check()
        self.history.pop(prompt_id, None)

    def restart(self) -> None:
        """Come back with an empty memory."""
        self.run()
        self.queue.clear()
        self.forgotten.extend(self.history)
        self.history.clear()
        self.started_at = None
        self.hangs = False

    def _check(self) -> None:
        self.run()
        if not self.is_alive:
            raise InstanceUnreachableError(self.address)
        if self.is_silent:
            raise InstanceSilentError(self.address)

    def run(self) -> None:
        """Let end what has ended by now."""
        while self.is_alive and not self.hangs and self.started_at is not None:
            ends = self.started_at + timedelta(seconds=self.prompt_seconds)
            if ends > self.clock.now():
                return
            self._end(self.queue.pop(0))
            self.started_at = None
            self._begin_next(ends)

    def _end(self, prompt_id: str) -> None:
        self.runs.append(prompt_id)
        name = f"{prompt_id}.png"
        self.files[name] = b"picture"
        entry = {"filename": name, "subfolder": "", "type": "output"}
        self.history[prompt_id] = Prompt(PromptState.SUCCEEDED, outputs={"1": {"images": [entry]}})

    def _begin_next(self, at: datetime) -> None:
        if self.queue and self.started_at is None:
            self.started_at = at


@dataclass
class ClockedPromptWatch:
    """No news ever: time passes."""

    clock: FakeClock
    progress: None = None

    def wait(self, seconds: float) -> None:
        self.clock.sleep(seconds)


@dataclass
class SimulatedInstances:
    """Those that exist, by address: the connector and the probe of the services."""

    by_address: dict[str, SimulatedInstance] = field(default_factory=dict)

    def connect(self, address: str) -> SimulatedInstance:
        return self.by_address[address]

    def count_prompts(self, addresses: list[str]) -> Mapping[str, int | None]:
        readings: dict[str, int | None] = {}
        for address in addresses:
            try:
                readings[address] = self.by_address[address].count_prompts()
            except InstanceUnreachableError:
                readings[address] = None
        return readings
