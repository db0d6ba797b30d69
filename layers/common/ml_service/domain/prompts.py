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
_LONGEST_WAIT = 300


class PromptState(StrEnum):
    """Where a prompt stands on its instance."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    """In neither queue nor history: never accepted, deleted, or lost with a restart."""


@dataclass(frozen=True)
class Prompt:
    """One look at a prompt."""

    state: PromptState
    position: int = 0
    """Prompts that run or wait before it, while PENDING."""
    outputs: Mapping[str, Mapping[str, Sequence[object]]] = field(default_factory=dict)
    """Once SUCCEEDED: ComfyUI's outputs, by node and kind."""
    failure: str = ""
    """Once FAILED: one sentence, without any text of the prompt."""


def make_prompt_id(*, stage: str, job_id: str, attempt: int) -> str:
    """The prompt id of an attempt: the same for every repeat of the same call.

    Canonical lowercase, since newer ComfyUI versions accept nothing else.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{stage}/{job_id}/{attempt}"))


def seconds_until_look(position: int, *, expected_seconds: float, waited_seconds: float) -> int:
    """How long to wait before looking at a pending prompt again; 0 means to hold on to it.

    What stands before it is taken to run as long as it will itself. Since that may be far off (a
    queue of prompts that fail at once is over in seconds), the first seconds are held, and no wait
    is longer than the whole time so far: an end is noticed, at the latest, at twice the time it
    took.
    """
    until_start = position * expected_seconds
    if position <= 1 or until_start <= HOLD_SECONDS or waited_seconds < _SHORTEST_WAIT:
        return 0
    wait = min(until_start - HOLD_SECONDS, waited_seconds, _LONGEST_WAIT)
    return max(math.floor(wait), _SHORTEST_WAIT)
