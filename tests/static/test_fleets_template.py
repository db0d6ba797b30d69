"""The three fleets, in both templates, differ in names and numbers only."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from scripts.lint_template import lint_plain
from tests.static.deploy_template import REGION

PREFIXES = {"lip-sync": "LipSync", "pulid": "Pulid", "makeup": "Makeup"}
# moto's CloudFormation has no warm pools.
_UNKNOWN_TO_MOTO = "AWS::AutoScaling::WarmPool"


def test_lint_finds_nothing_in_the_fleets_template(root: Path) -> None:
    """cfn-lint knows each resource type's properties."""
    assert lint_plain(root / "fleets" / "template.yaml") == []


@pytest.mark.parametrize("section", ["Parameters", "Resources"])
@pytest.mark.parametrize("name", ["template", "fleets_template"])
def test_fleets_are_written_alike(name: str, section: str, request: pytest.FixtureRequest) -> None:
    """They are written out, since Fn::ForEach crashes `sam build`; so nothing else holds them."""
    entries = request.getfixturevalue(name)[section]
    alike = {
        fleet: {
            _neutral(key, fleet, prefix): json.loads(_neutral(json.dumps(entry), fleet, prefix))
            for key, entry in entries.items()
            if key.startswith(prefix)
        }
        for fleet, prefix in PREFIXES.items()
    }

    assert alike["lip-sync"]
    assert alike["pulid"] == alike["lip-sync"]
    assert alike["makeup"] == alike["lip-sync"]


def test_groups_hold_one_to_three_instances_and_a_stopped_pool(
    fleets_template: Mapping[str, Any],
) -> None:
    """Without reuse an instance that is scaled in would be lost, and its models with it."""
    resources = fleets_template["Resources"]
    for prefix in PREFIXES.values():
        group = resources[f"{prefix}AutoScalingGroup"]["Properties"]
        pool = resources[f"{prefix}WarmPool"]["Properties"]
        assert (group["MinSize"], group["MaxSize"]) == ("1", "3")
        # It would set the scaler's decision back at every update of the stack.
        assert "DesiredCapacity" not in group
        assert pool["AutoScalingGroupName"] == {"Ref": f"{prefix}AutoScalingGroup"}
        assert pool["PoolState"] == "Stopped"
        assert pool["InstanceReusePolicy"] == {"ReuseOnScaleIn": True}


def test_instances_have_no_public_address_and_demand_session_tokens(
    fleets_template: Mapping[str, Any],
) -> None:
    """ComfyUI runs anything that a workflow asks for, so an instance must be out of reach."""
    for prefix in PREFIXES.values():
        data = fleets_template["Resources"][f"{prefix}LaunchTemplate"]["Properties"][
            "LaunchTemplateData"
        ]
        (interface,) = data["NetworkInterfaces"]
        assert interface["AssociatePublicIpAddress"] is False
        assert interface["Groups"] == [{"Ref": "InstanceSecurityGroup"}]
        assert data["MetadataOptions"]["HttpTokens"] == "required"


@pytest.mark.parametrize("with_dev", [False, True])
def test_the_stack_makes_three_groups_reached_by_functions_only(
    fleets_template: Mapping[str, Any], with_dev: bool
) -> None:
    """A new group starts with one instance; port 8188 is open to the named groups, nothing else."""
    kept = {
        name: resource
        for name, resource in fleets_template["Resources"].items()
        if resource["Type"] != _UNKNOWN_TO_MOTO
    }
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        environment.setenv("AWS_ACCESS_KEY_ID", "none")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "none")
        ec2 = boto3.client("ec2", REGION)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        sources = [
            ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
            for name in ("prod", "dev")[: 1 + with_dev]
        ]
        image = ec2.describe_images()["Images"][0]["ImageId"]
        parameters = {
            "VpcId": vpc,
            "SubnetIds": subnet,
            "FunctionsSecurityGroupId": sources[0],
            "DevFunctionsSecurityGroupId": sources[1] if with_dev else "",
            **{f"{prefix}ImageId": image for prefix in PREFIXES.values()},
        }
        boto3.client("cloudformation", REGION).create_stack(
            StackName="fleets",
            TemplateBody=json.dumps({**fleets_template, "Resources": kept}),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
        )
        groups = boto3.client("autoscaling", REGION).describe_auto_scaling_groups()
        rules = [
            rule
            for group in ec2.describe_security_groups()["SecurityGroups"]
            if group["Description"].startswith("ComfyUI")
            for rule in group["IpPermissions"]
        ]

    sizes = {
        group["AutoScalingGroupName"]: (
            group["MinSize"],
            group["DesiredCapacity"],
            group["MaxSize"],
        )
        for group in groups["AutoScalingGroups"]
    }
    assert sizes == {
        f"comfyui-{fleet}-task-instance-autoscaling-group": (1, 1, 3) for fleet in PREFIXES
    }
    assert {(rule["FromPort"], rule["ToPort"]) for rule in rules} == {(8188, 8188)}
    assert [range_ for rule in rules for range_ in rule["IpRanges"]] == []
    admitted = {pair["GroupId"] for rule in rules for pair in rule["UserIdGroupPairs"]}
    assert admitted == set(sources)


def _neutral(text: str, fleet: str, prefix: str) -> str:
    """The text with the fleet's names and all numbers made the same for every fleet."""
    return re.sub(r"\d+", "0", text.replace(prefix, "Fleet").replace(fleet, "fleet"))
