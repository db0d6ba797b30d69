"""scale_fleets: one tick of the scaler, each fleet on its own."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from ml_service.domain.errors import ScalingRefusedError
from ml_service.domain.fleets import Fleet
from ml_service.domain.health import count_silent, find_fault
from ml_service.domain.scaling import (
    FleetObservation,
    ScalerState,
    ScalingAction,
    ScalingDecision,
    decide_scaling,
)
from ml_service.domain.scaling_policy import ScalingPolicy
from ml_service.ports import Clock, FleetStore, InstancePool, JobQueue
from ml_service.services.refresh_registry import FleetSnapshot, RefreshRegistry
from ml_service.services.remove_instances import RemoveInstances

_LAST_REMOVAL = timedelta(seconds=10)
"""A removal takes 45 s, and has to end before the function does and the next tick begins."""
_LONGEST_REMOVAL = timedelta(seconds=150)
"""After so long one that has not told its end has died, even where local mode's clock runs fast."""


@dataclass(frozen=True)
class UnhealthyInstance:
    """An instance that is of no use any more."""

    instance_id: str
    fault: str
    """Why, in a sentence."""


@dataclass(frozen=True)
class FleetTick:
    """What one check did for one fleet."""

    fleet: str
    decision: ScalingDecision | None = None
    """None if the check was a repeat, or the fleet could not be observed."""
    outcome: str = "REPEATED"
    """DONE, NOT_ALLOWED, POSTPONED, REFUSED, REPEATED, HELD (by a removal at work), FAILED."""
    error: Exception | None = None
    unhealthy: UnhealthyInstance | None = None
    """What was reported to the group, which then replaces it."""


@dataclass(frozen=True)
class ScaleFleets:
    """Observes, decides, acts, and writes every decision down."""

    fleets: Mapping[str, Fleet]
    task_queues: Mapping[str, JobQueue]
    store: FleetStore
    pool: InstancePool
    registry: RefreshRegistry
    remover: RemoveInstances
    clock: Clock
    scaling_enabled: bool
    """False in a stage that uses another stage's instances: it decides, but never acts."""
    reports_unhealthy: bool
    """Whether instances that are of no use any more are reported to their groups."""

    def scale(self, *, tick: datetime) -> Sequence[FleetTick]:
        """Run one tick, told by its event's own time; a failing or slow fleet stops no other."""
        with ThreadPoolExecutor(max(1, len(self.fleets))) as threads:
            runs = threads.map(lambda name: self._run_checks(name, tick), self.fleets)
            return [fleet_tick for run in runs for fleet_tick in run]

    def _run_checks(self, name: str, tick: datetime) -> Sequence[FleetTick]:
        policy = self.fleets[name].make_policy()
        began = self.clock.now()
        ticks = []
        for number in range(policy.checks_per_tick):
            offset = number * policy.check_interval
            early = began + offset - self.clock.now()
            if early < -policy.check_interval / 2:
                continue  # an earlier check acted, and took its time
            if early > timedelta():
                self.clock.wait(early.total_seconds())
            try:
                ticks.append(self._check(name, tick + offset, offset))
            except Exception as error:  # reported by the handler once every fleet had its turn
                ticks.append(FleetTick(name, outcome="FAILED", error=error))
        return ticks

    def _check(self, name: str, tick: datetime, offset: timedelta) -> FleetTick:
        fleet = self.fleets[name]
        policy = fleet.make_policy()
        snapshot = self.registry.refresh(name, fleet, now=self.clock.now())
        state = self.store.load_scaler(name)
        if _is_removing(state, snapshot, tick):
            return FleetTick(name, outcome="HELD")
        backlog = self.task_queues[name].count_waiting() if policy.counts_backlog else None
        observation = make_observation(
            snapshot,
            tick,
            backlog=backlog,
            is_refreshing=self.pool.is_refreshing(fleet.group_name),
        )
        decision = decide_scaling(observation, state, policy)
        if decision is None:
            return FleetTick(name)
        shielded = self._list_shielded(state, snapshot, decision)
        silent_ticks = _count_silent(state, snapshot, tick, offset, policy.max_gap)
        # The claim comes before the action: of two checks of one moment only one may act.
        claim = _carry(decision.claim, shielded, silent_ticks)
        if not self.store.save_scaler(name, claim, last_tick=state.last_tick):
            return FleetTick(name)
        if self.scaling_enabled and self.remover.mend(
            name, fleet, snapshot, shielded=state.shielded
        ):
            shielded = self._list_shielded(ScalerState(), snapshot, decision)
        outcome, error, shielded = self._act(name, snapshot, decision, offset, shielded)
        after = decision.state if outcome == "DONE" else decision.state_if_refused
        if (after := _carry(after, shielded, silent_ticks)) != claim:
            self.store.save_scaler(name, after, last_tick=tick)
        self.store.add_decision(name, decision, outcome=outcome)
        # Once a tick, however many checks it has.
        unhealthy = None if offset else self._report_unhealthy(snapshot, silent_ticks, policy)
        return FleetTick(name, decision, outcome, error, unhealthy)

    def _report_unhealthy(
        self, snapshot: FleetSnapshot, silent_ticks: Mapping[str, int], policy: ScalingPolicy
    ) -> UnhealthyInstance | None:
        """Report one instance at most: were it our network that is broken, not all may go at once.

        Neither protection from scale-in nor a job keeps one: a job that had been running there has
        left it by then.
        """
        if not self.reports_unhealthy or snapshot.group.is_paused:
            return None
        if policy.is_paused or policy.is_dry_run:
            return None
        for instance in snapshot.instances:
            fault = find_fault(instance, silent_ticks=silent_ticks.get(instance.key, 0))
            if fault and instance.in_service:
                self.pool.report_unhealthy(instance.instance_id)
                return UnhealthyInstance(instance.instance_id, fault)
        return None

    def _list_shielded(
        self, state: ScalerState, snapshot: FleetSnapshot, decision: ScalingDecision
    ) -> Sequence[str]:
        """Ids of the instances to be protected, or protected before; known before it is done."""
        if decision.action is not ScalingAction.SCALE_IN or not self.scaling_enabled:
            return state.shielded
        ids = {m.instance_id for m in snapshot.group.members if m.in_service and not m.is_protected}
        return sorted(ids.union(state.shielded))

    def _act(
        self,
        name: str,
        snapshot: FleetSnapshot,
        decision: ScalingDecision,
        offset: timedelta,
        shielded: Sequence[str],
    ) -> tuple[str, Exception | None, Sequence[str]]:
        fleet = self.fleets[name]
        if decision.action is ScalingAction.NONE:
            return "DONE", None, shielded
        if not self.scaling_enabled:
            return "NOT_ALLOWED", None, shielded
        try:
            if decision.action is ScalingAction.SCALE_OUT:
                self.pool.set_desired(fleet.group_name, decision.desired)
            elif offset > _LAST_REMOVAL:
                return "POSTPONED", None, shielded
            elif self.remover.remove(name, fleet, snapshot.group, desired=decision.desired):
                shielded = ()
        except ScalingRefusedError as error:
            return "REFUSED", error, shielded
        return "DONE", None, shielded


def make_observation(
    snapshot: FleetSnapshot, tick: datetime, *, backlog: int | None, is_refreshing: bool
) -> FleetObservation:
    """What the policy is told of a fleet; an instance that is not warm yet is still launching."""
    group = snapshot.group
    warm = {instance.key for instance in snapshot.instances if instance.is_warm}
    readings = [reading for key, reading in snapshot.readings.items() if key in warm]
    in_service = [member for member in group.members if member.in_service]
    obstacles = list(group.obstacles)
    if is_refreshing:
        obstacles.append("An instance refresh is going on.")
    if in_service and all(member.is_protected for member in in_service):
        obstacles.append("Every instance is protected from scale-in.")
    return FleetObservation(
        tick=tick,
        desired=group.desired,
        minimum=group.minimum,
        maximum=group.maximum,
        readings=tuple(readings),
        launching=max(0, group.desired - len(readings)),
        backlog=backlog,
        jobs=sum(len(instance.jobs) for instance in snapshot.instances),
        obstacles=obstacles,
        is_paused=group.is_paused,
    )


def _is_removing(state: ScalerState, snapshot: FleetSnapshot, tick: datetime) -> bool:
    """Whether a removal that was begun may still be at work: another check would disturb it."""
    return (
        state.intent is not None
        and state.last_tick is not None
        and state.intent.desired < snapshot.group.desired
        and tick - state.last_tick < _LONGEST_REMOVAL
    )


def _count_silent(
    state: ScalerState,
    snapshot: FleetSnapshot,
    tick: datetime,
    offset: timedelta,
    max_gap: timedelta,
) -> Mapping[str, int]:
    """Count each tick once, however many checks it has; after a gap the count begins anew."""
    if offset:
        return state.silent_ticks
    is_in_row = state.last_tick is not None and tick - state.last_tick <= max_gap
    return count_silent(
        snapshot.group.members,
        snapshot.readings,
        state.silent_ticks if is_in_row else {},
        answered={instance.key for instance in snapshot.instances if instance.has_answered},
        tick=tick,
    )


def _carry(
    state: ScalerState, shielded: Sequence[str], silent_ticks: Mapping[str, int]
) -> ScalerState:
    """What the policy knows nothing of goes from one state to the next."""
    return state.model_copy(update={"shielded": tuple(shielded), "silent_ticks": silent_ticks})
