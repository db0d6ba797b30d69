"""dispatch_jobs: the input queue's messages become job records and go to their fleet's queue."""

import random
from collections import Counter
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.adapters.embedded_metrics import report_outcomes, report_values
from ml_service.bootstrap import make_clock, make_dispatch_jobs
from ml_service.domain.manifests import RANDOM_SEEDS
from ml_service.ports import QueuedMessage
from ml_service.services.dispatch_jobs import DispatchStatus

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Dispatch a batch; only messages that met a fault of our own go back to the queue."""
    report = make_dispatch_jobs().dispatch(
        [_read_record(record) for record in event["Records"]],
        now=make_clock().now(),
        new_seed=lambda: random.randrange(RANDOM_SEEDS),
    )
    for outcome in report.outcomes:
        keys = {"job_id": outcome.job_id, "fleet": outcome.fleet, "code": outcome.code}
        logger.info(f"message {outcome.status.lower()}", extra=keys, exc_info=outcome.error)
        if outcome.hand_off_refused:
            logger.warning("hand-off refused", extra=keys)
            report_values({"HandOffsRefused": 1})
    report_outcomes("Messages", Counter(outcome.status for outcome in report.outcomes))
    for fleet, error in report.lost_kicks.items():
        logger.warning("admission not told", extra={"fleet": fleet}, exc_info=error)
    return {
        "batchItemFailures": [
            {"itemIdentifier": outcome.message_id}
            for outcome in report.outcomes
            if outcome.status is DispatchStatus.RETURNED
        ]
    }


def _read_record(record: dict[str, Any]) -> QueuedMessage:
    # The event spells attributes in its own way; the queue takes them in the API's.
    attributes = {
        name: {
            "DataType": value["dataType"],
            **{
                member: value[key]
                for key, member in (("stringValue", "StringValue"), ("binaryValue", "BinaryValue"))
                if value.get(key) is not None
            },
        }
        for name, value in record.get("messageAttributes", {}).items()
    }
    return QueuedMessage(message_id=record["messageId"], body=record["body"], attributes=attributes)
