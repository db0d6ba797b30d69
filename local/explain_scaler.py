"""What the scaler has decided, and what it would decide now."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table

from local.backend import Backend
from local.find_backend import Target, TargetError, opened_backend
from local.read_decisions import list_decisions
from local.terminal import open_terminal
from ml_service.adapters.sqs import SqsJobQueue
from ml_service.domain.fleets import Fleet
from ml_service.domain.scaling import ScalerState, ScalingDecision, decide_scaling
from ml_service.services.refresh_registry import FleetSnapshot
from ml_service.services.scale_fleets import make_observation


def run_history(target: Target, fleet: str, *, limit: int) -> int:
    """Print the last decisions of a fleet, the latest first."""
    with opened_backend(target) as backend:
        _find_fleet(backend, fleet)
        decisions = list_decisions(backend.fleet_table, fleet, limit=limit)
    table = Table()
    for name in ("tick", "queues", "backlog", "action", "desired", "outcome", "reason"):
        table.add_column(name)
    for decision in decisions:
        table.add_row(
            f"{decision.tick:%Y-%m-%d %H:%M:%S}",
            _format_readings(decision.readings),
            "" if decision.backlog is None else str(decision.backlog),
            decision.action,
            str(decision.desired),
            decision.outcome,
            decision.reason,
        )
    open_terminal().print(table)
    return 0


def run_explain(target: Target, fleet: str) -> int:
    """Print what the scaler would decide now, and why; nothing is changed."""
    with opened_backend(target) as backend:
        settings = _find_fleet(backend, fleet)
        state = backend.fleets.load_scaler(fleet)
        decision = _decide(backend, fleet, settings, state)
    terminal = open_terminal()
    if decision is None:
        terminal.print(f"{fleet}: the check of this moment has been made; see its history.")
        return 0
    seen = decision.observation
    terminal.print(f"{fleet}: {decision.action}, desired {seen.desired} -> {decision.desired}")
    terminal.print(f"  why        {decision.reason}")
    terminal.print(f"  group      {seen.minimum} to {seen.maximum}, {seen.launching} launching")
    # The instances are in a network that this machine is not in: their last readings must do.
    terminal.print(f"  queues     {_format_readings(seen.readings) or 'no instance'}, as last read")
    if seen.backlog is not None:
        terminal.print(f"  backlog    {seen.backlog}")
    terminal.print(
        f"  streaks    {state.busy_checks} busy, {state.idle_checks} idle, "
        f"last check {_format_time(state.last_tick)}"
    )
    for obstacle in seen.obstacles:
        terminal.print(f"  obstacle   {obstacle}")
    return 0


def _find_fleet(backend: Backend, name: str) -> Fleet:
    fleets = backend.read_fleets()
    if name not in fleets:
        raise TargetError(f"there is no fleet {name!r}, only {', '.join(fleets)}")
    return fleets[name]


def _decide(
    backend: Backend, name: str, fleet: Fleet, state: ScalerState
) -> ScalingDecision | None:
    policy = fleet.make_policy()
    group = backend.pool.describe(fleet.group_name)
    keys = {member.key for member in group.members if member.in_service}
    instances = [i for i in backend.fleets.list_instances(name) if i.key in keys]
    snapshot = FleetSnapshot(group, {i.key: i.reading for i in instances}, instances)
    queue = SqsJobQueue(backend.sqs, fleet.task_queue_url)
    observation = make_observation(
        snapshot,
        backend.make_clock().now(),
        backlog=queue.count_waiting() if policy.counts_backlog else None,
        is_refreshing=backend.pool.is_refreshing(fleet.group_name),
    )
    return decide_scaling(observation, state, policy)


def _format_readings(readings: Sequence[int | None]) -> str:
    return ", ".join("?" if reading is None else str(reading) for reading in readings)


def _format_time(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%H:%M:%S}"
