import uuid

import pytest

from ml_service.domain.prompts import (
    NodeFailure,
    Prompt,
    PromptState,
    Stall,
    StallLimits,
    find_stall,
    make_prompt_id,
    seconds_until_look,
)


def test_a_prompt_id_is_stable_canonical_and_its_own_for_each_attempt():
    ids = [make_prompt_id(stage="dev", job_id="j", attempt=n) for n in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == str(uuid.UUID(ids[0]))
    assert ids[0] != make_prompt_id(stage="prod", job_id="j", attempt=1)


@pytest.mark.parametrize(
    ("position", "expected_seconds", "waited_seconds", "wait"),
    [
        (1, 600, 9999, 0),  # next in the queue
        (3, 5, 9999, 0),  # starts within 15 s
        (2, 10, 9999, 5),  # never less than 5 s
        (4, 80, 9999, 300),  # never more than 300 s
        (3, 20, 9999, 45),
        (3, 20, 0, 0),  # just submitted: the queue may be quick
        (3, 20, 4.9, 0),
        (3, 20, 5, 5),
        (3, 20, 12.7, 12),  # never longer than it has waited
    ],
)
def test_a_pending_prompt_is_looked_at_when_its_start_is_near(
    position: int, expected_seconds: float, waited_seconds: float, wait: int
):
    found = seconds_until_look(
        position, expected_seconds=expected_seconds, waited_seconds=waited_seconds
    )
    assert found == wait


RUNNING = Prompt(PromptState.RUNNING, head="me")
BEHIND = Prompt(PromptState.PENDING, position=1, head="other")
FIRST = Prompt(PromptState.PENDING)


@pytest.mark.parametrize(
    ("prompt", "unchanged_seconds", "stall"),
    [
        (RUNNING, 99, None),
        (RUNNING, 100, Stall.HUNG),
        (BEHIND, 99, None),
        (BEHIND, 100, Stall.BLOCKED),
        (FIRST, 9, None),
        (FIRST, 10, Stall.IDLE),
        (Prompt(PromptState.SUCCEEDED), 1000, None),
        (Prompt(PromptState.UNKNOWN), 1000, None),
    ],
)
def test_a_queue_stalls_when_its_head_stays_the_same_for_too_long(
    prompt: Prompt, unchanged_seconds: float, stall: Stall | None
):
    limits = StallLimits(running=100, idle=10)
    assert find_stall(prompt, unchanged_seconds=unchanged_seconds, limits=limits) is stall


@pytest.mark.parametrize(
    ("exception_type", "message", "expected"),
    [
        ("torch.OutOfMemoryError", "", True),
        ("torch.cuda.OutOfMemoryError", "", True),
        ("torch.AcceleratorError", "CUDA error: an illegal memory access", True),
        ("MemoryError", "", True),
        ("RuntimeError", "CUDA error: device-side assert triggered", True),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory", True),
        ("OSError", "[Errno 28] No space left on device", True),
        ("RuntimeError", "The size of tensor a (4) must match the size of tensor b (3)", False),
        ("PIL.UnidentifiedImageError", "cannot identify image file", False),
        ("ValueError", "", False),
    ],
)
def test_a_gpu_that_gave_out_is_told_from_a_node_that_cannot(exception_type, message, expected):
    failure = NodeFailure("3", "KSampler", exception_type, message)
    assert failure.is_instance_fault is expected
