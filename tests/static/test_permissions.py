"""Each role allows what its function does, and nothing else."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.static.deploy_template import CONVERSION_QUEUES, Deployment

_GROUP = (
    "arn:${AWS::Partition}:autoscaling:${AWS::Region}:${AWS::AccountId}"
    ":autoScalingGroup:*:autoScalingGroupName/"
)
# Every text with a star in a resource, and the reason why it may be there.
_STARS = {
    ("TracingPolicy", "*"): "X-Ray's write calls have no resource level",
    ("RunJobRole", "*"): "neither log deliveries nor X-Ray have a resource level",
    ("NetworkInterfacePolicy", "*"): "Lambda demands these on all resources",
    ("AdmitJobsRole", "*"): "the two describe calls have no resource level",
    ("ScaleFleetsRole", "*"): "the three describe calls have no resource level",
    ("CollectOutputsRole", "${ResultBucket.Arn}/comfyui-results/*"): "all files of the contract",
    ("SubmitPromptRole", "arn:aws:s3:::${Names}/*"): "all objects of an allowed bucket",
    ("SubmitPromptRole", "/*,arn:aws:s3:::"): "the same, between two buckets",
    (
        "SweepJobsRole",
        "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}"
        ":execution:${RunJobStateMachine.Name}:*",
    ): "every job's execution has a name of its own",
    ("JobsApiRole", "${ResultBucket.Arn}/comfyui-results/*"): "any result may be asked for",
    ("HandOffPolicy", "${ResultBucket.Arn}/comfyui-results/*"): "any result may be a video to copy",
    ("HandOffPolicy", "arn:aws:s3:::${Names}/*video.mp4"): "the message says the folder",
    ("HandOffPolicy", "/*video.mp4,arn:aws:s3:::"): "the same, between two buckets",
    ("ChangeDesiredCapacityPolicy", _GROUP + "${LipSyncGroupName}"): "the id AWS gives a group",
    ("ChangeDesiredCapacityPolicy", _GROUP + "${PulidGroupName}"): "the id AWS gives a group",
    ("ChangeDesiredCapacityPolicy", _GROUP + "${MakeupGroupName}"): "the id AWS gives a group",
}
_ACTIONS_ON_ANY_RESOURCE = {
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeInstanceRefreshes",
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeInstances",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
# boto3's calls in the adapters, as IAM names them.
_CALLS = {
    "autoscaling:DescribeAutoScalingGroups": "describe_auto_scaling_groups",
    "autoscaling:DescribeInstanceRefreshes": "describe_instance_refreshes",
    "autoscaling:SetDesiredCapacity": "set_desired_capacity",
    "autoscaling:SetInstanceHealth": "set_instance_health",
    "autoscaling:SetInstanceProtection": "set_instance_protection",
    "dynamodb:DeleteItem": "delete_item",
    "dynamodb:GetItem": "get_item",
    "dynamodb:PutItem": "put_item",
    "dynamodb:Query": "query",
    "dynamodb:UpdateItem": "update_item",
    "ec2:DescribeInstances": "describe_instances",
    "lambda:InvokeFunction": "invoke",
    "s3:GetObject": "get_object",
    "s3:ListBucket": "list_objects_v2",
    "s3:PutObject": "upload_fileobj",
    "sns:Publish": "publish",
    "sqs:DeleteMessage": "delete_message",
    "sqs:GetQueueUrl": "get_queue_url",
    "sqs:GetQueueAttributes": "get_queue_attributes",
    "sqs:ReceiveMessage": "receive_message",
    "sqs:SendMessage": "send_message",
    "states:DescribeExecution": "describe_execution",
    "states:StartExecution": "start_execution",
}
# Needed though no adapter calls them by name.
_SILENT = {
    "logs:CreateLogStream": "Lambda itself, before a function's first line",
    "logs:PutLogEvents": "Lambda itself, for every line",
    "s3:AbortMultipartUpload": "upload_fileobj, when a part fails",
    "s3:PutObjectAcl": "upload_fileobj, for the ACL that the backend's contract asks for",
}


def test_no_action_is_a_pattern(resources: Mapping[str, Any]) -> None:
    """`dynamodb:*` would grant what AWS adds tomorrow."""
    patterns = [
        (owner, action)
        for owner, statement in _list_allowing(resources)
        for action in _as_list(statement["Action"])
        if "*" in action
    ]

    assert patterns == []


def test_stars_in_resources_are_those_with_a_reason(resources: Mapping[str, Any]) -> None:
    """Every other resource is exact, and no reason is left over."""
    found = {
        (owner, text)
        for owner, statement in _list_allowing(resources)
        for text in _list_strings(statement["Resource"])
        if "*" in text
    }

    assert found == _STARS.keys()


def test_only_calls_without_a_resource_level_are_granted_on_everything(
    deployment: Deployment, resources: Mapping[str, Any]
) -> None:
    """A star next to such a call must not carry another action with it."""
    statements = [s for _, s in _list_allowing(resources)]
    statements += [s for role in deployment.statements.values() for s in role]
    granted = {
        action
        for statement in statements
        if statement["Resource"] == "*"
        for action in _as_list(statement["Action"])
    }

    assert granted == _ACTIONS_ON_ANY_RESOURCE


def test_dev_cannot_change_the_fleets(deployments: Mapping[str, Deployment]) -> None:
    """dev shares prod's instances: what it may not do, no fault in the code can make it do."""
    assert _list_actions(deployments["prod"], "autoscaling:") == {
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeInstanceRefreshes",
        "autoscaling:SetDesiredCapacity",
        "autoscaling:SetInstanceHealth",
        "autoscaling:SetInstanceProtection",
    }
    assert _list_actions(deployments["dev"], "autoscaling:") == {
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeInstanceRefreshes",
    }


def test_each_role_writes_only_its_own_log_group(deployment: Deployment) -> None:
    """A copied statement would still name the function it was copied from."""
    for role, statements in deployment.statements.items():
        written = [
            statement["Resource"]
            for statement in statements
            if "logs:PutLogEvents" in _as_list(statement["Action"])
        ]
        if role == "RunJobRole":
            assert written == []
        else:
            name = deployment.names[role.removesuffix("Role") + "LogGroup"]
            assert [resource.split(":log-group:")[1] for resource in written] == [name]


def test_roles_grant_what_the_adapters_call_and_nothing_more(
    root: Path, deployments: Mapping[str, Deployment]
) -> None:
    """A call without a right fails only on AWS; a right without a call is never noticed at all."""
    adapters = root / "layers" / "common" / "ml_service" / "adapters"
    source = "\n".join(path.read_text() for path in sorted(adapters.glob("*.py")))
    called = {
        action
        for action, call in _CALLS.items()
        if re.search(rf"\.{call}(_batch)?\(|get_paginator\(\"{call}\"\)", source)
    }
    functions = {r: s for r, s in deployments["prod"].statements.items() if r != "RunJobRole"}
    granted = {
        action
        for statements in functions.values()
        for statement in statements
        for action in _as_list(statement["Action"])
    }

    assert granted == called | _SILENT.keys()


def test_functions_in_the_vpc_call_only_what_a_gateway_endpoint_reaches(
    functions: Mapping[str, Any], deployment: Deployment
) -> None:
    """There is no NAT: a call to any other service would hang until the function's timeout."""
    in_vpc = {name for name, properties in functions.items() if "VpcConfig" in properties}

    assert in_vpc == {
        "observe_instances",
        "warm_instance",
        "submit_prompt",
        "await_prompt",
        "collect_outputs",
        "cancel_prompt",
    }
    for name in in_vpc:
        role = deployment.statements["".join(w.title() for w in name.split("_")) + "Role"]
        services = {a.split(":")[0] for s in role for a in _as_list(s["Action"])}
        # Logs are written by Lambda, from outside the VPC, and a destination is called by it.
        from_outside = {"logs", "lambda"} if name == "warm_instance" else {"logs"}
        assert services - from_outside <= {"dynamodb", "s3"}


def test_only_its_destination_lets_a_function_in_the_vpc_invoke_another(
    resources: Mapping[str, Any], deployment: Deployment
) -> None:
    """What Lambda is to call when a warm-up has ended is what the role allows, and it alone."""
    config = resources["WarmInstanceInvokeConfig"]["Properties"]["DestinationConfig"]
    (allowed,) = [
        statement["Resource"]
        for statement in deployment.statements["WarmInstanceRole"]
        if "lambda:InvokeFunction" in _as_list(statement["Action"])
    ]

    assert config == {"OnSuccess": {"Destination": {"Fn::GetAtt": ["AdmitJobsFunction", "Arn"]}}}
    assert allowed.endswith(f":function:{deployment.stage}-ml-service-admit-jobs")


@pytest.mark.parametrize("bucket", ["inputs-one", "inputs-two"])
def test_inputs_are_read_from_the_allowed_buckets_only(deployment: Deployment, bucket: str) -> None:
    """The list of ARNs is made by joining and splitting text: each bucket must come out whole."""
    by_action = {
        action: statement["Resource"]
        for statement in deployment.statements["SubmitPromptRole"]
        for action in _as_list(statement["Action"])
    }

    assert f"arn:aws:s3:::{bucket}/*" in by_action["s3:GetObject"]
    assert f"arn:aws:s3:::{bucket}" in by_action["s3:ListBucket"]
    assert len(by_action["s3:GetObject"]) == len(by_action["s3:ListBucket"]) == 2


@pytest.mark.parametrize("role", ["FinishJobRole", "SweepJobsRole"])
def test_videos_are_handed_on_to_the_allowed_buckets_and_queues_only(
    deployment: Deployment, role: str
) -> None:
    """And whatever the key's folder, the file is called video.mp4."""
    allowed = {
        action: statement["Resource"]
        for statement in deployment.statements[role]
        for action in _as_list(statement["Action"])
    }

    assert allowed["s3:PutObject"] == [
        "arn:aws:s3:::videos-one/*video.mp4",
        "arn:aws:s3:::videos-two/*video.mp4",
    ]
    assert allowed["sqs:SendMessage"] == allowed["sqs:GetQueueUrl"] == CONVERSION_QUEUES


def test_without_both_lists_nobody_may_hand_anything_on(resources: Mapping[str, Any]) -> None:
    """An empty list would make a statement without a resource, which CloudFormation refuses."""
    assert resources["HandOffPolicy"]["Condition"] == "HandsVideosOff"


def test_rules_may_invoke_exactly_their_targets(resources: Mapping[str, Any]) -> None:
    """A target without its permission is never called, and nothing says so."""
    targets = {
        (rule, target["Arn"]["Fn::GetAtt"][0])
        for rule, resource in resources.items()
        if resource["Type"] == "AWS::Events::Rule"
        for target in resource["Properties"]["Targets"]
    }
    permitted = {
        (
            resource["Properties"]["SourceArn"]["Fn::GetAtt"][0],
            resource["Properties"]["FunctionName"]["Ref"],
        )
        for resource in resources.values()
        if resource["Type"] == "AWS::Lambda::Permission"
        and resource["Properties"]["Principal"] == "events.amazonaws.com"
    }

    assert permitted == targets
    assert targets == {
        ("MinuteRule", "ScaleFleetsFunction"),
        ("MinuteRule", "AdmitJobsFunction"),
        ("MinuteRule", "SweepJobsFunction"),
        ("InstanceChangeRule", "AdmitJobsFunction"),
        ("ExecutionStatusRule", "FinishJobFunction"),
    }


def test_the_jobs_api_lets_in_whom_iam_lets_in(
    template: Mapping[str, Any], resources: Mapping[str, Any]
) -> None:
    """Only a stage that says so is open, and then by the two rights that a URL takes."""
    parameter = template["Parameters"]["LambdaUrlAuthType"]
    open_to_all = {
        name
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Lambda::Permission"
        and resource["Properties"]["Principal"] == "*"
    }

    assert (parameter["Default"], parameter["AllowedValues"]) == ("AWS_IAM", ["AWS_IAM", "NONE"])
    assert resources["JobsApiUrl"]["Properties"]["AuthType"] == {"Ref": "LambdaUrlAuthType"}
    assert template["Outputs"]["JobsApiUrl"]["Value"] == {
        "Fn::GetAtt": ["JobsApiUrl", "FunctionUrl"]
    }
    assert open_to_all == {"JobsApiUrlPermission", "JobsApiInvokePermission"}
    assert all(resources[name]["Condition"] == "OpensJobsApi" for name in open_to_all)
    assert template["Conditions"]["OpensJobsApi"] == {
        "Fn::Equals": [{"Ref": "LambdaUrlAuthType"}, "NONE"]
    }


def test_the_load_balancer_stands_inside_and_reaches_only_who_finds_results(
    template: Mapping[str, Any], resources: Mapping[str, Any], deployment: Deployment
) -> None:
    """It asks nobody who he is: what it leads to may list results, and nothing else."""
    parts = {
        name for name, resource in resources.items() if resource.get("Condition") == "HasResultApi"
    }
    balancer = resources["ResultApiLoadBalancer"]["Properties"]
    (target,) = resources["ResultApiTargetGroup"]["Properties"]["Targets"]
    granted = {
        action
        for statement in deployment.statements["ResultApiRole"]
        for action in _as_list(statement["Action"])
    }

    assert template["Parameters"]["ResultApiCidr"]["Default"] == ""
    assert {"ResultApiLoadBalancer", "ResultApiListener", "ResultApiPermission"} <= parts
    assert balancer["Scheme"] == "internal"
    assert balancer["Subnets"] == {"Ref": "PrivateSubnetIds"}
    assert target == {"Id": {"Fn::GetAtt": ["ResultApiFunction", "Arn"]}}
    assert granted == {"logs:CreateLogStream", "logs:PutLogEvents", "s3:ListBucket"}


def _list_allowing(resources: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Allowing statements of roles and policies as written, with those under a condition."""
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::IAM::Role":
            documents = [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
        elif resource["Type"] in {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"}:
            documents = [properties["PolicyDocument"]]
        else:
            continue
        for document in documents:
            for statement in document["Statement"]:
                chosen = statement["Fn::If"][1] if "Fn::If" in statement else statement
                assert chosen["Effect"] == "Allow"
                yield name, chosen


def _list_actions(deployment: Deployment, prefix: str) -> set[str]:
    text = json.dumps([s for role in deployment.statements.values() for s in role])
    return set(re.findall(rf'"({prefix}\w+)"', text))


def _list_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _list_strings(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _list_strings(inner)


def _as_list(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
