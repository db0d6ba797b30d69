"""What `make emulate` holds a deployment to, and that it leaves out no more than it says."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local.aws.read_template import read_template
from scripts.emulate_deployment import (
    UNKNOWN_TYPES,
    find_faults,
    is_known,
    list_expected,
    write_known,
)

EXPECTED = {"InputQueue": "AWS::SQS::Queue", "CommonLayer": "AWS::Lambda::LayerVersion"}


def make_resource(name: str, kind: str, **changes: str) -> dict[str, str]:
    return {
        "LogicalResourceId": name,
        "ResourceType": kind,
        "ResourceStatus": "CREATE_COMPLETE",
        "PhysicalResourceId": "some-id",
        **changes,
    }


def make_stack() -> dict[str, dict[str, str]]:
    return {
        "queue": make_resource("InputQueue", "AWS::SQS::Queue"),
        "layer": make_resource("CommonLayer0123456789", "AWS::Lambda::LayerVersion"),
    }


def test_a_stack_that_has_everything_has_no_faults() -> None:
    """A layer's logical id ends with a hash of its content."""
    assert list(find_faults(EXPECTED, list(make_stack().values()))) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param({"ResourceStatus": "CREATE_FAILED"}, "CREATE_FAILED", id="failed"),
        pytest.param({"ResourceType": "AWS::SNS::Topic"}, "AWS::SNS::Topic", id="other-type"),
        pytest.param({"PhysicalResourceId": ""}, "no physical id", id="no-id"),
        pytest.param({"LogicalResourceId": "Other"}, "InputQueue .* was not made", id="missing"),
    ],
)
def test_a_fault_is_named(changes: Mapping[str, str], fault: str) -> None:
    stack = make_stack()
    stack["queue"] |= changes

    assert re.search(fault, "\n".join(find_faults(EXPECTED, list(stack.values()))))


def test_only_the_unknown_types_are_left_out(
    tmp_path: Path, fleets_template: Mapping[str, Any]
) -> None:
    path = tmp_path / "known.json"
    write_known(fleets_template, path)
    written = read_template(path)["Resources"]

    left_out = {
        resource["Type"]
        for name, resource in fleets_template["Resources"].items()
        if name not in written
    }
    assert left_out == {"AWS::AutoScaling::WarmPool", "AWS::EC2::SecurityGroupIngress"}
    assert left_out <= UNKNOWN_TYPES
    assert list_expected(fleets_template).keys() == written.keys()


def test_alarms_with_metric_math_are_left_out_and_no_others() -> None:
    alarm = {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Jobs"}}

    assert is_known(alarm)
    assert not is_known({**alarm, "Properties": {"Metrics": []}})
