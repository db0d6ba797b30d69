"""More jobs than there is room for: backlog in SQS, slots, and the fleet that grows and shrinks."""

import time
from pathlib import Path

import pytest
from rich.console import Console

from local.fleet_record import FleetRecord, recording_fleets
from local.load_summary import Expectations, find_misses
from local.load_test import LoadOptions, measure_load
from local.start_local_mode import running_local_mode
from ml_service.adapters.workflow_files import load_catalog

CATALOG = load_catalog(Path(__file__).parents[2] / "workflows")
CONSOLE = Console(quiet=True)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_burst_over_three_fleets_waits_in_sqs_and_each_job_is_answered_once(tmp_path: Path):
    workflows = [CATALOG.workflow(n) for n in ("sonic-audio", "flux-prompt", "music-gen")]
    with running_local_mode(tmp_path, "--prompt-seconds", "0.5") as backend:
        options = LoadOptions(jobs=200, concurrency=200, watch_seconds=30)
        load = measure_load(backend, workflows, options, CONSOLE)
    assert find_misses(load.summary, Expectations()) == []
    assert load.summary.succeeded == 200
    for record in load.fleets:
        assert record.most_waiting > 0, record.fleet
        assert 0 < record.most_slots <= record.slots_per_instance, record.fleet


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_flood_makes_its_fleet_grow_by_the_rule_and_shrink_again(tmp_path: Path):
    """At 30 times the clock: a tick is 2 s, the cooldown 20 s, a boot 8 s."""
    with (
        running_local_mode(tmp_path, "--speed", "30", "--prompt-seconds", "2.5") as backend,
        recording_fleets(backend) as records,
    ):
        options = LoadOptions(jobs=55, concurrency=55)
        load = measure_load(backend, [CATALOG.workflow("latent-sync")], options, CONSOLE)
        flooded, *others = records
        _wait_until_shrunk(flooded)
    assert load.summary.succeeded == 55
    assert flooded.fleet == "lip-sync"
    assert flooded.desired_changes == [1, 2, 3, 2, 1]
    assert flooded.most_busy == 3  # the new instances were given jobs
    assert flooded.most_slots <= flooded.slots_per_instance
    assert [record.desired_changes for record in others] == [[1], [1]]


def _wait_until_shrunk(record: FleetRecord) -> None:
    end = time.monotonic() + 100
    while record.desired_changes[-2:] != [2, 1] and time.monotonic() < end:
        time.sleep(0.5)
