import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_service.domain.scaling import (
    FleetObservation,
    ScalerState,
    ScalingAction,
    ScalingDecision,
    ScalingPolicy,
    decide_scaling,
)
from tests.fakes import NOON

POLICY = ScalingPolicy(threshold=5)
MINUTE = timedelta(minutes=1)
OUT, IN, NONE = ScalingAction.SCALE_OUT, ScalingAction.SCALE_IN, ScalingAction.NONE


def observe(minute: float, readings: Sequence[int | None], **changes: Any) -> FleetObservation:
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


def run(*readings: Sequence[int | None], **changes: Any) -> list[ScalingDecision]:
    """One check a minute; desired capacity follows the decisions."""
    state, decisions, desired = ScalerState(), [], changes.pop("desired", 2)
    for minute, reading in enumerate(readings):
        decision = decide_scaling(
            observe(minute, reading, desired=desired, **changes), state, POLICY
        )
        assert decision is not None
        state, desired = decision.state, decision.desired
        decisions.append(decision)
    return decisions


def actions(*readings: Sequence[int | None], **changes: Any) -> list[ScalingAction]:
    return [decision.action for decision in run(*readings, **changes)]


@pytest.mark.parametrize(
    ("name", "readings", "expected"),
    [
        ("three busy checks scale out by one", [[6], [6], [6]], [NONE, NONE, OUT]),
        ("two are not enough", [[6], [6], [5]], [NONE, NONE, NONE]),
        ("exceeds is strictly greater", [[5], [5], [5]], [NONE, NONE, NONE]),
        ("the busiest instance counts", [[0, 6], [6, 1], [0, 9]], [NONE, NONE, OUT]),
        ("more than twice the threshold scales out at once", [[11]], [OUT]),
        ("exactly twice does not", [[10]], [NONE]),
        ("three idle checks scale in by one", [[0, 0], [0, 0], [0, 0]], [NONE, NONE, IN]),
        ("anything between ends the idle streak", [[0], [0], [1], [0]], [NONE] * 4),
        ("anything between ends the busy streak", [[6], [6], [3], [6]], [NONE] * 4),
        ("an unknown reading ends the idle streak", [[0], [0], [0, None], [0]], [NONE] * 4),
        ("known readings may scale out", [[11, None]], [OUT]),
        ("all unknown is no action", [[None], [None], [None]], [NONE] * 3),
        ("no running instance is no action", [[], [], []], [NONE] * 3),
        ("nothing counts while cooling down", [[11], *[[20]] * 9, [20]], [OUT, *[NONE] * 9, OUT]),
    ],
)
def test_the_rule(name: str, readings: list[list[int | None]], expected: list[ScalingAction]):
    assert actions(*readings, desired=2 if IN in expected else 1) == expected, name


def test_the_streak_is_built_anew_after_the_cooldown():
    assert actions([11], *[[6]] * 9, [6], [6], [6], desired=1) == [OUT, *[NONE] * 11, OUT]


def test_never_over_the_maximum():
    decision = run([11], desired=3)[0]
    assert decision.action is NONE
    assert "maximum" in decision.reason


def test_never_under_the_minimum():
    decision = run([0], [0], [0], desired=1)[-1]
    assert decision.action is NONE
    assert "minimum" in decision.reason


def test_a_launching_instance_blocks_scaling_in():
    assert actions([0], [0], [0], [0], launching=1) == [NONE] * 4


def test_a_repeated_or_late_tick_does_nothing():
    state = ScalerState(last_tick=NOON, busy_checks=2, desired=2)
    assert decide_scaling(observe(0, [6]), state, POLICY) is None
    assert decide_scaling(observe(-1, [6]), state, POLICY) is None


def test_a_gap_restarts_the_streak():
    state = ScalerState(last_tick=NOON, busy_checks=2, desired=2)
    late = decide_scaling(observe(2.6, [6]), state, POLICY)
    in_time = decide_scaling(observe(2.5, [6]), state, POLICY)
    assert late is not None
    assert late.action is NONE
    assert late.state.busy_checks == 1
    assert in_time is not None
    assert in_time.action is OUT


def test_a_persons_change_is_adopted_and_starts_the_cooldown():
    state = ScalerState(last_tick=NOON, busy_checks=2, desired=2)
    decision = decide_scaling(observe(1, [20], desired=1), state, POLICY)
    assert decision is not None
    assert (decision.action, decision.desired) == (NONE, 1)
    assert decision.state.cooldown_until == NOON + MINUTE + POLICY.cooldown
    assert decision.state.busy_checks == 0


def test_a_refused_action_starts_no_cooldown_and_keeps_the_streak():
    refused = run([6], [6], [6], desired=1)[-1].state_if_refused
    assert refused.cooldown_until is None
    again = decide_scaling(observe(3, [6], desired=1), refused, POLICY)
    assert again is not None
    assert again.action is OUT


@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=3), max_size=60),
    st.integers(1, 3),
)
def test_capacity_stays_within_bounds_and_acts_once_per_cooldown(readings, desired):
    decisions = run(*readings, desired=desired)
    assert all(1 <= decision.desired <= 3 for decision in decisions)
    acted = [d.observation.tick for d in decisions if d.action is not NONE]
    assert all(b - a >= POLICY.cooldown for a, b in itertools.pairwise(acted))
    for decision in decisions:
        if decision.action is IN:
            assert set(decision.observation.readings) == {0}
        assert decision.reason
