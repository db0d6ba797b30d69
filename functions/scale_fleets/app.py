"""scale_fleets: every minute it observes each fleet, decides, acts, and says why."""

from datetime import datetime
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.adapters.embedded_metrics import report_values
from ml_service.bootstrap import make_scale_fleets
from ml_service.domain.scaling import ScalingAction
from ml_service.services.scale_fleets import FleetTick

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Run the tick that the event's own time names; a repeat of it does nothing."""
    tick = datetime.fromisoformat(event["time"])
    ticks = make_scale_fleets().scale(tick=tick)
    for fleet_tick in ticks:
        _report(fleet_tick)
    failed = [fleet_tick for fleet_tick in ticks if fleet_tick.outcome == "FAILED"]
    if failed:
        # An error that the function's alarm sees; the next tick comes before a retry would.
        raise ExceptionGroup("fleets failed", [t.error for t in failed if t.error])


def _report(fleet_tick: FleetTick) -> None:
    keys: dict[str, Any] = {"fleet": fleet_tick.fleet, "outcome": fleet_tick.outcome}
    unhealthy = fleet_tick.unhealthy
    if unhealthy is not None:
        fault = {"instance_id": unhealthy.instance_id, "fault": unhealthy.fault}
        logger.error("instance reported unhealthy", extra=keys | fault)
    decision = fleet_tick.decision
    if decision is not None:
        keys["decision"] = decision.model_dump(mode="json", exclude={"state_if_refused"})
        seen = decision.observation
        known = [reading for reading in seen.readings if reading is not None]
        values = {
            "DesiredCapacity": decision.desired,
            "MaximumCapacity": seen.maximum,
            "RunningInstances": len(known),
            "UnknownInstances": len(seen.readings) - len(known),
            "LaunchingInstances": seen.launching,
        }
        if seen.backlog is not None:
            values["Backlog"] = seen.backlog
        if unhealthy is not None:
            values["InstancesReportedUnhealthy"] = 1
        if known:
            values["LongestQueue"] = max(known)
        if decision.action is not ScalingAction.NONE:
            values[f"{decision.action}_{fleet_tick.outcome}"] = 1
        report_values(values, fleet=fleet_tick.fleet)
    logger.info("fleet scaled", extra=keys, exc_info=fleet_tick.error)
