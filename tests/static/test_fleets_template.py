"""The three fleets, in both templates, differ in names and numbers only."""

import base64
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from scripts.lint_template import lint_plain
from tests.static.deploy_template import REGION

PREFIXES = {"lip-sync": "LipSync", "pulid": "Pulid", "makeup": "Makeup"}
# moto's CloudFormation has neither.
_UNKNOWN_TO_MOTO = {"AWS::AutoScaling::WarmPool", "AWS::SNS::TopicPolicy"}
# moto has it from the start; to list all that it has takes seconds.
_IMAGE_ID = "ami-12c6146b"


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
        assert data["MetadataOptions"] == {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        }


@dataclass(frozen=True)
class DeployedFleets:
    """What the stack made of the template, as moto describes it."""

    groups: Sequence[Mapping[str, Any]]
    rules: Sequence[Mapping[str, Any]]
    """Ingress rules of the instances' security group."""
    sources: Sequence[str]
    """Ids of the functions' security groups."""
    user_data: Mapping[str, str]
    """By instance name."""
    busy_hours: Sequence[Mapping[str, Any]]


def deploy_fleets(template: Mapping[str, Any], **options: str) -> DeployedFleets:
    """Create the stack with the options beside the parameters that it must have."""
    kept = {
        name: resource
        for name, resource in template["Resources"].items()
        if resource["Type"] not in _UNKNOWN_TO_MOTO
    }
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        environment.setenv("AWS_ACCESS_KEY_ID", "none")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "none")
        ec2 = boto3.client("ec2", REGION)
        autoscaling = boto3.client("autoscaling", REGION)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        sources = [
            ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
            for name in ("prod", "dev")[: 1 + ("DevFunctionsSecurityGroupId" in options)]
        ]
        parameters = {
            "VpcId": vpc,
            "SubnetIds": subnet,
            "FunctionsSecurityGroupId": sources[0],
            **{f"{prefix}ImageId": _IMAGE_ID for prefix in PREFIXES.values()},
            **options,
        }
        if "DevFunctionsSecurityGroupId" in options:
            parameters["DevFunctionsSecurityGroupId"] = sources[1]
        boto3.client("cloudformation", REGION).create_stack(
            StackName="fleets",
            TemplateBody=json.dumps({**template, "Resources": kept}),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
        )
        launch_templates = [
            version["LaunchTemplateData"]
            for found in ec2.describe_launch_templates()["LaunchTemplates"]
            for version in ec2.describe_launch_template_versions(
                LaunchTemplateId=found["LaunchTemplateId"]
            )["LaunchTemplateVersions"]
        ]
        scripts = [base64.b64decode(data["UserData"]).decode() for data in launch_templates]
        return DeployedFleets(
            groups=autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"],
            rules=[
                rule
                for group in ec2.describe_security_groups()["SecurityGroups"]
                if group["Description"].startswith("ComfyUI")
                for rule in group["IpPermissions"]
            ],
            sources=sources,
            user_data={re.findall("FLEET=(.+)", script)[0]: script for script in scripts},
            busy_hours=autoscaling.describe_scheduled_actions()["ScheduledUpdateGroupActions"],
        )


@pytest.fixture(scope="module")
def plain_fleets(fleets_template: Mapping[str, Any]) -> DeployedFleets:
    """The stack with what it must be told, and nothing else."""
    return deploy_fleets(fleets_template)


@pytest.fixture(scope="module")
def full_fleets(fleets_template: Mapping[str, Any]) -> DeployedFleets:
    """The stack with every option switched on."""
    return deploy_fleets(
        fleets_template,
        DevFunctionsSecurityGroupId="",
        MakeEndpoints="true",
        ModelBucketName="some-models",
        NotificationEmail="someone@example.org",
        BusyHoursStart="0 7 * * MON-FRI",
        PulidBusyMinimum="2",
    )


@pytest.fixture(params=["plain", "full"])
def fleets(request: pytest.FixtureRequest) -> DeployedFleets:
    found: DeployedFleets = request.getfixturevalue(f"{request.param}_fleets")
    return found


def test_the_stack_makes_three_groups_reached_by_functions_only(fleets: DeployedFleets) -> None:
    """A new group starts with one instance; port 8188 is open to the named groups, nothing else."""
    sizes = {
        group["AutoScalingGroupName"]: (
            group["MinSize"],
            group["DesiredCapacity"],
            group["MaxSize"],
        )
        for group in fleets.groups
    }
    assert sizes == {
        f"comfyui-{fleet}-task-instance-autoscaling-group": (1, 1, 3) for fleet in PREFIXES
    }
    assert {(rule["FromPort"], rule["ToPort"]) for rule in fleets.rules} == {(8188, 8188)}
    assert [range_ for rule in fleets.rules for range_ in rule["IpRanges"]] == []
    admitted = {pair["GroupId"] for rule in fleets.rules for pair in rule["UserIdGroupPairs"]}
    assert admitted == set(fleets.sources)


def test_user_data_is_a_script_that_says_what_the_instances_units_ask_for(
    root: Path, fleets: DeployedFleets
) -> None:
    """A variable that nobody sets would end a unit's script."""
    image = root / "fleets" / "image"
    asked = {
        name
        for script in (image / "scripts").glob("*.sh")
        for name in re.findall(r"\$\{([A-Z_]+)\}", script.read_text())
        if f"{name}=${{{name}:-" not in script.read_text()
    }
    assert fleets.user_data.keys() == PREFIXES.keys()
    for fleet, script in fleets.user_data.items():
        checked = subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=False)
        assert checked.returncode == 0
        said = dict(re.findall(r"^([A-Z_]+)=(.*)$", script, re.MULTILINE))
        assert asked <= said.keys()
        assert said["GROUP_NAME"] == f"comfyui-{fleet}-task-instance-autoscaling-group"
        started = re.findall(r"enable --now (\S+)", script)
        assert [name for name in started if not (image / "units" / name).exists()] == []


def test_the_models_bucket_comes_to_the_instances(
    plain_fleets: DeployedFleets, full_fleets: DeployedFleets
) -> None:
    assert all("MODEL_BUCKET=\n" in script for script in plain_fleets.user_data.values())
    assert all("MODEL_BUCKET=some-models\n" in script for script in full_fleets.user_data.values())


def test_busy_hours_raise_each_groups_minimum_and_end(
    plain_fleets: DeployedFleets, full_fleets: DeployedFleets
) -> None:
    """Optional: nothing is scheduled without a start."""
    assert plain_fleets.busy_hours == []
    sizes = sorted(
        (action["AutoScalingGroupName"].split("-")[1], action["Recurrence"], action["MinSize"])
        for action in full_fleets.busy_hours
    )
    assert sizes == [
        ("lip", "0 19 * * *", 1),
        ("lip", "0 7 * * MON-FRI", 1),
        ("makeup", "0 19 * * *", 1),
        ("makeup", "0 7 * * MON-FRI", 1),
        ("pulid", "0 19 * * *", 1),
        ("pulid", "0 7 * * MON-FRI", 2),
    ]


def test_an_instance_comes_into_service_when_it_says_so(
    root: Path, fleets_template: Mapping[str, Any]
) -> None:
    """Without the hook a pool's instance would be stopped before its models are there."""
    announce = (root / "fleets" / "image" / "scripts" / "announce_instance.sh").read_text()
    for prefix in PREFIXES.values():
        group = fleets_template["Resources"][f"{prefix}AutoScalingGroup"]["Properties"]
        (hook,) = group["LifecycleHookSpecificationList"]
        assert hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING"
        assert hook["DefaultResult"] == "ABANDON"
        assert f"--lifecycle-hook-name {hook['LifecycleHookName']}" in announce


def test_a_refresh_keeps_all_that_serve_until_others_do(
    fleets_template: Mapping[str, Any],
) -> None:
    """At 100 % a lone instance goes only after a new one is in service."""
    for prefix in PREFIXES.values():
        policy = fleets_template["Resources"][f"{prefix}AutoScalingGroup"]["UpdatePolicy"]
        preferences = policy["AutoScalingInstanceRefresh"]["Preferences"]
        assert preferences["MinHealthyPercentage"] == 100
        assert preferences["MaxHealthyPercentage"] == 200


def test_disks_are_encrypted(fleets_template: Mapping[str, Any]) -> None:
    """Prompts, pictures and models lie on them."""
    for prefix in PREFIXES.values():
        data = fleets_template["Resources"][f"{prefix}LaunchTemplate"]["Properties"][
            "LaunchTemplateData"
        ]
        assert all(disk["Ebs"]["Encrypted"] is True for disk in data["BlockDeviceMappings"])


def test_instances_may_do_no_more_than_their_scripts_do(
    root: Path, fleets_template: Mapping[str, Any]
) -> None:
    """Workflows' third-party nodes have the instance's role, too."""
    resources = fleets_template["Resources"]
    documents = [
        *(
            policy["PolicyDocument"]
            for policy in resources["InstanceRole"]["Properties"]["Policies"]
        ),
        resources["ReadModelsPolicy"]["Properties"]["PolicyDocument"],
    ]
    statements = [statement for document in documents for statement in document["Statement"]]
    allowed = {
        action
        for statement in statements
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    assert {action for action in allowed if not action.startswith("ssm")} == {
        "autoscaling:CompleteLifecycleAction",  # announce_instance.sh
        "cloudwatch:PutMetricData",  # the agent
        "s3:GetObject",  # sync_models.sh
        "s3:ListBucket",
    }
    namespace = json.loads((root / "fleets" / "image" / "cloudwatch-agent.json").read_text())[
        "metrics"
    ]["namespace"]
    (metrics,) = [s for s in statements if s["Action"] == "cloudwatch:PutMetricData"]
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": namespace}}


def _neutral(text: str, fleet: str, prefix: str) -> str:
    """The text with the fleet's names and all numbers made the same for every fleet."""
    return re.sub(r"\d+", "0", text.replace(prefix, "Fleet").replace(fleet, "fleet"))
