"""finish_job: last step of every run, and the cleaner-up of runs that broke."""

import json
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.adapters.embedded_metrics import report_answered_job, report_values
from ml_service.bootstrap import make_clock, make_finish_job
from ml_service.domain.hand_offs import HandOffState
from ml_service.services.finish_job import StepError

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Close the job that a step of the state machine, or an execution's end, is about."""
    job_id, run, error = _read_event(event)
    now = make_clock().now()
    job = make_finish_job().finish(job_id, run=run, error=error, now=now)
    logger.info(
        "job finished",
        extra={
            "job_id": job_id,
            "run": run,
            "fleet": job.fleet,
            "workflow": job.workflow,
            "state": job.state,
            "code": job.failure.code if job.failure else None,
        },
    )
    # A repeat, or the event of an execution that had finished its job, counts nothing twice.
    if job.published_at == now:
        report_answered_job(job)
    if job.hand_off is not None and job.hand_off.state is HandOffState.FAILED:
        logger.warning("hand-off failed", extra={"job_id": job_id, "fleet": job.fleet})
        report_values({"HandOffsFailed": 1})
    return {"status": job.state}


def _read_event(event: dict[str, Any]) -> tuple[str, int, StepError | None]:
    detail = event.get("detail")
    if detail is not None:
        # EventBridge: the execution ended without this step, which runs no Catch.
        execution = json.loads(detail["input"])
        return execution["job_id"], execution["run"], StepError(detail["status"])
    error = event.get("error")
    if error is not None:
        return event["job_id"], event["run"], StepError(error["Error"], error.get("Cause", ""))
    return event["job_id"], event["run"], None
