"""The chaos run in its short form: instances die, functions die, and no job notices."""

from pathlib import Path

import pytest
from rich.console import Console

from local.chaos.harm_stage import Strike
from local.chaos.run_chaos import ChaosOptions, measure_chaos
from local.start_local_mode import running_local_mode

OPTIONS = ChaosOptions(
    jobs=16,
    minutes=0.25,
    seed=11,
    # The messages that these held come again after one minute and three: too long for a test.
    spared=frozenset({"admit-jobs", "dispatch-jobs"}),
)
JOB_FAULTS = {Strike.TERMINATE, Strike.REPLACE, Strike.RESTART, Strike.STALL, Strike.ZOMBIE}


@pytest.mark.timeout(400)
def test_each_job_has_one_answer_although_instances_and_functions_are_killed(tmp_path: Path):
    with running_local_mode(tmp_path, *OPTIONS.local_mode_options) as backend:
        result = measure_chaos(backend, OPTIONS, Console(quiet=True))
    assert result.broken == []
    assert result.figures.accepted == result.figures.answered == 16
    # It was no quiet run.
    assert result.saboteur.strikes[Strike.KILL_PROCESS] > 0
    assert result.saboteur.strikes.keys() & JOB_FAULTS
