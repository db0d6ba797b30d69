"""How a stage is told of its fleets' policies, and what it refuses."""

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from ml_service.domain.fleets import Fleet
from ml_service.domain.scaling_policy import ScalingPolicy
from ml_service.settings import ScaleFleetsSettings, SettingsError, load_settings


def make_fleet(**changes: Any) -> dict[str, Any]:
    return {
        "task_queue_url": "https://sqs/pulid",
        "group_name": "group-pulid",
        "threshold": 5,
        "slots_per_instance": 14,
        **changes,
    }


def load(fleet: dict[str, Any], *, enabled: bool = True) -> ScaleFleetsSettings:
    environment = {
        "STAGE": "prod",
        "FLEET_TABLE_NAME": "fleets",
        "FLEETS": json.dumps({"pulid": fleet}),
        "OBSERVE_INSTANCES_FUNCTION_NAME": "observe",
        "SCALING_ENABLED": str(enabled).lower(),
        "REPORT_UNHEALTHY": str(enabled).lower(),
        "WARM_INSTANCE_FUNCTION_NAME": "warm-instance",
    }
    return load_settings(ScaleFleetsSettings, environment)


def test_a_fleet_that_says_nothing_follows_the_plain_rule():
    assert Fleet(**make_fleet()).make_policy() == ScalingPolicy(threshold=5)


def test_a_fleet_names_its_preset_and_what_differs():
    scaling = {
        "preset": "need",
        "out_cooldown": 180,
        "schedule": [{"days": [0], "starts_at": "06:00", "ends_at": "18:00", "minimum": 2}],
    }
    policy = Fleet(**make_fleet(scaling=scaling)).make_policy()
    assert policy.counts_backlog
    assert policy.out_cooldown == timedelta(seconds=180)
    assert policy.schedule[0].minimum == 2


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({"preset": "best"}, "best"),
        ({"out_cooldwn": 5}, "out_cooldwn"),
        ({"checks_per_tick": 99}, "checks_per_tick"),
        ({"threshold": 4}, "threshold is a parameter of its own"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_when_it_is_read(scaling: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        Fleet(**make_fleet(scaling=scaling))
    with pytest.raises(SettingsError, match="FLEETS"):
        load(make_fleet(scaling=scaling))


def test_too_few_slots_for_the_2t_rule_are_refused():
    with pytest.raises(SettingsError, match="pulid has 11 slots per instance.*at least 12"):
        load(make_fleet(slots_per_instance=11))
    load(make_fleet(slots_per_instance=12))


def test_few_slots_are_right_where_the_backlog_counts_or_nothing_is_scaled():
    load(make_fleet(slots_per_instance=2, scaling={"preset": "need"}))
    load(make_fleet(slots_per_instance=1), enabled=False)
