"""What the smoke test makes of a stage's alarms; the hops are tested with the commands."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.smoke_test import HopError, look_at_alarms

NO_CAPACITY, DEAD_LETTERS = "prod-ml-service-pulid-no-capacity", "prod-ml-service-dead-letters"


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with mock_aws():
        client: Any = boto3.client("cloudwatch", "us-east-1")
        for name in (NO_CAPACITY, DEAD_LETTERS, "dev-ml-service-dead-letters"):
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


def test_an_alarm_that_rings_is_named(cloudwatch: Any) -> None:
    raise_alarm(cloudwatch, DEAD_LETTERS)
    with pytest.raises(HopError, match=f"^{DEAD_LETTERS}$"):
        look_at_alarms(cloudwatch, "prod")


def test_alarms_of_other_stages_are_not_looked_at(cloudwatch: Any) -> None:
    raise_alarm(cloudwatch, "dev-ml-service-dead-letters")
    assert look_at_alarms(cloudwatch, "prod") == "2 alarms"


def test_a_stage_without_alarms_fails(cloudwatch: Any) -> None:
    """Nothing would ring there, whatever happens."""
    cloudwatch.delete_alarms(AlarmNames=[NO_CAPACITY, DEAD_LETTERS])
    with pytest.raises(HopError, match="none"):
        look_at_alarms(cloudwatch, "prod")
