"""A guard between the functions and AWS: it lets through what their role allows, as IAM would."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from tests.static.deploy_template import ACCOUNT, REGION

# IAM's names where they are not those of service and operation.
_PREFIXES = {"stepfunctions": "states"}
_ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:ListObjectsV2": "s3:ListBucket",
}


@dataclass
class Guard:
    """Refuses each call that the statements do not allow, and remembers both kinds."""

    statements: Sequence[Mapping[str, Any]] = ()
    used: set[str] = field(default_factory=set)
    """Actions that were allowed, and needed."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Actions with their resources; a service may swallow the error that it gets."""
    faults: dict[str, str] = field(default_factory=dict)
    """Error code with which AWS answers the next call, by service and operation."""
    readings: dict[str, int | None] = field(default_factory=dict)
    """What observe_instances answers by address; 0 for all others."""

    def check(self, params: Mapping[str, Any], model: Any, **_: Any) -> None:
        """Before a call is made, with boto3's own parameters."""
        service = model.service_model.service_name
        call = f"{_PREFIXES.get(service, service)}:{model.name}"
        needed = [(_ACTIONS.get(call, call), _name_resource(service, params))]
        if "ACL" in params:
            needed.append(("s3:PutObjectAcl", needed[0][1]))
        if "CopySource" in params:
            needed.append(("s3:GetObject", f"arn:aws:s3:::{params['CopySource']}"))
        for action, resource in needed:
            if not self._allows(action, resource):
                self.refused.append((action, resource))
                raise _make_error("AccessDenied", model.name)
            self.used.add(action)
        if code := self.faults.pop(call, None):
            raise _make_error(code, model.name)

    def answer(self, model: Any, params: Mapping[str, Any], **_: Any) -> Any:
        """In place of what moto does not have: other functions, and instance refreshes."""
        if model.name == "Invoke":
            event = json.loads(params["body"])
            readings = {a: self.readings.get(a, 0) for a in event.get("addresses", ())}
            body = json.dumps({"readings": readings}).encode()
            return _OK, {"Payload": StreamingBody(io.BytesIO(body), len(body))}
        if model.name == "DescribeInstanceRefreshes":
            return _OK, {"InstanceRefreshes": []}
        return None

    def _allows(self, action: str, resource: str) -> bool:
        return any(
            action in _as_list(statement["Action"])
            and any(fnmatchcase(resource, pattern) for pattern in _as_list(statement["Resource"]))
            for statement in self.statements
        )


class GuardedSession(boto3.Session):
    """Its clients pass the guard of the moment; they are made once, since that takes long."""

    def __init__(self) -> None:
        super().__init__(region_name=REGION)
        self.guard = Guard()
        self.events.register("before-parameter-build", self._check)
        self.events.register("before-call", self._answer)

    def _check(self, **call: Any) -> None:
        self.guard.check(**call)

    def _answer(self, **call: Any) -> Any:
        return self.guard.answer(**call)


_OK = SimpleNamespace(status_code=200)
_GROUP_OF_INSTANCES = "comfyui-pulid-task-instance-autoscaling-group"


def _name_resource(service: str, params: Mapping[str, Any]) -> str:
    """The ARN of what a call is about; * if AWS asks for the right on everything."""
    here = f"{REGION}:{ACCOUNT}"
    resource = "*"
    match service, params:
        case "dynamodb", {"TableName": table}:
            index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
            resource = f"arn:aws:dynamodb:{here}:table/{table}{index}"
        case "sqs", {"QueueUrl": url}:
            resource = f"arn:aws:sqs:{REGION}:" + ":".join(url.split("/")[-2:])
        case "sqs", {"QueueName": name, "QueueOwnerAWSAccountId": account}:
            resource = f"arn:aws:sqs:{REGION}:{account}:{name}"
        case "s3", {"Bucket": bucket}:
            resource = "arn:aws:s3:::" + "/".join([bucket, *filter(None, [params.get("Key")])])
        case "lambda", {"FunctionName": name}:
            resource = f"arn:aws:lambda:{here}:function:{name}"
        case _, {"TopicArn": arn} | {"stateMachineArn": arn} | {"executionArn": arn}:
            resource = arn
        case "autoscaling", {"InstanceId": _}:
            # AWS looks the instance's group up.
            group = f"autoScalingGroup:an-id:autoScalingGroupName/{_GROUP_OF_INSTANCES}"
            resource = f"arn:aws:autoscaling:{here}:{group}"
        case "autoscaling", {"AutoScalingGroupName": name, **others} if "MaxRecords" not in others:
            group = f"autoScalingGroup:an-id:autoScalingGroupName/{name}"
            resource = f"arn:aws:autoscaling:{here}:{group}"
    return resource


def _make_error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "refused by the guard"}}, operation)


def _as_list(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
