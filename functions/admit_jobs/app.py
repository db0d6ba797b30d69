"""admit_jobs: kicked after every change, and by the minute tick, it fills free slots."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.adapters.embedded_metrics import report_outcomes, report_values
from ml_service.bootstrap import make_admit_jobs

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Admit jobs of the fleet that the event is about, or of all fleets on a tick."""
    service = make_admit_jobs()
    # What warm_instance was called with, if this is its end.
    event = event.get("requestPayload", event)
    group_name = event.get("detail", {}).get("AutoScalingGroupName")
    if group_name is not None:
        # An instance has come or gone: the registry must know before anything is placed.
        names = [n for n, fleet in service.fleets.items() if fleet.group_name == group_name]
        for name in names:
            service.registry.refresh(name, service.fleets[name], now=service.clock.now())
    else:
        names = [event["fleet"]] if "fleet" in event else list(service.fleets)
    for name in names:
        report = service.admit(name)
        if not report.was_first:
            continue
        if not report.ready_instances:
            logger.warning("no instance is ready", extra={"fleet": name})
            report_values({"NoCapacity": 1})
        logger.info(
            "fleet admitted",
            extra={
                "fleet": name,
                "free_slots": report.free_slots,
                "job_ids": report.job_ids,
                **{status.lower(): count for status, count in report.counts.items()},
            },
        )
        report_outcomes("Jobs", report.counts)
