"""The backend's side of a running stage: it sends messages, waits for replies, reads results."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3

from ml_service.adapters.dynamodb import DynamoDBFleetStore, DynamoDBJobStore
from ml_service.ports import FleetStore, JobStore

_ROLE_KEYS = ("MainKey", "CoverKey", "ThumbnailKey", "MaskKey")


@dataclass(frozen=True)
class Reply:
    """The one final answer of a job."""

    succeeded: bool
    data: Mapping[str, str]

    @property
    def keys(self) -> list[str]:
        """The result keys, of every role that has one."""
        return [self.data[role] for role in _ROLE_KEYS if self.data.get(role)]


class Backend:
    """Does what the backend does, with the names that local mode's ready file gives."""

    def __init__(self, ready: Mapping[str, Any]) -> None:
        self.ready = ready
        options: dict[str, Any] = {
            "endpoint_url": ready["endpoint"],
            "region_name": ready["region"],
            # The embedded AWS asks for some credentials and takes any.
            "aws_access_key_id": "local",
            "aws_secret_access_key": "local",
        }
        self.sqs = boto3.client("sqs", **options)
        self.s3 = boto3.client("s3", **options)
        dynamodb = boto3.resource("dynamodb", **options)
        self.jobs: JobStore = DynamoDBJobStore(dynamodb.Table(ready["job_table"]))
        self.fleets: FleetStore = DynamoDBFleetStore(dynamodb.Table(ready["fleet_table"]))

    def put_input(self, key: str, content: bytes) -> None:
        """Store an input file where messages may point at it."""
        self.s3.put_object(Bucket=self.ready["input_bucket"], Key=key, Body=content)

    def send(self, body: str) -> None:
        """Send a message as the backend does."""
        self.sqs.send_message(QueueUrl=self.ready["input_queue_url"], MessageBody=body)

    def receive_replies(self, *, wait_seconds: int) -> Iterator[Reply]:
        """Replies that have come, in the backend's form."""
        queue_url = self.ready["reply_queue_url"]
        answer = self.sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_seconds
        )
        for message in answer.get("Messages", []):
            envelope = json.loads(message["Body"])
            yield Reply(envelope["source"] == "ComfyUiResult", json.loads(envelope["data"]))
            self.sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])

    def read_result(self, key: str) -> bytes:
        """A result file."""
        return self.s3.get_object(Bucket=self.ready["result_bucket"], Key=key)["Body"].read()
