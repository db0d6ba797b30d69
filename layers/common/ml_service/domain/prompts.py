"""What ComfyUI runs for one attempt of a job: its id, its state, when to look again."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_NAMESPACE = uuid.UUID("6f1d3a52-5a0e-4f0e-9d53-0c1f0a6b7a11")

HOLD_SECONDS = 15
"""A prompt that is expected to start within this time is awaited in one call."""
_SHORTEST_WAIT = 5
LONGEST_WAIT = 300
"""Seconds after which a pending prompt is looked at, however far off its start may be."""


CANCEL_SECONDS = 20.0
"""How long to insist on a cancel; a running node notices an interrupt at its next step."""


class PromptState(StrEnum):
    """Where a prompt stands on its instance."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    """Somebody cancelled it while it ran."""
    UNKNOWN = "UNKNOWN"
    """In neither queue nor history: never accepted, deleted, or lost with a restart."""


_INSTANCE_FAULTS = frozenset({"OutOfMemoryError", "AcceleratorError", "MemoryError"})
_INSTANCE_FAULT_WORDS = (
    "cuda error",
    "cuda out of memory",
    "cublas",
    "cudnn",
    "can't allocate memory",
    "no space left on device",
)
"""Other exceptions that torch and the system wrap the same faults in."""


@dataclass(frozen=True)
class NodeFailure:
    """The exception that ended a prompt."""

    node_id: str
    class_type: str
    exception_type: str
    message: str = field(default="", repr=False)
    """ComfyUI's text. It may quote the prompt: it belongs in no log and in no reply."""

    @property
    def is_instance_fault(self) -> bool:
        """Whether the GPU or its memory gave out: elsewhere the same prompt may succeed."""
        kind = self.exception_type.rpartition(".")[2]
        return kind in _INSTANCE_FAULTS or any(
            words in self.message.lower() for words in _INSTANCE_FAULT_WORDS
        )

    @property
    def sentence(self) -> str:
        """What the backend and the logs may read."""
        return f"Node {self.node_id} ({self.class_type}) failed with {self.exception_type}."


@dataclass(frozen=True)
class Progress:
    """How far a running prompt has come, as far as its instance reported it."""

    nodes_done: int
    node_id: str = ""
    """The node that runs now."""
    share: float = 0.0
    """How much of that node is done, from 0 to 1."""


@dataclass(frozen=True)
class Prompt:
    """One look at a prompt."""

    state: PromptState
    position: int = 0
    """Prompts that run or wait before it, while PENDING."""
    copies: int = 1
    """How often the queue holds it, while PENDING or RUNNING: ComfyUI would run each copy."""
    head: str = ""
    """Id of the prompt that runs on the instance, while PENDING or RUNNING; empty if none does."""
    outputs: Mapping[str, Mapping[str, Sequence[object]]] = field(default_factory=dict)
    """Once SUCCEEDED: ComfyUI's outputs, by node and kind."""
    failure: NodeFailure | None = None
    """Once FAILED, unless ComfyUI gave no reason."""

    @property
    def is_queued(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (PromptState.PENDING, PromptState.RUNNING)


class Stall(StrEnum):
    """Why nothing more is to be expected of an instance's queue."""

    HUNG = "HUNG"
    """The prompt itself has been running for longer than any may."""
    BLOCKED = "BLOCKED"
    """Another prompt has been running before it for longer than any may."""
    IDLE = "IDLE"
    """Prompts wait and none runs: the thread that runs them has died."""


@dataclass(frozen=True)
class StallLimits:
    """After how many seconds without a change an instance's queue counts as stalled."""

    running: float = 1800
    """Half the default run deadline: what waits behind a hung node has the rest of it."""
    idle: float = 60
    """Between two prompts ComfyUI frees memory, which takes seconds."""


def find_stall(prompt: Prompt, *, unchanged_seconds: float, limits: StallLimits) -> Stall | None:
    """Whether the queue has stalled before or on a queued prompt.

    ``unchanged_seconds`` is how long the head of the queue has been the same. A server whose worker
    thread died answers every request and runs nothing, so only time gives it away.
    """
    if prompt.state is PromptState.RUNNING:
        return Stall.HUNG if unchanged_seconds >= limits.running else None
    if prompt.state is not PromptState.PENDING:
        return None
    if prompt.head:
        return Stall.BLOCKED if unchanged_seconds >= limits.running else None
    return Stall.IDLE if unchanged_seconds >= limits.idle else None


def make_prompt_id(*, stage: str, job_id: str, attempt: int) -> str:
    """The prompt id of an attempt: the same for every repeat of the same call.

    Canonical lowercase, since newer ComfyUI versions accept nothing else.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{stage}/{job_id}/{attempt}"))


def make_warm_up_id(*, stage: str, instance: str, step: int) -> str:
    """The prompt id of a step of an instance's warm-up, the same for every repeat."""
    return str(uuid.uuid5(_NAMESPACE, f"{stage}/warm-up/{instance}/{step}"))


def seconds_until_look(
    position: int,
    *,
    expected_seconds: float,
    waited_seconds: float,
    longest_seconds: int = LONGEST_WAIT,
) -> int:
    """How long to wait before looking at a pending prompt again; 0 means to hold on to it.

    What stands before it is taken to run as long as it will itself. Since that may be far off (a
    queue of prompts that fail at once is over in seconds), the first seconds are held, and no wait
    is longer than the whole time so far: an end is noticed, at the latest, at twice the time it
    took.
    """
    until_start = position * expected_seconds
    if position <= 1 or until_start <= HOLD_SECONDS or waited_seconds < _SHORTEST_WAIT:
        return 0
    wait = min(until_start - HOLD_SECONDS, waited_seconds, longest_seconds)
    return max(math.floor(wait), _SHORTEST_WAIT)
