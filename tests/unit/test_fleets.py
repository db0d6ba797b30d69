from datetime import UTC, datetime, timedelta

import pytest

from ml_service.domain.fleets import (
    GroupMember,
    count_free_slots,
    is_registry_stale,
    rank_instances,
)
from tests.fakes import NOON
from tests.makers import make_instance


def names(*instances, slots=4):
    return [i.instance_id for i in rank_instances(instances, slots=slots)]


def test_the_least_loaded_instance_comes_first():
    busy = make_instance("a", reading=3)
    placed = make_instance("b", reading=0, jobs=frozenset({"x", "y"}))
    idle = make_instance("c")
    assert names(busy, placed, idle) == ["i-c", "i-b", "i-a"]


def test_a_tie_goes_to_the_one_that_was_given_a_job_longest_ago():
    recent = make_instance("a", placed_at=NOON)
    older = make_instance("b", placed_at=NOON - timedelta(seconds=5))
    never = make_instance("c")
    assert names(recent, older, never) == ["i-c", "i-b", "i-a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"reading": None},
        {"reading": 4},
        {"in_service": False},
        {"takes_jobs": False},
        {"warmed_at": None},
        {"jobs": frozenset("wxyz")},
    ],
    ids=["silent", "full by reading", "not in service", "draining", "cold", "full by slots"],
)
def test_an_instance_without_room_gets_no_job(changes):
    instance = make_instance("a", **changes)
    assert names(instance) == []
    assert count_free_slots([instance], slots=4) == 0


def test_free_slots_are_what_the_larger_of_slots_and_reading_leaves():
    fleet = [make_instance("a", reading=1, jobs=frozenset("xy")), make_instance("b", reading=3)]
    assert count_free_slots(fleet, slots=4) == 2 + 1


def test_the_registry_is_stale_when_empty_or_older_than_90_seconds():
    now = NOON + timedelta(seconds=90)
    assert is_registry_stale([], now, slots=1)
    assert not is_registry_stale([make_instance()], now, slots=1)
    two = [make_instance(), make_instance("b")]
    assert is_registry_stale(two, now + timedelta(seconds=1), slots=1)


@pytest.mark.parametrize(
    ("changes", "seconds", "is_stale"),
    [
        ({"reading": 2}, 6, True),
        ({"reading": 2}, 5, False),
        ({"reading": 2, "jobs": frozenset("xy")}, 6, False),
        ({"reading": 1}, 6, False),
        ({"reading": None}, 6, False),
    ],
)
def test_an_instance_that_others_filled_is_asked_sooner(changes, seconds, is_stale):
    now = NOON + timedelta(seconds=seconds)
    assert is_registry_stale([make_instance(**changes)], now, slots=2) is is_stale
    # Not while there is room elsewhere.
    assert not is_registry_stale([make_instance(**changes), make_instance("b")], now, slots=2)


def test_an_instance_back_from_the_warm_pool_is_a_new_one():
    started = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    first = GroupMember("i-a", started, "10.0.0.1", in_service=True)
    second = GroupMember("i-a", started + timedelta(hours=1), "10.0.0.1", in_service=True)
    assert first.key == "i-a#20261121T080000Z" != second.key
