"""Whatever a server suffers, a prompt has one known end and runs at most once on one start of it.

The long form is `make soak`.
"""

import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from local.comfyui.faults import FaultKind
from local.comfyui.profiles import PROFILE_0_12, PROFILES
from local.comfyui.simulator import running_simulator
from tests.integration.prompt_soak import Ending, Outcome, PromptSoak


@pytest.mark.parametrize(
    ("profile", "prompts"),
    [
        pytest.param(PROFILE_0_12.name, 60, id="short"),
        *(
            pytest.param(
                profile, 1000, id=profile, marks=[pytest.mark.soak, pytest.mark.timeout(1200)]
            )
            for profile in PROFILES
        ),
    ],
)
def test_every_prompt_has_one_known_end_and_none_runs_twice(
    tmp_path: Path, profile: str, prompts: int
):
    with running_simulator(tmp_path, prompt_seconds=0.05, profile=profile) as server:
        soak = PromptSoak(server, seed=7)
        started = time.monotonic()
        soak.run(prompts)
        figures = soak.describe(time.monotonic() - started)
        sys.stdout.write(f"\nComfyUI {profile}: {figures}\n")
        assert len(soak.endings) == len({ending.prompt_id for ending in soak.endings}) == prompts
        check_runs(soak)
        struck = {fault["kind"] for fault in server.faults if fault["strikes"]}
        assert struck == {*FaultKind}


def check_runs(soak: PromptSoak) -> None:
    """The server's own record of what ran agrees with every ending."""
    runs = soak.server.runs
    # So a prompt that ran twice did so before and after a restart, which it was lost with.
    repeats = Counter((run.prompt_id, run.start_number) for run in runs)
    assert max(repeats.values()) == 1
    for ending in soak.endings:
        ends = [run.end for run in runs if run.prompt_id == ending.prompt_id]
        assert agrees(ending, ends), (ending, ends)


def agrees(ending: Ending, ends: list[str | None]) -> bool:
    was_lost = ending.last_start > ending.first_start
    match ending.outcome:
        case Outcome.COLLECTED | Outcome.OUTPUT_MISSING:
            return ends[-1] == "success"
        case Outcome.FAILED:
            return ends[-1] == "error"
        case Outcome.CANCELLED:
            return was_lost or "success" not in ends
        case Outcome.LOST:
            # With its server, or as a fault of the GPU, which another instance may not have.
            return was_lost or ends == ["error"]
    return True
