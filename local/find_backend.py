"""Finding the stage that a command works against: local mode's, or one deployed on AWS."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from local.backend import Backend, choose_client_options
from local.local_names import INPUT_BUCKET, REPLY_QUEUE
from ml_service.domain.errors import MlServiceError

if TYPE_CHECKING:
    from types_boto3_cloudformation.type_defs import StackTypeDef

DEFAULT_ENDPOINT = "http://127.0.0.1:4566"
_LOCAL_REGION = "us-east-1"
_STAGES = ("prod", "dev")


class TargetError(MlServiceError):
    """When the stage that a command is to work against cannot be found or does not answer."""


@dataclass(frozen=True)
class Target:
    """Which stage is meant: a ready file before an endpoint, a stage without both is on AWS.

    With nothing given it is local mode on its usual port.
    """

    ready_file: Path | None = None
    endpoint: str | None = None
    stage: str | None = None
    reply_queue_url: str | None = None
    """A queue that is subscribed to the stage's reply topic; local mode has one."""
    input_bucket: str | None = None
    """The first of the stage's InputBuckets if not given."""


@contextmanager
def opened_backend(target: Target) -> Iterator[Backend]:
    """The backend's side of a stage, for a block in which AWS's errors become a TargetError."""
    try:
        yield Backend(_find_names(target))
    except EndpointConnectionError as error:
        hint = "" if target.stage else "; is local mode running? Start it with: ml-service local"
        raise TargetError(f"{error}{hint}") from error
    except (BotoCoreError, ClientError) as error:
        raise TargetError(str(error)) from error


def _find_names(target: Target) -> Mapping[str, Any]:
    if target.stage is not None and target.stage not in _STAGES:
        raise TargetError(f"there is no stage {target.stage!r}, only prod and dev")
    if target.ready_file is not None:
        names = _read_ready_file(target.ready_file)
    elif target.stage is not None and target.endpoint is None:
        names = _read_stack(None, target.stage)
    else:
        names = _find_local_names(target.endpoint or DEFAULT_ENDPOINT, target.stage)
    given = {"reply_queue_url": target.reply_queue_url, "input_bucket": target.input_bucket}
    return {**names, **{name: value for name, value in given.items() if value is not None}}


def _read_ready_file(path: Path) -> Mapping[str, Any]:
    try:
        names: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetError(f"{path} is not there: local mode writes it when it is up") from None
    except ValueError as error:
        raise TargetError(f"{path} is no ready file: {error}") from None
    if not isinstance(names, dict) or "endpoint" not in names:
        raise TargetError(f"{path} is no ready file: it names no endpoint")
    return names


def _find_local_names(endpoint: str, stage: str | None) -> Mapping[str, Any]:
    # One port holds one stage; which one, local mode was told when it was started.
    names = _read_stack(endpoint, *([stage] if stage else _STAGES))
    sqs = boto3.client("sqs", **choose_client_options(endpoint, _LOCAL_REGION))
    return {
        **names,
        "reply_queue_url": sqs.get_queue_url(QueueName=REPLY_QUEUE)["QueueUrl"],
        "input_bucket": INPUT_BUCKET,
    }


def _read_stack(endpoint: str | None, *stages: str) -> Mapping[str, Any]:
    """The names of the first of the stages that has a stack there."""
    options = choose_client_options(endpoint, _LOCAL_REGION if endpoint else None)
    # The first call of all: where nothing listens, five more would only take a user's time.
    config = Config(retries={"total_max_attempts": 2})
    cloudformation = boto3.client("cloudformation", config=config, **options)
    for stage in stages:
        try:
            stacks = cloudformation.describe_stacks(StackName=f"{stage}-ml-service")["Stacks"]
        except ClientError as error:
            # CloudFormation has no error of its own for a stack that does not exist.
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            continue
        sqs = boto3.client("sqs", **options)
        # A queue's URL has local mode's port only if SQS itself is asked for it.
        input_queue_url = sqs.get_queue_url(QueueName=f"{stage}-ml-service-input-queue")["QueueUrl"]
        return {
            "endpoint": endpoint,
            "region": cloudformation.meta.region_name,
            "stage": stage,
            "input_queue_url": input_queue_url,
            **_read_outputs(stacks[0]),
        }
    where = f"at {endpoint}; is local mode up?" if endpoint else "in this account and Region"
    raise TargetError(f"there is no stack {stages[0]}-ml-service {where}")


def _read_outputs(stack: "StackTypeDef") -> Mapping[str, str]:
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])}
    return {
        "reply_queue_url": "",
        "input_bucket": parameters.get("InputBuckets", "").partition(",")[0].strip(),
        "result_bucket": outputs["ResultBucketName"],
        "job_table": outputs["JobTableName"],
        "fleet_table": outputs["FleetTableName"],
        "state_machine_arn": outputs["RunJobStateMachineArn"],
    }
