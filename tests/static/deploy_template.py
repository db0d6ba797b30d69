"""Creates template.yaml's stack on moto, to read names and policies as AWS would resolve them."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto import mock_aws

REGION = "us-east-1"
CONVERSION_QUEUES = [f"arn:aws:sqs:{REGION}:210987654321:convert-{name}" for name in ("a", "b")]
ACCOUNT = "123456789012"  # moto's own

# moto has no such resources; none of them has a name or a variable that a test here reads.
_UNKNOWN_TO_MOTO = {
    "AWS::CloudWatch::Alarm",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Url",
    "AWS::Logs::QueryDefinition",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}
# moto would start to poll the queue.
_UNWANTED = {"AWS::Lambda::EventSourceMapping"}


@dataclass(frozen=True)
class Deployment:
    """One stage with all references resolved."""

    stage: str
    names: Mapping[str, str]
    """Physical name by logical id; for queues the URL, for topics and state machines the ARN."""
    outputs: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]]
    """Variables of each function by physical name."""
    statements: Mapping[str, Sequence[Mapping[str, Any]]]
    """Statements of each role's inline policies, by the role's logical id."""
    dashboard: Mapping[str, Any]


def deploy_template(transformed: Mapping[str, Any], stage: str) -> Deployment:
    """Create one stage's stack, read it, and forget it."""
    with deployed_template(transformed, stage) as deployment:
        return deployment


@contextmanager
def deployed_template(
    transformed: Mapping[str, Any], stage: str, **changes: str
) -> Iterator[Deployment]:
    """One stage's stack, on moto in this process; ``changes`` are of parameters."""
    kept = {
        name: resource
        for name, resource in transformed["Resources"].items()
        if resource["Type"] not in _UNKNOWN_TO_MOTO | _UNWANTED
    }
    outputs = {
        name: output
        for name, output in transformed["Outputs"].items()
        if output["Value"].get("Fn::GetAtt", [""])[0] not in transformed["Resources"].keys() - kept
    }
    template = {**transformed, "Resources": kept, "Outputs": outputs}
    parameters = {
        "Stage": stage,
        "VpcId": "vpc-0",
        "PrivateSubnetIds": "subnet-0",
        "InputBuckets": "inputs-one,inputs-two",
        "MediaConvertBuckets": "videos-one,videos-two",
        "MediaConvertQueueArns": ",".join(CONVERSION_QUEUES),
        **changes,
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "none")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "none")
        with mock_aws():
            _put_layer_code()
            cloudformation = boto3.client("cloudformation", REGION)
            cloudformation.create_stack(
                StackName=stage,
                TemplateBody=json.dumps(template),
                Parameters=[
                    {"ParameterKey": key, "ParameterValue": value}
                    for key, value in parameters.items()
                ],
            )
            stack = cloudformation.describe_stacks(StackName=stage)["Stacks"][0]
            names = {
                resource["LogicalResourceId"]: resource["PhysicalResourceId"]
                for resource in cloudformation.list_stack_resources(StackName=stage)[
                    "StackResourceSummaries"
                ]
            }
            yield Deployment(
                stage=stage,
                names=names,
                outputs={o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]},
                environments=dict(_list_environments()),
                statements=dict(_list_statements(kept, names)),
                dashboard=_read_dashboard(f"{stage}-ml-service"),
            )


def _put_layer_code() -> None:
    s3 = boto3.client("s3", REGION)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=b"")


def _list_environments() -> Iterator[tuple[str, Mapping[str, str]]]:
    for function in boto3.client("lambda", REGION).list_functions()["Functions"]:
        yield function["FunctionName"], function["Environment"]["Variables"]


def _list_statements(
    resources: Mapping[str, Any], names: Mapping[str, str]
) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    iam = boto3.client("iam", REGION)
    for logical_id, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            role = names[logical_id]
            documents = [
                iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
                for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
            ]
            yield logical_id, [s for document in documents for s in _read_statements(document)]


def _read_statements(document: Any) -> Sequence[Mapping[str, Any]]:
    # moto keeps the policies of a role that came from CloudFormation as the text of a dict.
    parsed = ast.literal_eval(document) if isinstance(document, str) else document
    return [statement for statement in parsed["Statement"] if statement is not None]


def _read_dashboard(name: str) -> Mapping[str, Any]:
    body = boto3.client("cloudwatch", REGION).get_dashboard(DashboardName=name)["DashboardBody"]
    parsed: Mapping[str, Any] = json.loads(body)
    return parsed
