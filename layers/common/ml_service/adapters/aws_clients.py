"""boto3 clients, made when first needed and shared by a function's adapters."""

from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_dynamodb import DynamoDBServiceResource
    from types_boto3_ec2 import EC2Client
    from types_boto3_lambda import LambdaClient
    from types_boto3_s3 import S3Client
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient
    from types_boto3_stepfunctions import SFNClient

# The standard mode retries throttling and server errors, and few enough times for a function.
# The scaler writes ten instances of each of three fleets at once.
_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 4}, connect_timeout=3, max_pool_connections=30
)


class AwsClients:
    """One client per service; region, credentials and endpoints come from the environment."""

    @cached_property
    def autoscaling(self) -> "AutoScalingClient":
        """Auto Scaling."""
        return boto3.client("autoscaling", config=_CONFIG)

    @cached_property
    def dynamodb(self) -> "DynamoDBServiceResource":
        """DynamoDB, in boto3's form that knows Python's types."""
        return boto3.resource("dynamodb", config=_CONFIG)

    @cached_property
    def ec2(self) -> "EC2Client":
        """EC2."""
        return boto3.client("ec2", config=_CONFIG)

    @cached_property
    def functions(self) -> "LambdaClient":
        """Lambda."""
        return boto3.client("lambda", config=_CONFIG)

    @cached_property
    def s3(self) -> "S3Client":
        """S3."""
        # Presigned URLs would else be of the older kind, which newer Regions do not take.
        return boto3.client("s3", config=_CONFIG.merge(Config(signature_version="s3v4")))

    @cached_property
    def sns(self) -> "SNSClient":
        """SNS."""
        return boto3.client("sns", config=_CONFIG)

    @cached_property
    def sqs(self) -> "SQSClient":
        """SQS."""
        return boto3.client("sqs", config=_CONFIG)

    @cached_property
    def stepfunctions(self) -> "SFNClient":
        """Step Functions."""
        return boto3.client("stepfunctions", config=_CONFIG)
