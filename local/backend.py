"""The backend's side of a running stage: it sends messages, waits for replies, reads results."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from pydantic import TypeAdapter

from ml_service.adapters.autoscaling import AutoScalingInstancePool
from ml_service.adapters.clock import SystemClock
from ml_service.adapters.dynamodb import DynamoDBFleetStore, DynamoDBJobStore
from ml_service.domain.errors import JobNotFoundError, MlServiceError
from ml_service.domain.fleets import Fleet
from ml_service.domain.jobs import Job, make_refused_id
from ml_service.ports import Clock, FleetStore, InstancePool, JobStore
from ml_service.settings import Settings, load_settings

_ROLE_KEYS = ("MainKey", "CoverKey", "ThumbnailKey", "MaskKey")


class NoInputBucketError(MlServiceError):
    """When an input file is to be stored for a stage that takes none."""


@dataclass(frozen=True)
class Reply:
    """The one final answer of a job."""

    succeeded: bool
    data: Mapping[str, str]

    @property
    def keys(self) -> list[str]:
        """The result keys, of every role that has one."""
        return [self.data[role] for role in _ROLE_KEYS if self.data.get(role)]


def read_reply(body: str) -> Reply:
    """A reply in the backend's form, as it travels and as the job record keeps it."""
    envelope = json.loads(body)
    return Reply(envelope["source"] == "ComfyUiResult", json.loads(envelope["data"]))


def choose_client_options(endpoint: str | None, region: str | None) -> dict[str, Any]:
    """What an AWS client is made with: the user's own account if there is no endpoint."""
    if endpoint is None:
        return {"region_name": region}
    return {
        "endpoint_url": endpoint,
        "region_name": region,
        # The embedded AWS asks for some credentials and takes any.
        "aws_access_key_id": "local",
        "aws_secret_access_key": "local",
    }


class Backend:
    """Does what the backend does, with the names that local mode's ready file gives.

    A deployed stage has the same names but no ``endpoint``.
    """

    def __init__(self, ready: Mapping[str, Any]) -> None:
        self.ready = ready
        options = choose_client_options(ready["endpoint"], ready["region"])
        self.sqs = boto3.client("sqs", **options)
        self.s3 = boto3.client("s3", **options)
        self._autoscaling = boto3.client("autoscaling", **options)
        self.functions = boto3.client("lambda", **options)
        self.stepfunctions = boto3.client("stepfunctions", **options)
        self.pool: InstancePool = AutoScalingInstancePool(
            self._autoscaling, boto3.client("ec2", **options)
        )
        dynamodb = boto3.resource("dynamodb", **options)
        self.job_table = dynamodb.Table(ready["job_table"])
        self.jobs: JobStore = DynamoDBJobStore(self.job_table)
        self.fleet_table = dynamodb.Table(ready["fleet_table"])
        self.fleets: FleetStore = DynamoDBFleetStore(self.fleet_table)

    def put_input(self, key: str, content: bytes) -> None:
        """Store an input file where messages may point at it; raises NoInputBucketError."""
        if not self.ready["input_bucket"]:
            raise NoInputBucketError(
                "this stage takes no input files: its parameter InputBuckets names no bucket"
            )
        self.s3.put_object(Bucket=self.ready["input_bucket"], Key=key, Body=content)

    def send(self, body: str) -> str:
        """Send a message as the backend does; gives its SQS message id."""
        url = self.ready["input_queue_url"]
        return self.sqs.send_message(QueueUrl=url, MessageBody=body)["MessageId"]

    def read_fleets(self) -> Mapping[str, Fleet]:
        """The stage's fleets, as the functions themselves are told of them."""
        return TypeAdapter(dict[str, Fleet]).validate_json(self._read_environment()["FLEETS"])

    def make_clock(self) -> Clock:
        """The stage's clock: local mode's runs faster than this machine's."""
        settings = load_settings(Settings, self._read_environment())
        return SystemClock(rate=settings.clock_rate, origin=settings.clock_origin)

    def count_messages(self, queue_url: str) -> int:
        """Messages in a queue: those that wait, and those received and not yet deleted."""
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=queue_url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        return sum(map(int, attributes.values()))

    def read_desired_capacity(self, group_name: str) -> int:
        """An Auto Scaling group's desired capacity."""
        answer = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group_name])
        return answer["AutoScalingGroups"][0]["DesiredCapacity"]

    def find_record(self, job_id: str, message_id: str) -> Job | None:
        """The record of a message that was sent; None before it was received.

        A message that was refused has a record under its SQS message id: its own may be wrong.
        """
        for record_id in (job_id, make_refused_id(message_id)):
            with contextlib.suppress(JobNotFoundError):
                return self.jobs.get(record_id)
        return None

    def receive_replies(self, *, wait_seconds: int) -> Iterator[Reply]:
        """Replies that have come, in the backend's form."""
        queue_url = self.ready["reply_queue_url"]
        answer = self.sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_seconds
        )
        for message in answer.get("Messages", []):
            yield read_reply(message["Body"])
            self.sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])

    def _read_environment(self) -> Mapping[str, str]:
        """The variables of one of the functions that know the fleets."""
        name = f"{self.ready['stage']}-ml-service-admit-jobs"
        answer = self.functions.get_function_configuration(FunctionName=name)
        return answer["Environment"]["Variables"]

    def read_result(self, key: str) -> bytes:
        """A result file."""
        return self.s3.get_object(Bucket=self.ready["result_bucket"], Key=key)["Body"].read()
