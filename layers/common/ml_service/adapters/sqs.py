"""Task queues, and the dead-letter queues for what could not be dealt with."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from ml_service.domain.errors import HandOffFailedError
from ml_service.ports import (
    REFUSAL_CODE_ATTRIBUTE,
    REFUSAL_REASON_ATTRIBUTE,
    DeadLetter,
    QueuedMessage,
)

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.literals import QueueAttributeNameType
    from types_boto3_sqs.type_defs import MessageTypeDef

_BATCH_LIMIT = 10
_BATCH_BYTES = 262_144
"""One message's largest body: a batch of several may not be larger in sum."""
_CLOSED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidState",
        "KmsNotFound",
        "NonExistentQueue",
        "QueueDoesNotExist",
    }
)
"""SQS's codes, in both spellings that it has, for a queue that takes nothing from us."""
_WAIT_SECONDS = 1
"""A long poll asks all of SQS's servers; a short one may miss what was just sent."""
_HOLD_SECONDS = 120
"""A dead letter is an operator's for so long; whoever dies with it in hand blocks it no longer."""


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
        return [_read_message(message) for message in answer.get("Messages", [])]

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

    def count_waiting(self) -> int:
        """SQS's own estimate of the messages that can be received."""
        name: Literal["ApproximateNumberOfMessages"] = "ApproximateNumberOfMessages"
        answer = self._client.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=[name])
        return int(answer["Attributes"][name])


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
                REFUSAL_CODE_ATTRIBUTE: {"DataType": "String", "StringValue": code},
                REFUSAL_REASON_ATTRIBUTE: {"DataType": "String", "StringValue": sentence},
            },
        )


class SqsConversionQueues:
    """Queues by their ARNs, of this account or another, in this Region."""

    def __init__(self, client: "SQSClient") -> None:
        self._client = client

    def send(self, queue_arn: str, messages: Sequence[str]) -> None:
        """Send messages one by one; a queue that is gone or forbidden stays so."""
        account, name = queue_arn.split(":")[4:6]
        try:
            # SQS says the URL: one that came in a message could lead anywhere.
            queue_url = self._client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)[
                "QueueUrl"
            ]
            for message in messages:
                self._client.send_message(QueueUrl=queue_url, MessageBody=message)
        except ClientError as error:
            code = error.response["Error"]["Code"].rpartition(".")[2]
            if code in _CLOSED:
                raise HandOffFailedError(f"The queue of conversions met {code}.") from None
            raise


class SqsDeadLetterQueue:
    """The dead-letter queue of the input queue, or of a fleet's task queue."""

    def __init__(self, client: "SQSClient", queue_url: str, *, fleet: str = "") -> None:
        self._client = client
        self._queue_url = queue_url
        self._fleet = fleet

    def count_hidden(self) -> int:
        """SQS's own approximate number of messages that somebody holds."""
        name: QueueAttributeNameType = "ApproximateNumberOfMessagesNotVisible"
        answer = self._client.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=[name])
        return int(answer["Attributes"][name])

    def hold(self) -> Sequence[DeadLetter]:
        """Up to 10 messages, hidden from others for ``_HOLD_SECONDS``."""
        answer = self._client.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=_BATCH_LIMIT,
            WaitTimeSeconds=_WAIT_SECONDS,
            VisibilityTimeout=_HOLD_SECONDS,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        return [
            DeadLetter(
                message=_read_message(message),
                sent_at=datetime.fromtimestamp(
                    int(message["Attributes"]["SentTimestamp"]) / 1000, tz=UTC
                ),
                fleet=self._fleet,
            )
            for message in answer.get("Messages", [])
        ]

    def release(self, receipts: Sequence[str]) -> None:
        """Make held messages visible; one whose hold has run out is visible already."""
        if receipts:
            self._client.change_message_visibility_batch(
                QueueUrl=self._queue_url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for i, receipt in enumerate(receipts)
                ],
            )

    def delete(self, receipt: str) -> None:
        """Delete a held message."""
        self._client.delete_message(QueueUrl=self._queue_url, ReceiptHandle=receipt)


def _read_message(message: "MessageTypeDef") -> QueuedMessage:
    return QueuedMessage(
        message_id=message["MessageId"],
        body=message["Body"],
        receipt=message["ReceiptHandle"],
        attributes={k: dict(v) for k, v in message.get("MessageAttributes", {}).items()},
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
