"""Clients of the embedded AWS, untouched by the user's own profiles, proxies and certificates."""

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.session import Session

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_dynamodb.service_resource import Table
    from types_boto3_ec2 import EC2Client
    from types_boto3_events import EventBridgeClient
    from types_boto3_lambda import LambdaClient
    from types_boto3_s3 import S3Client
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient
    from types_boto3_stepfunctions import SFNClient

ACCESS_KEY: Final = "local"
SECRET_KEY: Final = "local"  # noqa: S105  (moto asks for none)
_CONNECTIONS: Final = 64


class AwsClients:
    """One client per service, made when first used, all on one endpoint."""

    def __init__(self, endpoint: str, region: str) -> None:
        """Take the URL that all clients speak to."""
        self.endpoint = endpoint
        self.region = region
        self._lock = threading.Lock()  # A session must not make two clients at once.
        self._session = Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
                "credentials_file": (None, None, os.devnull, None),
                "ca_bundle": (None, None, None, None),
            }
        )

    def client(self, service: str) -> Any:
        """Make a client of any service."""
        with self._lock:
            return self._session.create_client(
                service,
                region_name=self.region,
                endpoint_url=self.endpoint,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                config=Config(
                    proxies={},
                    max_pool_connections=_CONNECTIONS,
                    retries={"total_max_attempts": 2},
                ),
            )

    def table(self, name: str) -> "Table":
        """Make the resource of a DynamoDB table; it must not be used by two threads at once."""
        with self._lock:
            table: Table = (
                boto3.Session(
                    aws_access_key_id=ACCESS_KEY,
                    aws_secret_access_key=SECRET_KEY,
                    region_name=self.region,
                    botocore_session=self._session,
                )
                .resource("dynamodb", endpoint_url=self.endpoint, config=Config(proxies={}))
                .Table(name)
            )
        return table

    @cached_property
    def autoscaling(self) -> "AutoScalingClient":
        """Auto Scaling."""
        client: AutoScalingClient = self.client("autoscaling")
        return client

    @cached_property
    def cloudformation(self) -> "CloudFormationClient":
        """CloudFormation."""
        client: CloudFormationClient = self.client("cloudformation")
        return client

    @cached_property
    def cloudwatch(self) -> Any:
        """CloudWatch."""
        return self.client("cloudwatch")

    @cached_property
    def ec2(self) -> "EC2Client":
        """EC2."""
        client: EC2Client = self.client("ec2")
        return client

    @cached_property
    def events(self) -> "EventBridgeClient":
        """EventBridge."""
        client: EventBridgeClient = self.client("events")
        return client

    @cached_property
    def functions(self) -> "LambdaClient":
        """Lambda."""
        client: LambdaClient = self.client("lambda")
        return client

    @cached_property
    def s3(self) -> "S3Client":
        """S3."""
        client: S3Client = self.client("s3")
        return client

    @cached_property
    def sns(self) -> "SNSClient":
        """SNS."""
        client: SNSClient = self.client("sns")
        return client

    @cached_property
    def sqs(self) -> "SQSClient":
        """SQS."""
        client: SQSClient = self.client("sqs")
        return client

    @cached_property
    def stepfunctions(self) -> "SFNClient":
        """Step Functions."""
        client: SFNClient = self.client("stepfunctions")
        return client
