from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from local.simulation.compare_policies import Candidate, list_candidates
from local.simulation.find_bounds import find_clairvoyant_lifetimes, simulate_always_max
from local.simulation.make_trace import TraceKind, TraceOptions, make_trace
from local.simulation.simulate_fleet import (
    SimulationError,
    SimulationOptions,
    SimulationRecord,
    simulate_fleet,
)
from local.simulation.summarize import count_hours, does_pay, find_waits
from local.simulation.traces import Arrival
from ml_service.domain.scaling import ScalingAction
from ml_service.domain.scaling_policy import ScalingPreset, make_policy

MOVES = {"moves_waiting": True}
OUT, IN = ScalingAction.SCALE_OUT, ScalingAction.SCALE_IN


def simulate(
    trace: Sequence[tuple[float, float]],
    preset: str = "streak",
    parameters: Mapping[str, Any] | None = None,
    **options: Any,
) -> SimulationRecord:
    policy = make_policy(ScalingPreset(preset), threshold=5, **(parameters or {}))
    arrivals = [Arrival(*arrival) for arrival in trace]
    return simulate_fleet(arrivals, SimulationOptions(policy, **options))


def waits(record: SimulationRecord) -> list[float]:
    return [job.wait for job in sorted(record.jobs, key=lambda job: job.arrived)]


def calls(record: SimulationRecord) -> list[tuple[float, ScalingAction, int]]:
    return [(call.at, call.action, call.desired) for call in record.calls]


def test_an_instance_runs_one_job_after_the_other():
    record = simulate([(0, 10), (0, 10), (25, 10)])
    assert waits(record) == [0, 10, 0]
    assert record.lifetimes == [(0, 35)]
    assert record.calls == []


def test_the_least_loaded_instance_gets_the_job():
    assert waits(simulate([(0, 50), (1, 50), (2, 50)], minimum=2)) == [0, 0, 48]


def test_by_the_plain_rule_three_checks_over_the_threshold_are_one_instance_more():
    assert calls(simulate([(30, 1000)] * 6))[0] == (180, OUT, 2)
    assert calls(simulate([(30, 1000)] * 5)) == []


def test_by_the_plain_rule_over_twice_the_threshold_is_one_more_at_once_and_then_rest():
    record = simulate([(30, 1000)] * 14)
    assert calls(record)[:2] == [(60, OUT, 2), (660, OUT, 3)]


def test_what_waits_on_an_instance_stays_there_and_what_waits_in_the_queue_does_not():
    """Fourteen slots hold all the jobs on the first instance; two leave them for the next."""
    jobs = [(30, 100)] * 12
    assert max(waits(simulate(jobs))) == 1100
    assert max(waits(simulate(jobs, "need"))) < 600


def test_where_prompts_move_what_waits_goes_to_the_new_instance():
    jobs = [(30, 100)] * 12
    record = simulate(jobs, parameters=MOVES)
    # Ten are left when it is ready, at 300: of those every second goes.
    assert record.moved == 5
    assert max(waits(record)) < 700
    assert simulate(jobs).moved == 0


def test_a_prompt_moves_only_where_fewer_are_before_it_and_never_once_it_runs():
    jobs = [(0, 1000), (1, 1000), (2, 30), (3, 30)]
    record = simulate(jobs, parameters=MOVES, minimum=2)
    assert (record.moved, waits(record)) == (0, [0, 0, 998, 998])
    # The first instance is idle at 100, and the prompt behind the long one looks every 15 s.
    jobs = [(0, 100), (1, 1000), (2, 30), (3, 30)]
    record = simulate(jobs, parameters=MOVES, minimum=2)
    assert record.moved == 1
    assert waits(record) == [0, 0, 98, 135]


def test_by_the_plain_rule_three_idle_checks_are_one_less():
    jobs = [(0, 100)] * 12
    record = simulate([*jobs, (6000, 1)])
    out, in_ = calls(record)
    assert (out, in_) == ((0, OUT, 2), (1320, IN, 1))
    # The last job ends at 1200 sharp, so that check and the next two are idle; 30 s later it goes.
    assert sorted(record.lifetimes) == [(0, 1350), (0, 6001)]


def test_a_launched_instance_takes_jobs_only_after_its_start_up():
    record = simulate([(0, 100)] * 12, "need", startup_seconds=500)
    assert calls(record)[0] == (0, OUT, 3)
    assert [sample.ready for sample in record.samples if sample.at in (495, 510)] == [1, 3]


def test_without_the_victim_protocol_a_job_is_killed_and_runs_once_more():
    """It comes after the decision, to the instance that Auto Scaling then takes."""
    jobs = [(0, 100)] * 12
    late = [(1325, 50), (1326, 50)]
    kept = simulate([*jobs, *late])
    assert (kept.killed, waits(kept)[-2:]) == (0, [0, 49])
    killed = simulate([*jobs, *late], protects_jobs=False)
    assert killed.killed == 1
    assert len(killed.jobs) == 14


def test_a_group_that_may_be_empty_needs_a_policy_that_sees_the_backlog():
    with pytest.raises(SimulationError):
        simulate([(0, 1)], minimum=0)
    for preset in ("need", "elastic"):
        assert len(simulate([(0, 1), (9000, 1)], preset, minimum=0).jobs) == 2


class TestBounds:
    options = SimulationOptions(make_policy(ScalingPreset.STREAK, threshold=5))
    jobs = ((0, 100), (0, 100), (1000, 50), (1000, 50), (1400, 10), (1400, 10), (9000, 10))

    def test_always_max_waits_for_nothing_that_fits(self):
        record = simulate_always_max([Arrival(*job) for job in self.jobs], self.options)
        assert waits(record) == [0] * 7
        assert record.lifetimes == [(0, 9010)] * 3

    def test_a_clairvoyant_launches_in_time_and_keeps_what_it_would_launch_again(self):
        record = simulate_always_max([Arrival(*job) for job in self.jobs], self.options)
        lifetimes = find_clairvoyant_lifetimes(record, self.options)
        assert lifetimes == [(0, 9010), (0, 100), (760, 1050), (1160, 1410)]

    def test_what_lies_less_than_a_start_up_apart_is_one_lifetime(self):
        jobs = [(500, 50), (500, 50), (700, 50), (700, 50)]
        record = simulate_always_max([Arrival(*job) for job in jobs], self.options)
        assert find_clairvoyant_lifetimes(record, self.options)[1:] == [(260, 750)]


@pytest.mark.parametrize("kind", TraceKind)
@pytest.mark.parametrize(
    "candidate", list_candidates(threshold=5), ids=lambda candidate: candidate.name
)
def test_over_days_every_job_runs_none_is_killed_and_no_bound_is_beaten(
    kind: TraceKind, candidate: Candidate
):
    trace = make_trace(TraceOptions(kind, days=0.75, seed=3))
    options = SimulationOptions(candidate.policy)
    record = simulate_fleet(trace, options)
    assert sorted(job.arrived for job in record.jobs) == [arrival.seconds for arrival in trace]
    assert record.killed == 0
    assert all(1 <= sample.ready <= 3 and 1 <= sample.desired <= 3 for sample in record.samples)
    bound = simulate_always_max(trace, options)
    # Means, since a single percentile may fall either way when jobs are in another order.
    assert sum(waits(bound)) <= sum(waits(record)) + len(trace)
    assert simulate_fleet(trace, options).calls == record.calls


@pytest.mark.parametrize("kind", [TraceKind.DIURNAL, TraceKind.BURST])
def test_over_a_week_need_cuts_the_long_waits_by_a_third(kind: TraceKind):
    trace = make_trace(TraceOptions(kind))
    records = {
        preset: simulate_fleet(trace, SimulationOptions(make_policy(preset, threshold=5)))
        for preset in (ScalingPreset.STREAK, ScalingPreset.NEED)
    }
    plain, need = records[ScalingPreset.STREAK], records[ScalingPreset.NEED]
    for before, after in zip(find_waits(plain)[1:], find_waits(need)[1:], strict=True):
        assert after <= before * 2 / 3
    assert need.killed == 0
    assert count_hours(need.lifetimes) < 1.3 * count_hours(plain.lifetimes)
    assert does_pay(plain, need)


def test_on_a_steady_trace_need_does_not_pay():
    trace = make_trace(TraceOptions(TraceKind.STEADY, days=2, jobs_per_hour=30))
    plain, need = (
        simulate_fleet(trace, SimulationOptions(make_policy(preset, threshold=5)))
        for preset in (ScalingPreset.STREAK, ScalingPreset.NEED)
    )
    assert not does_pay(plain, need)
