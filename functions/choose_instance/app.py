"""choose_instance: first step of a run, and again whenever a job has lost its instance."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.adapters.embedded_metrics import report_values
from ml_service.bootstrap import make_choose_instance, make_clock
from ml_service.services.choose_instance import WAIT_SECONDS

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Make sure that the job has a slot."""
    choice = make_choose_instance().choose(event["job_id"], now=make_clock().now())
    job = choice.job
    logger.info(
        "instance chosen",
        extra={
            "job_id": job.job_id,
            "fleet": job.fleet,
            "status": choice.status,
            "instance_id": job.instance_id,
            "attempt": job.attempt,
        },
    )
    if choice.quarantined:
        logger.error(
            "instance quarantined", extra={"fleet": job.fleet, "instance": choice.quarantined}
        )
        report_values({"InstancesQuarantined": 1})
    return {"status": choice.status, "wait_seconds": WAIT_SECONDS}
