"""What the smoke test makes of a stage's alarms; the hops are tested with the commands."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.smoke_test import HopError, look_at_alarms


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with mock_aws():
        client: Any = boto3.client("cloudwatch", "us-east-1")
        for name in ("no-capacity", "dead-letters", "of-another-stack"):
            client.put_metric_alarm(
                AlarmName=name,
                MetricName=name,
                Namespace="some",
                Statistic="Sum",
                Period=60,
                EvaluationPeriods=1,
                Threshold=1,
                ComparisonOperator="GreaterThanThreshold",
            )
            client.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="fine")
        yield client


def raise_alarm(cloudwatch: Any, name: str) -> None:
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="high")


def test_a_raised_alarm_is_named(cloudwatch: Any) -> None:
    raise_alarm(cloudwatch, "dead-letters")
    with pytest.raises(HopError, match=r"^dead-letters$"):
        look_at_alarms(cloudwatch, ["no-capacity", "dead-letters"])


def test_alarms_of_other_stacks_are_not_looked_at(cloudwatch: Any) -> None:
    raise_alarm(cloudwatch, "of-another-stack")
    assert look_at_alarms(cloudwatch, ["no-capacity", "dead-letters"]) == "2 alarms"


def test_a_stage_without_alarms_passes(cloudwatch: Any) -> None:
    """An empty list of names would mean every alarm of the account."""
    raise_alarm(cloudwatch, "of-another-stack")
    assert look_at_alarms(cloudwatch, []) == "0 alarms"
