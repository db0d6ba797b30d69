"""sweep_jobs: every minute, mends what a crash or a lost message has left undone."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_clock, make_sweep_jobs

logger = Logger()
metrics = Metrics()


@logger.inject_lambda_context
@metrics.log_metrics
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
    for action, count in report.counts.items():
        metrics.add_metric(f"Swept{action.title().replace('_', '')}", MetricUnit.Count, count)
    if report.errors:
        raise ExceptionGroup("jobs that could not be mended", report.errors)
