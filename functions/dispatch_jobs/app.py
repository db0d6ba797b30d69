"""dispatch_jobs: the input queue's messages become job records and go to their fleet's queue."""

import random
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_clock, make_dispatch_jobs
from ml_service.domain.manifests import RANDOM_SEEDS
from ml_service.ports import QueuedMessage
from ml_service.services.dispatch_jobs import DispatchStatus

logger = Logger()
metrics = Metrics()


@logger.inject_lambda_context
@metrics.log_metrics
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
        metrics.add_metric(f"Messages{outcome.status.title()}", MetricUnit.Count, 1)
        if outcome.hand_off_refused:
            logger.warning("hand-off refused", extra=keys)
            metrics.add_metric("HandOffsRefused", MetricUnit.Count, 1)
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
