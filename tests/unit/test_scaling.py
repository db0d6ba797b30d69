import itertools
from collections.abc import Sequence
from datetime import time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_service.domain.scaling import (
    FleetObservation,
    ScalerState,
    ScalingAction,
    ScalingDecision,
    decide_scaling,
)
from ml_service.domain.scaling_policy import (
    ScalingPolicy,
    ScalingPreset,
    ScheduledBounds,
    make_policy,
)
from tests.fakes import NOON

POLICY = ScalingPolicy(threshold=5)
MINUTE = timedelta(minutes=1)
OUT, IN, NONE = ScalingAction.SCALE_OUT, ScalingAction.SCALE_IN, ScalingAction.NONE

Readings = Sequence[int | None]


def observe(minute: float, readings: Readings, **changes: Any) -> FleetObservation:
    return FleetObservation(
        **{
            "tick": NOON + minute * MINUTE,
            "desired": 2,
            "minimum": 1,
            "maximum": 3,
            "readings": tuple(readings),
            **changes,
        }
    )


Check = Readings | dict[str, Any]


def run(*checks: Check, policy: ScalingPolicy = POLICY, **changes: Any) -> list[ScalingDecision]:
    """One check after the other; desired capacity follows the decisions.

    A check is the readings, or a mapping with whatever else is seen in it.
    """
    state, decisions, desired = ScalerState(), [], changes.pop("desired", 2)
    for number, check in enumerate(checks):
        seen = check if isinstance(check, dict) else {"readings": check}
        minute = number * (policy.check_interval / MINUTE)
        observation = observe(minute, **{"desired": desired, **changes, **seen})
        decision = decide_scaling(observation, state, policy)
        assert decision is not None
        state, desired = decision.state, decision.desired
        decisions.append(decision)
    return decisions


def actions(*checks: Check, **changes: Any) -> list[ScalingAction]:
    return [decision.action for decision in run(*checks, **changes)]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        pytest.param(readings, expected, id=sentence)
        for sentence, readings, expected in [
            ("max over T three checks in a row: one more", [[6], [6], [6]], [NONE, NONE, OUT]),
            ("two checks are not three", [[6], [6], [5]], [NONE, NONE, NONE]),
            ("exceeds is strictly greater", [[5], [5], [5]], [NONE, NONE, NONE]),
            ("the max, not the mean, counts", [[0, 6], [6, 1], [0, 9]], [NONE, NONE, OUT]),
            ("max over 2T: one more at once", [[11]], [OUT]),
            ("exactly 2T is not over it", [[10]], [NONE]),
            ("exactly 2T is over T", [[10], [10], [10]], [NONE, NONE, OUT]),
            ("max 0 three checks in a row: one less", [[0, 0]] * 3, [NONE, NONE, IN]),
            ("max 1 is not 0", [[0, 1]] * 3, [NONE] * 3),
            ("anything between resets the idle streak", [[0], [0], [1], [0]], [NONE] * 4),
            ("anything between resets the busy streak", [[6], [6], [3], [6]], [NONE] * 4),
            ("busy checks reset the idle streak", [[0], [0], [6], [0], [0]], [NONE] * 5),
            ("idle checks reset the busy streak", [[6], [6], [0], [6], [6]], [NONE] * 5),
            ("unreachable is unknown, never 0", [[0], [0], [0, None], [0]], [NONE] * 4),
            ("known readings may scale out at once", [[11, None]], [OUT]),
            ("known readings may scale out in a streak", [[6, None]] * 3, [NONE, NONE, OUT]),
            ("all unknown means no action", [[None], [None], [None]], [NONE] * 3),
            ("all unknown resets the streaks", [[6], [6], [None], [6], [6]], [NONE] * 5),
            ("no running instance is no action", [[], [], []], [NONE] * 3),
            ("nothing counts in the 600 s", [[11], *[[20]] * 9, [20]], [OUT, *[NONE] * 9, OUT]),
        ]
    ],
)
def test_the_rule(readings: list[Readings], expected: list[ScalingAction]):
    assert actions(*readings, desired=2 if IN in expected else 1) == expected


@pytest.mark.parametrize(
    ("threshold", "reading", "expected"),
    [(3, 3, 0), (3, 4, 3), (3, 6, 3), (3, 7, 1), (5, 5, 0), (5, 6, 3), (5, 10, 3), (5, 11, 1)],
)
def test_the_bounds_of_each_fleets_threshold(threshold: int, reading: int, expected: int):
    """`expected` is the check that scales out; 0: none does."""
    acted = actions(*[[reading]] * 3, policy=ScalingPolicy(threshold=threshold), desired=1)
    assert (acted.index(OUT) + 1 if OUT in acted else 0) == expected


def test_never_over_the_maximum():
    decision = run([11], desired=3)[0]
    assert decision.action is NONE
    assert "maximum" in decision.reason


def test_never_under_the_minimum():
    decision = run([0], [0], [0], desired=1)[-1]
    assert decision.action is NONE
    assert "minimum" in decision.reason


def follow(
    checks: Sequence[Check],
    *,
    desired: int = 2,
    policy: ScalingPolicy = POLICY,
    maximum: int = 9,
) -> list[int]:
    """Desired capacity after each check; one that may do nothing leaves it.

    A check's ``minute`` is the one after the last one's, unless it says another.
    """
    state, found, minute = ScalerState(), [], -1.0
    for check in checks:
        seen = dict(check) if isinstance(check, dict) else {"readings": check}
        minute = seen.pop("minute", minute + policy.check_interval / MINUTE)
        desired = seen.pop("desired", desired)
        observation = observe(minute, **{"desired": desired, "maximum": maximum, **seen})
        decision = decide_scaling(observation, state, policy)
        if decision is not None:
            state, desired = decision.state, decision.desired
        found.append(desired)
    return found


def at(*minutes: float, readings: Readings = (6,)) -> list[Check]:
    return [{"minute": minute, "readings": readings} for minute in minutes]


def busy(checks: int, **seen: Any) -> list[Check]:
    return [{"readings": [20], **seen}] * checks


def idle(checks: int, **seen: Any) -> list[Check]:
    return [{"readings": [0, 0], **seen}] * checks


SILENT = [
    (
        "launching is capacity: never over the maximum with it",
        busy(3, launching=1, maximum=3),
        [3] * 3,
        3,
    ),
    ("launching blocks scale-in", idle(4, launching=1), [2] * 4, 2),
    ("one that runs is no launching one any more", idle(3), [2, 2, 1], 2),
    ("a failed launch never lowers desired", idle(30, launching=1), [2] * 30, 2),
    ("a reading that is unknown blocks scale-in", idle(9, readings=[0, None]), [2] * 9, 2),
    ("all unknown: no action", busy(5, readings=[None, None]), [2] * 5, 2),
    ("a duplicate does nothing", at(0, 0, 0.9, 1, 1.5, 2), [1, 1, 1, 1, 1, 2], 1),
    ("a late tick does nothing", at(5, 4, 0, 6, 7), [1, 1, 1, 1, 2], 1),
    ("a clock that was ahead does no harm", at(9, 1, 2, 10, 11), [1, 1, 1, 1, 2], 1),
    ("150 s between two ticks are no gap", at(0, 1, 3.5), [1, 1, 2], 1),
    ("a gap over 150 s restarts the busy streak", at(0, 1, 3.51, 4, 5), [1, 1, 1, 1, 2], 1),
    (
        "a gap over 150 s restarts the idle streak",
        at(0, 1, 4, 5, 6, readings=(0, 0)),
        [2, 2, 2, 2, 1],
        2,
    ),
    ("600 s from the accepted call: not a check less", busy(11), [2, *[2] * 9, 3], 1),
    (
        "nothing is counted in the cooldown: the streak is built anew after it",
        [[11], *[[6]] * 12],
        [2, *[2] * 11, 3],
        1,
    ),
    (
        "a person's change is adopted, ends the streaks and starts the cooldown",
        [[6], [6], {"readings": [6], "desired": 3}, *busy(10)],
        [2, 2, 3, *[3] * 9, 4],
        2,
    ),
    (
        "a person's change is never reverted",
        [[3], {"readings": [3], "desired": 4}, *[[3]] * 30],
        [2, *[4] * 31],
        2,
    ),
    ("paused by its tag", busy(5, is_paused=True), [2] * 5, 2),
    ("no longer paused", [*busy(5, is_paused=True), *busy(1)], [2] * 5 + [3], 2),
    ("suspended: no scale-in", idle(5, obstacles=["Terminate is suspended."]), [2] * 5, 2),
    ("an instance refresh: no scale-in", idle(5, obstacles=["A refresh goes on."]), [2] * 5, 2),
    ("no reuse by the warm pool: no scale-in", idle(5, obstacles=["No reuse."]), [2] * 5, 2),
    ("no obstacle any more", [*idle(5, obstacles=["No reuse."]), *idle(1)], [2] * 5 + [1], 2),
    ("an obstacle stops no scale-out", busy(1, obstacles=["Terminate is suspended."]), [3], 2),
    ("desired is clamped to the group's own maximum", busy(1, maximum=2), [2], 2),
    ("desired is clamped to the group's own minimum", idle(9, minimum=2), [2] * 9, 2),
]


@pytest.mark.parametrize(
    ("checks", "expected", "desired"),
    [pytest.param(*row, id=sentence) for sentence, *row in SILENT],
)
def test_where_the_rule_is_silent(checks: list[Check], expected: list[int], desired: int):
    assert follow(checks, desired=desired) == expected


def test_fault_35_a_repeated_or_late_tick_does_nothing():
    state = ScalerState(last_tick=NOON, busy_checks=2, desired=2)
    assert decide_scaling(observe(0, [6]), state, POLICY) is None
    assert decide_scaling(observe(-1, [6]), state, POLICY) is None
    assert decide_scaling(observe(0.99, [6]), state, POLICY) is None, "the same minute"
    assert decide_scaling(observe(1, [6]), state, POLICY) is not None


def test_fault_35_a_gap_restarts_the_streak():
    state = ScalerState(last_tick=NOON, busy_checks=2, desired=2)
    late = decide_scaling(observe(2.6, [6]), state, POLICY)
    in_time = decide_scaling(observe(2.5, [6]), state, POLICY)
    assert late is not None
    assert late.action is NONE
    assert late.state.busy_checks == 1
    assert in_time is not None
    assert in_time.action is OUT


def test_a_clock_that_was_ahead_stops_the_scaler_no_longer_than_it_was_wrong():
    state = ScalerState(last_tick=NOON + 5 * MINUTE, desired=2)
    assert decide_scaling(observe(5, [11]), state, POLICY) is None
    decision = decide_scaling(observe(6, [11]), state, POLICY)
    assert decision is not None
    assert decision.action is OUT


def test_a_persons_change_is_adopted_and_starts_the_cooldown():
    state = ScalerState(last_tick=NOON, busy_checks=2, desired=2)
    decision = decide_scaling(observe(1, [20], desired=1), state, POLICY)
    assert decision is not None
    assert (decision.action, decision.desired) == (NONE, 1)
    assert decision.state.cooldown_until == NOON + MINUTE + POLICY.out_cooldown
    assert decision.state.busy_checks == 0


def test_a_refused_action_starts_no_cooldown_and_keeps_the_streak():
    refused = run([6], [6], [6], desired=1)[-1].state_if_refused
    assert refused.cooldown_until is None
    again = decide_scaling(observe(3, [6], desired=1), refused, POLICY)
    assert again is not None
    assert again.action is OUT


class TestAfterACrash:
    """The check was taken and its action begun: what the group says tells how far it came."""

    claim = run([6], [6], [6], desired=1)[-1].claim

    def test_before_the_action_it_is_tried_again(self):
        decision = decide_scaling(observe(3, [6], desired=1), self.claim, POLICY)
        assert decision is not None
        assert (decision.action, decision.desired) == (OUT, 2)

    def test_after_the_action_it_is_our_own_and_its_cooldown_holds(self):
        decision = decide_scaling(observe(3, [20], desired=2), self.claim, POLICY)
        assert decision is not None
        assert "Cooling down until 12:12:00" in decision.reason
        later = decide_scaling(observe(4, [20], desired=2), decision.state, POLICY)
        assert later is not None
        assert "Cooling down" in later.reason

    def test_any_other_capacity_is_a_persons(self):
        decision = decide_scaling(observe(3, [20], desired=3), self.claim, POLICY)
        assert decision is not None
        assert "changed from 1 to 3" in decision.reason


@pytest.mark.parametrize(
    ("changes", "policy"),
    [({"is_paused": True}, POLICY), ({}, ScalingPolicy(threshold=5, is_paused=True))],
    ids=["by the group's tag", "by the policy"],
)
def test_a_pause_stops_acting_not_observing(changes: dict[str, Any], policy: ScalingPolicy):
    decisions = run([6], [6], [6], policy=policy, desired=1, **changes)
    assert [d.action for d in decisions] == [NONE] * 3
    assert decisions[-1].reason.endswith("for 3 checks in a row. Paused: not done.")
    resumed = decide_scaling(observe(3, [6], desired=1), decisions[-1].state, POLICY)
    assert resumed is not None
    assert resumed.action is OUT


def test_a_dry_run_says_what_it_would_do_as_often_as_it_would():
    policy = ScalingPolicy(threshold=5, is_dry_run=True)
    decisions = run(*[[11]] * 11, policy=policy, desired=1)
    assert {(d.action, d.desired) for d in decisions} == {(NONE, 1)}
    said = [number for number, d in enumerate(decisions) if "Dry run" in d.reason]
    assert said == [0, 10]


@pytest.mark.parametrize(
    "obstacle", ["The process Terminate is suspended.", "An instance refresh is going on."]
)
def test_an_obstacle_stops_scaling_in_and_is_said(obstacle: str):
    blocked = run([0], [0], [0], [0], obstacles=[obstacle])
    assert [d.action for d in blocked] == [NONE] * 4
    assert blocked[-1].reason.endswith(f"No scale-in: {obstacle}")
    gone = decide_scaling(observe(4, [0, 0]), blocked[-1].state, POLICY)
    assert gone is not None
    assert gone.action is IN
    assert actions([11], obstacles=[obstacle]) == [OUT], "it stops nothing else"


class TestImprovements:
    """Each is a parameter of its own, off in the plain rule."""

    def test_none_is_on_by_itself(self):
        seen = {"readings": [2, 0, 0], "backlog": 500, "desired": 3, "maximum": 9}
        assert actions(*[seen] * 60) == [NONE] * 60

    @pytest.mark.parametrize(
        ("readings", "backlog", "longest"),
        [([2, 1], 0, 2), ([2, 1], 1, 3), ([2, 1], 2, 3), ([2, 1], 3, 4), ([2, None], 3, 5)],
    )
    def test_the_backlog_is_shared_by_the_instances_that_answer(self, readings, backlog, longest):
        policy = ScalingPolicy(threshold=5, counts_backlog=True)
        (decision,) = run({"readings": readings, "backlog": backlog}, policy=policy)
        assert f"The longest queue is {longest}:" in decision.reason

    def test_a_backlog_starts_an_empty_fleet(self):
        policy = ScalingPolicy(threshold=5, counts_backlog=True)
        empty = {"desired": 0, "minimum": 0, "policy": policy}
        assert actions({"readings": [], "backlog": 1}, **empty) == [OUT]
        assert actions({"readings": [], "backlog": 0}, **empty) == [NONE]

    def test_a_backlog_that_nobody_counted_blocks_scaling_in(self):
        policy = ScalingPolicy(threshold=5, counts_backlog=True)
        assert actions(*[{"readings": [0, 0], "backlog": None}] * 5, policy=policy) == [NONE] * 5
        assert actions(*[{"readings": [0, 0], "backlog": 0}] * 3, policy=policy)[-1] is IN

    def test_a_step_by_need_brings_every_queue_to_the_threshold(self):
        policy = ScalingPolicy(threshold=5, sizes_step_by_need=True)
        assert run([11], desired=1, maximum=9, policy=policy)[0].desired == 3
        assert run([26, 9], desired=2, maximum=9, policy=policy)[0].desired == 7
        assert run([60], desired=1, maximum=4, policy=policy)[0].desired == 4
        assert run([11, 0, 0, 0], desired=4, maximum=9, policy=policy)[0].desired == 5

    def test_a_streak_still_adds_one_step(self):
        policy = ScalingPolicy(threshold=5, sizes_step_by_need=True, step=2)
        assert run([9], [9], [9], desired=1, maximum=9, policy=policy)[-1].desired == 3

    @pytest.mark.parametrize(
        ("readings", "desired"),
        [
            ([[1, 0, 0]] * 3, 1),
            ([[0, 0, 0]] * 3, 1),
            ([[1, 0, 0], [1, 1, 0], [0, 0, 0]], 2),
            ([[2, 0, 0]] * 3, 2),
            ([[1, 1, 1]] * 3, 3),
            ([[2, 1, 0]] * 3, 3),
            ([[1, 0, 0], [1, 1, 1], [1, 0, 0]], 3),
            ([[1, 0, 0], [1, None, 0], [1, 0, 0]], 3),
        ],
    )
    def test_by_need_what_no_check_of_the_streak_needed_goes(self, readings, desired):
        policy = ScalingPolicy(threshold=5, shrinks_by_need=True)
        assert run(*readings, desired=3, policy=policy)[-1].desired == desired

    def test_a_streak_that_was_broken_forgets_its_peak(self):
        policy = ScalingPolicy(threshold=5, shrinks_by_need=True)
        readings = [[1, 1, 0], [3, 1, 1], *[[1, 0, 0]] * 3]
        assert run(*readings, desired=3, policy=policy)[-1].desired == 1

    def test_a_slot_that_is_taken_is_a_prompt_to_come(self):
        policy = ScalingPolicy(threshold=5, shrinks_by_need=True)
        seen = {"readings": [1, 0, 0], "jobs": 3, "desired": 3}
        assert actions(*[seen] * 3, policy=policy)[-1] is NONE

    def test_each_direction_has_its_cooldown(self):
        policy = ScalingPolicy(
            threshold=5, out_cooldown=timedelta(seconds=240), in_cooldown=timedelta(seconds=480)
        )
        busy = actions(*[[11]] * 6, desired=1, policy=policy)
        assert busy == [OUT, NONE, NONE, NONE, OUT, NONE]
        idle = actions([11], *[[0]] * 12, desired=1, policy=policy)
        assert idle == [OUT, *[NONE] * 9, IN, NONE, NONE]

    def test_several_checks_in_a_minute_are_one_step_each(self):
        policy = ScalingPolicy(threshold=5, checks_per_tick=4)
        assert actions([6], [6], [6], desired=1, policy=policy) == [NONE, NONE, OUT]
        state = ScalerState(last_tick=NOON, desired=2)
        assert decide_scaling(observe(0.2, [6]), state, policy) is None
        assert decide_scaling(observe(0.25, [6]), state, policy) is not None

    def test_the_policys_bounds_hold_within_the_groups(self):
        policy = ScalingPolicy(threshold=5, minimum=2, maximum=2)
        assert actions([20], policy=policy) == [NONE]
        assert actions([0], [0], [0], policy=policy) == [NONE] * 3
        assert run([2], desired=1, policy=policy)[0].desired == 2
        wider = ScalingPolicy(threshold=5, minimum=0, maximum=50)
        assert actions([20], desired=3, policy=wider) == [NONE]
        assert actions([0], [0], [0], desired=1, policy=wider) == [NONE] * 3

    def test_a_schedule_holds_while_it_covers_the_time(self):
        """From 12:02 to 12:05 two at least; then the rule goes on, ten minutes after the last."""
        stretch = ScheduledBounds(starts_at=time(12, 2), ends_at=time(12, 5), minimum=2)
        policy = ScalingPolicy(threshold=5, schedule=[stretch])
        counts = follow([*idle(2), *idle(13), *idle(1)], desired=1, policy=policy)
        assert counts == [1, 1, *[2] * 12, 1, 1]
        stretch = ScheduledBounds(starts_at=time(12, 2), ends_at=time(12, 5), maximum=2)
        policy = ScalingPolicy(threshold=5, schedule=[stretch], out_cooldown=timedelta())
        counts = follow([*busy(6)], desired=1, policy=policy)
        assert counts == [2, 3, 3, 3, 3, 4], "an instance with work is left to end it"

    def test_a_lower_maximum_takes_an_idle_instance_only(self):
        policy = ScalingPolicy(threshold=5, maximum=2)
        assert actions([4, 2, 1], desired=3, policy=policy) == [NONE]
        decision = run([4, 2, 0], desired=3, policy=policy)[0]
        assert (decision.action, decision.desired) == (IN, 2)
        assert decision.reason == "The maximum is now 2."


class TestElastic:
    policy = make_policy(ScalingPreset.ELASTIC, threshold=5)

    def elastic(self, *checks: dict[str, Any], **changes: Any) -> list[ScalingDecision]:
        return run(*checks, policy=self.policy, **changes)

    def test_as_many_instances_as_jobs_once_their_number_is_stable(self):
        seen = {"readings": [1], "backlog": 2}
        decisions = self.elastic(*[seen] * 3, desired=1)
        assert [d.desired for d in decisions] == [1, 1, 3]

    def test_a_number_that_changes_is_counted_anew(self):
        checks = [{"readings": [1], "backlog": n} for n in (2, 2, 3, 3, 2, 2, 2)]
        assert [d.action for d in self.elastic(*checks, desired=1)] == [NONE] * 6 + [OUT]

    def test_never_over_the_maximum(self):
        checks = [{"readings": [1], "backlog": 80}] * 3
        assert self.elastic(*checks, desired=1)[-1].desired == 3

    def test_ten_checks_without_any_job_stop_what_is_over_the_minimum(self):
        checks = [{"readings": [0, 0, 0], "backlog": 0}] * 10
        decisions = self.elastic(*checks, desired=3, minimum=0)
        assert [d.desired for d in decisions] == [3] * 9 + [0]

    @pytest.mark.parametrize(
        "seen",
        [
            {"readings": [0, 1], "backlog": 0},
            {"readings": [0, 0], "backlog": 1},
            {"readings": [0, 0], "backlog": 0, "jobs": 1},
            {"readings": [0, None], "backlog": 0},
            {"readings": [0, 0], "backlog": 0, "launching": 1},
            {"readings": [0, 0], "backlog": None},
        ],
    )
    def test_anything_left_keeps_them(self, seen: dict[str, Any]):
        assert IN not in [d.action for d in self.elastic(*[seen] * 15)]

    def test_it_starts_from_nothing(self):
        checks = [{"readings": [], "backlog": 1}] * 3
        assert self.elastic(*checks, desired=0, minimum=0)[-1].desired == 1


SEEN = st.fixed_dictionaries(
    {
        "readings": st.lists(st.one_of(st.none(), st.just(0), st.integers(0, 30)), max_size=4),
        "backlog": st.one_of(st.none(), st.just(0), st.integers(0, 60)),
        "launching": st.sampled_from([0, 0, 0, 1]),
    }
)
IDLE = st.just({"readings": [0, 0], "backlog": 0, "launching": 0})
POLICIES = st.builds(
    lambda preset, out, in_: make_policy(
        preset,
        threshold=5,
        out_cooldown=timedelta(minutes=out),
        in_cooldown=timedelta(minutes=in_),
        in_checks=3,
    ),
    st.sampled_from(ScalingPreset),
    st.integers(0, 12),
    st.integers(0, 12),
)


class TestProperties:
    @given(st.lists(st.one_of(SEEN, IDLE), max_size=60), st.integers(1, 4), POLICIES)
    def test_desired_capacity_stays_within_bounds(self, checks, desired, policy):
        for decision in run(*checks, desired=desired, policy=policy, maximum=4):
            assert 1 <= decision.desired <= 4
            assert decision.reason

    @given(st.lists(st.one_of(SEEN, IDLE), max_size=60), st.integers(1, 4), POLICIES)
    def test_at_most_one_action_per_cooldown(self, checks, desired, policy):
        decisions = run(*checks, desired=desired, policy=policy, maximum=4)
        acted = [d for d in decisions if d.action is not NONE]
        for first, second in itertools.pairwise(acted):
            cooldown = policy.out_cooldown if second.action is OUT else policy.in_cooldown
            assert second.observation.tick - first.observation.tick >= cooldown

    @given(st.lists(st.one_of(SEEN, IDLE), max_size=60), st.integers(1, 4), POLICIES)
    def test_never_less_while_anything_is_unknown_launching_or_busy(self, checks, desired, policy):
        for decision in run(*checks, desired=desired, policy=policy, maximum=4):
            if decision.action is not IN:
                continue
            seen = decision.observation
            assert None not in seen.readings
            assert seen.launching == 0
            if policy.shrinks_by_need:
                assert sum(seen.readings) <= decision.desired
                assert 0 in seen.readings
            else:
                assert set(seen.readings) == {0}

    @given(st.lists(st.one_of(SEEN, IDLE), min_size=1, max_size=30), POLICIES, st.data())
    def test_duplicates_change_nothing(self, checks, policy, data):
        state = ScalerState()
        for number, seen in enumerate(checks):
            observation = observe(number, **seen)
            decision = decide_scaling(observation, state, policy)
            assert decision is not None
            state = decision.state
            again = data.draw(st.integers(0, number))
            for after in (state, decision.state_if_refused, decision.claim):
                assert decide_scaling(observe(again, **seen), after, policy) is None
