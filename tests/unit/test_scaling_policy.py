from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from ml_service.domain.scaling_policy import (
    ScalingPolicy,
    ScalingPreset,
    ScheduledBounds,
    make_policy,
)
from tests.fakes import NOON

SATURDAY = NOON.weekday()
DAY = ScheduledBounds(
    days=frozenset({SATURDAY}), starts_at=time(8), ends_at=time(20), minimum=2, maximum=5
)
NIGHT = ScheduledBounds(
    days=frozenset({SATURDAY}), starts_at=time(22), ends_at=time(6), minimum=0, maximum=1
)


def at(hour: int, minute: int = 0, *, days: int = 0) -> datetime:
    return NOON.replace(hour=hour, minute=minute) + timedelta(days=days)


def test_the_plain_rule_has_the_users_numbers():
    policy = make_policy(ScalingPreset.STREAK, threshold=5)
    assert policy == ScalingPolicy(threshold=5)
    assert (policy.out_checks, policy.in_checks, policy.immediate_factor) == (3, 3, 2)
    assert policy.out_cooldown == policy.in_cooldown == timedelta(seconds=600)
    assert (policy.step, policy.checks_per_tick, policy.slots) == (1, 1, 14)


@pytest.mark.parametrize("preset", ScalingPreset)
def test_a_preset_may_be_changed_in_any_parameter(preset: ScalingPreset):
    policy = make_policy(preset, threshold=3, out_cooldown=90, is_paused=True)
    assert policy.out_cooldown == timedelta(seconds=90)
    assert policy.is_paused


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"threshold": 0}, "threshold"),
        ({"threshold": 5, "thresold": 5}, "thresold"),
        ({"threshold": 5, "checks_per_tick": 0}, "checks_per_tick"),
        ({"threshold": 5, "out_cooldown": -1}, "out_cooldown"),
        ({"threshold": 5, "slots_per_instance": 11}, "at least 12"),
        ({"threshold": 5, "schedule": [{"starts_at": "08:00", "ends_at": "20:00"}]}, "minimum"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(parameters: dict[str, object], named: str):
    with pytest.raises(ValidationError, match=named):
        make_policy(ScalingPreset.STREAK, **parameters)


def test_few_slots_are_right_where_the_backlog_counts():
    assert ScalingPolicy(threshold=5, slots_per_instance=1, counts_backlog=True).slots == 1


@pytest.mark.parametrize(
    ("stretch", "moment", "covered"),
    [
        (DAY, at(7, 59), False),
        (DAY, at(8), True),
        (DAY, at(19, 59), True),
        (DAY, at(20), False),
        (DAY, at(12, days=1), False),
        (NIGHT, at(21, 59), False),
        (NIGHT, at(22), True),
        (NIGHT, at(5, 59, days=1), True),
        (NIGHT, at(6, days=1), False),
        (NIGHT, at(5, 59), False),
    ],
)
def test_a_stretch_covers_its_hours(stretch: ScheduledBounds, moment: datetime, covered: bool):
    assert stretch.covers(moment) is covered


def test_bounds_are_the_first_stretchs_within_the_groups():
    policy = ScalingPolicy(threshold=5, minimum=1, schedule=[DAY, NIGHT])
    assert policy.bounds(at(12), minimum=0, maximum=9) == (2, 5)
    assert policy.bounds(at(12), minimum=0, maximum=1) == (1, 1)
    assert policy.bounds(at(12), minimum=3, maximum=9) == (3, 5)
    assert policy.bounds(at(23), minimum=0, maximum=9) == (0, 1)
    assert policy.bounds(at(21), minimum=0, maximum=9) == (1, 9)
    assert policy.bounds(at(23), minimum=2, maximum=9) == (2, 2)


def test_summer_time_neither_repeats_nor_skips_an_hour():
    """The clocks of Berlin go back at 01:00 UTC of this day, and show 02:30 twice."""
    stretch = ScheduledBounds(starts_at=time(0), ends_at=time(1), minimum=2)
    before = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert stretch.covers(before)
    assert not stretch.covers(before.replace(fold=1))
