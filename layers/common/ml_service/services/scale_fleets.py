"""scale_fleets: one tick of the scaler, each fleet on its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_service.domain.errors import ScalingRefusedError
from ml_service.domain.fleets import Fleet
from ml_service.domain.scaling import (
    FleetObservation,
    ScalingAction,
    ScalingDecision,
    decide_scaling,
)
from ml_service.domain.scaling_policy import ScalingPolicy
from ml_service.ports import FleetStore, InstancePool
from ml_service.services.refresh_registry import FleetSnapshot, RefreshRegistry


@dataclass(frozen=True)
class FleetTick:
    """What one tick did for one fleet."""

    fleet: str
    decision: ScalingDecision | None = None
    """None if the tick was a repeat, or the fleet could not be observed."""
    outcome: str = "REPEATED"
    """DONE, NOT_ALLOWED, REFUSED, REPEATED, FAILED."""
    error: Exception | None = None


@dataclass(frozen=True)
class ScaleFleets:
    """Observes, decides, acts, and writes every decision down."""

    fleets: Mapping[str, Fleet]
    store: FleetStore
    pool: InstancePool
    registry: RefreshRegistry
    scaling_enabled: bool
    """False in a stage that uses another stage's instances: it decides, but never acts."""

    def scale(self, *, tick: datetime, now: datetime) -> Sequence[FleetTick]:
        """Run one tick, told by its event's own time; a failing fleet never stops the next."""
        ticks = []
        for name, fleet in self.fleets.items():
            try:
                ticks.append(self._scale_fleet(name, fleet, tick, now))
            except Exception as error:  # reported by the handler once every fleet had its turn
                ticks.append(FleetTick(name, outcome="FAILED", error=error))
        return ticks

    def _scale_fleet(self, name: str, fleet: Fleet, tick: datetime, now: datetime) -> FleetTick:
        snapshot = self.registry.refresh(name, fleet, now=now)
        state = self.store.load_scaler(name)
        policy = ScalingPolicy(threshold=fleet.threshold)
        decision = decide_scaling(_observe(snapshot, tick), state, policy)
        if decision is None:
            return FleetTick(name)
        # The claim comes before the action: of two ticks of one minute only one may act.
        if not self.store.save_scaler(name, decision.state, last_tick=state.last_tick):
            return FleetTick(name)
        outcome, error = self._act(fleet, decision)
        if outcome in ("NOT_ALLOWED", "REFUSED"):
            self.store.save_scaler(name, decision.state_if_refused, last_tick=tick)
        self.store.add_decision(name, decision, outcome=outcome)
        return FleetTick(name, decision, outcome, error)

    def _act(self, fleet: Fleet, decision: ScalingDecision) -> tuple[str, Exception | None]:
        if decision.action is ScalingAction.NONE:
            return "DONE", None
        if not self.scaling_enabled:
            return "NOT_ALLOWED", None
        try:
            self.pool.set_desired(fleet.group_name, decision.desired)
        except ScalingRefusedError as error:
            return "REFUSED", error
        return "DONE", None


def _observe(snapshot: FleetSnapshot, tick: datetime) -> FleetObservation:
    return FleetObservation(
        tick=tick,
        desired=snapshot.group.desired,
        minimum=snapshot.group.minimum,
        maximum=snapshot.group.maximum,
        readings=tuple(snapshot.readings.values()),
        launching=max(0, snapshot.group.desired - len(snapshot.readings)),
    )
