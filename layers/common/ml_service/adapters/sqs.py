"""Task queues, and the queue for messages that nobody can be told about."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_service.ports import QueuedMessage

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

_BATCH_LIMIT = 10
_BATCH_BYTES = 262_144
"""One message's largest body: a batch of several may not be larger in sum."""
_WAIT_SECONDS = 1
"""A long poll asks all of SQS's servers; a short one may miss what was just sent."""


class SqsJobQueue:
    """A task queue."""

    def __init__(self, client: "SQSClient", queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, messages: Sequence[QueuedMessage]) -> Sequence[str]:
        """Send messages in as few calls as SQS allows; returns the ids of those it refused."""
        refused: list[str] = []
        for batch in _make_batches(messages):
            answer = self._client.send_message_batch(
                QueueUrl=self._queue_url,
                Entries=[_to_entry(str(i), message) for i, message in enumerate(batch)],
            )
            refused += [batch[int(entry["Id"])].message_id for entry in answer.get("Failed", [])]
        return refused

    def receive(self, limit: int) -> Sequence[QueuedMessage]:
        """Receive up to ``limit`` messages, at most 10."""
        answer = self._client.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=limit,
            WaitTimeSeconds=_WAIT_SECONDS,
            MessageAttributeNames=["All"],
        )
        return [
            QueuedMessage(
                message_id=message["MessageId"],
                body=message["Body"],
                receipt=message["ReceiptHandle"],
                attributes={k: dict(v) for k, v in message.get("MessageAttributes", {}).items()},
            )
            for message in answer.get("Messages", [])
        ]

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete up to 10 received messages in one call."""
        if receipts:
            self._client.delete_message_batch(
                QueueUrl=self._queue_url,
                Entries=[{"Id": str(i), "ReceiptHandle": r} for i, r in enumerate(receipts)],
            )

    def put_back(self, message: QueuedMessage) -> None:
        """Send a copy and delete the original; a crash in between leaves both, which is no harm.

        Made visible again, the original would keep its receive count, and after a few lost races
        for a slot the queue would move a good job to the dead-letter queue.
        """
        if self.send([message]):
            return  # not taken: the original comes back by itself after its visibility timeout
        self.delete([message.receipt])


class SqsRefusedMessages:
    """The input queue's dead-letter queue, with the reason as message attributes."""

    def __init__(self, client: "SQSClient", queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def keep(self, body: str, *, code: str, sentence: str) -> None:
        """Store a message that was refused."""
        self._client.send_message(
            QueueUrl=self._queue_url,
            # SQS takes no empty body.
            MessageBody=body or " ",
            MessageAttributes={
                "RefusalCode": {"DataType": "String", "StringValue": code},
                "RefusalReason": {"DataType": "String", "StringValue": sentence},
            },
        )


def _make_batches(messages: Sequence[QueuedMessage]) -> Sequence[Sequence[QueuedMessage]]:
    batches: list[list[QueuedMessage]] = []
    size = 0
    for message in messages:
        # Attributes count too; the sender's message, with them, was within the limit itself.
        message_size = len(message.body.encode()) + len(repr(message.attributes))
        if not batches or len(batches[-1]) == _BATCH_LIMIT or size + message_size > _BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(message)
        size += message_size
    return batches


def _to_entry(entry_id: str, message: QueuedMessage) -> Any:
    entry: dict[str, Any] = {"Id": entry_id, "MessageBody": message.body}
    if message.attributes:
        entry["MessageAttributes"] = message.attributes
    return entry
