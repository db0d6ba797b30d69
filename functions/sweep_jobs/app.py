"""sweep_jobs: every minute, mends what was left undone, and counts what the stage holds."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.adapters.embedded_metrics import (
    report_answered_job,
    report_counts,
    report_outcomes,
)
from ml_service.bootstrap import make_clock, make_count_jobs, make_sweep_jobs

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Sweep once; an error of one job shows in the function's own, after the others are mended."""
    report = make_sweep_jobs().sweep(make_clock().now())
    if report.counts:
        logger.warning(
            "jobs mended",
            extra={
                "job_ids": report.job_ids,
                **{action.lower(): count for action, count in report.counts.items()},
            },
        )
    report_outcomes("Swept", report.counts)
    for job in report.answered:
        report_answered_job(job)
    report_counts(make_count_jobs().count(make_clock().now()))
    if report.errors:
        raise ExceptionGroup("jobs that could not be mended", report.errors)
