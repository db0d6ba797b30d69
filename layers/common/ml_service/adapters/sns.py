"""The reply topic."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_boto3_sns import SNSClient


class SnsReplyTopic:
    """Publishes replies as they are; the backend's queue subscribes with raw delivery."""

    def __init__(self, client: "SNSClient", topic_arn: str) -> None:
        self._client = client
        self._topic_arn = topic_arn

    def publish(self, reply: str) -> None:
        """Publish one reply."""
        self._client.publish(TopicArn=self._topic_arn, Message=reply)
