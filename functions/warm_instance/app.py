"""warm_instance: in the instances' network, it warms up what was launched; then admission is told.

Lambda itself calls admit_jobs once this has ended, as its destination: from here nothing can.
"""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.adapters.embedded_metrics import report_values
from ml_service.bootstrap import make_warm_instance
from ml_service.services.warm_instance import WarmUpStatus

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Warm the instance up that the event names by fleet and key."""
    fleet, key = event["fleet"], event["instance"]
    report = make_warm_instance().warm_up(fleet, key)
    keys = {"fleet": fleet, "instance": key, "status": report.status, "fault": report.fault}
    if report.status in (WarmUpStatus.FAILED, WarmUpStatus.UNFIT):
        logger.error("warm-up failed", extra=keys)
        report_values({"WarmUpFailed": 1})
    else:
        logger.info("warm-up ended", extra=keys)
    if report.status is WarmUpStatus.WARMED:
        report_values({"WarmUpSeconds": report.seconds}, unit=MetricUnit.Seconds)
    return {"status": report.status}
