"""Polls the queues that feed functions, as Lambda's event source mappings do."""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from local.aws.clients import AwsClients
from local.aws.event_rules import matches_pattern
from local.aws.lambda_runtime import LambdaRuntime, TooManyRequestsError
from local.aws.stack import EventSourceMapping

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef, MessageTypeDef

_log = logging.getLogger(__name__)

_LONG_POLL_SECONDS: Final = 20
_MOST_PER_RECEIVE: Final = 10
_MOST_PER_DELETE: Final = 10
_PAUSE_AFTER_ERROR_SECONDS: Final = 1.0


class QueuePoller:
    """Feeds one function from one queue.

    A failed batch is left alone: its messages come back after the queue's visibility timeout, and
    move to its dead-letter queue after maxReceiveCount, which is moto's part.
    """

    def __init__(
        self, mapping: EventSourceMapping, clients: AwsClients, runtime: LambdaRuntime
    ) -> None:
        """Take the mapping; ``clients`` should speak to moto directly."""
        self.mapping = mapping
        self._clients = clients
        self._runtime = runtime
        name = mapping.queue_arn.rpartition(":")[2]
        self._queue_url = f"{clients.endpoint}/{mapping.queue_arn.split(':')[4]}/{name}"
        # A long poll blocks its thread; batches are settled in the others.
        self._threads = ThreadPoolExecutor(max_workers=3, thread_name_prefix=f"poll-{name}")
        self._slots = asyncio.Semaphore(mapping.maximum_concurrency)
        self._batches: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None
        self._enabled = asyncio.Event()
        self._enabled.set()
        self._is_polling = False

    @property
    def state(self) -> str:
        """Enabled, Disabling (a poll is still under way) or Disabled, as Lambda calls it."""
        if self._enabled.is_set():
            return "Enabled"
        return "Disabling" if self._is_polling else "Disabled"

    def switch(self, *, enabled: bool) -> None:
        """Go on polling, or do not begin another poll."""
        if enabled:
            self._enabled.set()
        else:
            self._enabled.clear()

    def start(self) -> None:
        """Begin to poll."""
        self._loop_task = asyncio.get_running_loop().create_task(self._poll())

    async def stop(self) -> None:
        """Stop polling. A long poll under way ends when moto does."""
        tasks = [*self._batches, *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _poll(self) -> None:
        while True:
            await self._enabled.wait()
            await self._slots.acquire()
            self._is_polling = True
            try:
                batch = await self._collect_batch()
            except (BotoCoreError, ClientError):
                _log.exception("A queue cannot be read", extra={"queue": self._queue_url})
                await asyncio.sleep(_PAUSE_AFTER_ERROR_SECONDS)
                batch = []
            finally:
                self._is_polling = False
            if not batch:
                self._slots.release()
                continue
            task = asyncio.get_running_loop().create_task(self._process(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _collect_batch(self) -> "list[MessageTypeDef]":
        """Receive a batch: without a window what is there, with one until it is full or over."""
        mapping = self.mapping
        batch = await self._receive(mapping.batch_size, _LONG_POLL_SECONDS)
        end = time.monotonic() + mapping.window_seconds
        while batch and len(batch) < mapping.batch_size and time.monotonic() < end:
            left = int(end - time.monotonic())
            batch += await self._receive(mapping.batch_size - len(batch), left)
        return batch

    async def _receive(self, most: int, wait_seconds: int) -> "list[MessageTypeDef]":
        def receive() -> "list[MessageTypeDef]":
            answer = self._clients.sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=min(most, _MOST_PER_RECEIVE),
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            return answer.get("Messages", [])

        return await asyncio.get_running_loop().run_in_executor(self._threads, receive)

    async def _process(self, batch: "Sequence[MessageTypeDef]") -> None:
        try:
            records = [self._record(message) for message in batch]
            wanted = [record for record in records if self._is_wanted(record)]
            done = [record for record in records if record not in wanted]
            if wanted:
                done += await self._invoke(wanted)
            await self._delete(done)
        except (BotoCoreError, ClientError):
            _log.exception("A batch cannot be settled", extra={"queue": self._queue_url})
        finally:
            self._slots.release()

    def _is_wanted(self, record: dict[str, Any]) -> bool:
        patterns = self.mapping.filter_patterns
        if not patterns:
            return True
        body = record["body"]
        with contextlib.suppress(ValueError):
            body = json.loads(body)
        return any(matches_pattern(pattern, {**record, "body": body}) for pattern in patterns)

    async def _invoke(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give the function a batch; return the records that are done."""
        payload = json.dumps({"Records": records}).encode()
        name = self.mapping.function_name
        try:
            result = await self._runtime.invoke(name, payload, str(uuid.uuid4()))
        except TooManyRequestsError:
            return []
        if result.failed:
            return []
        if not self.mapping.reports_failures:
            return records
        return select_successes(records, result.payload)

    async def _delete(self, records: list[dict[str, Any]]) -> None:
        def delete() -> None:
            for start in range(0, len(records), _MOST_PER_DELETE):
                self._clients.sqs.delete_message_batch(
                    QueueUrl=self._queue_url,
                    Entries=[
                        {"Id": str(index), "ReceiptHandle": record["receiptHandle"]}
                        for index, record in enumerate(records[start : start + _MOST_PER_DELETE])
                    ],
                )

        await asyncio.get_running_loop().run_in_executor(self._threads, delete)

    def _record(self, message: "MessageTypeDef") -> dict[str, Any]:
        """Write a message as Lambda hands it to a function."""
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": {
                name: _write_attribute(value)
                for name, value in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.mapping.queue_arn,
            "awsRegion": self._clients.region,
        }


def _write_attribute(value: "MessageAttributeValueOutputTypeDef") -> dict[str, Any]:
    attribute: dict[str, Any] = {
        "dataType": value["DataType"],
        "stringListValues": [],
        "binaryListValues": [],
    }
    if "StringValue" in value:
        attribute["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        attribute["binaryValue"] = b64encode(value["BinaryValue"]).decode()
    return attribute


def select_successes(records: list[dict[str, Any]], answer: bytes) -> list[dict[str, Any]]:
    """Read a partial batch response: what it does not name is done.

    As with Lambda, no answer means success, and one that cannot be read fails the whole batch.
    """
    response = json.loads(answer or b"null")
    if response is None:
        return records
    if not isinstance(response, dict):
        return []
    failures = response.get("batchItemFailures") or []
    if not isinstance(failures, list):
        return []
    known = {record["messageId"] for record in records}
    failed = {
        failure.get("itemIdentifier") if isinstance(failure, dict) else None for failure in failures
    }
    if not failed <= known:
        return []
    return [record for record in records if record["messageId"] not in failed]
