from datetime import timedelta

from ml_service.domain.fleets import Fleet, Group, GroupMember
from ml_service.domain.scaling import ScalerState, ScalingAction
from ml_service.services.refresh_registry import RefreshRegistry
from ml_service.services.scale_fleets import ScaleFleets
from tests.fakes import (
    NOON,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryInstanceProbe,
)
from tests.makers import FLEETS

MEMBER = GroupMember("i-a", NOON, "10.0.0.1", in_service=True)
MINUTE = timedelta(minutes=1)


class World:
    def __init__(self, *, enabled: bool = True, reading: int | None = 11) -> None:
        self.store = InMemoryFleetStore()
        self.pool = InMemoryInstancePool(
            {fleet.group_name: Group(1, 1, 3, [MEMBER]) for fleet in FLEETS.values()}
        )
        self.probe = InMemoryInstanceProbe({"10.0.0.1": reading})
        self.enabled = enabled

    def tick(self, minute: int = 0, fleets: dict[str, Fleet] | None = None):
        registry = RefreshRegistry(self.store, self.pool, self.probe)
        service = ScaleFleets(
            fleets or FLEETS, self.store, self.pool, registry, scaling_enabled=self.enabled
        )
        at = NOON + minute * MINUTE
        return {t.fleet: t for t in service.scale(tick=at, now=at)}

    def desired(self, fleet: str = "pulid") -> int:
        return self.pool.groups[FLEETS[fleet].group_name].desired


def test_a_busy_fleet_gets_one_instance_more_and_the_decision_is_kept():
    world = World()
    world.tick()
    assert world.desired() == 2
    kept = {fleet: (decision.action, outcome) for fleet, decision, outcome in world.store.decisions}
    assert kept["pulid"] == (ScalingAction.SCALE_OUT, "DONE")


def test_the_same_tick_again_does_nothing():
    world = World()
    world.tick()
    assert world.tick()["pulid"].outcome == "REPEATED"
    assert world.desired() == 2
    assert len(world.store.decisions) == 3


def test_of_two_ticks_at_once_one_acts():
    class Raced(InMemoryFleetStore):
        def load_scaler(self, fleet):
            state = super().load_scaler(fleet)
            self.scalers[fleet] = ScalerState(last_tick=NOON)
            return state

    world = World()
    world.store = Raced()
    assert world.tick()["pulid"].outcome == "REPEATED"
    assert world.desired() == 1


def test_a_failing_fleet_does_not_stop_the_next():
    world = World()
    world.pool.breaks.add(FLEETS["lip-sync"].group_name)
    ticks = world.tick()
    assert ticks["lip-sync"].outcome == "FAILED"
    assert str(ticks["lip-sync"].error) == "describe failed"
    assert world.desired("pulid") == 2


def test_a_refused_call_is_tried_again_at_the_next_tick():
    world = World()
    world.pool.refuses = True
    assert world.tick()["pulid"].outcome == "REFUSED"
    world.pool.refuses = False
    assert world.tick(1)["pulid"].outcome == "DONE"
    assert world.desired() == 2


def test_a_stage_that_may_not_scale_decides_but_never_acts():
    world = World(enabled=False)
    for minute in range(3):
        assert world.tick(minute)["pulid"].outcome == "NOT_ALLOWED"
    assert world.desired() == 1


def test_the_registry_follows_the_group():
    world = World(reading=4)
    world.tick()
    assert [(i.instance_id, i.reading) for i in world.store.list_instances("pulid")] == [("i-a", 4)]
    group_name = FLEETS["pulid"].group_name
    newer = GroupMember("i-b", NOON, "10.0.0.2", in_service=True)
    world.pool.groups[group_name] = Group(1, 1, 3, [newer])
    world.tick(1)
    assert [i.instance_id for i in world.store.list_instances("pulid")] == ["i-b"]


def test_an_instance_out_of_service_is_registered_but_not_read():
    world = World()
    launching = GroupMember("i-c", NOON, "10.0.0.3", in_service=False)
    world.pool.groups[FLEETS["pulid"].group_name] = Group(2, 1, 3, [MEMBER, launching])
    decision = world.tick()["pulid"].decision
    assert decision is not None
    assert decision.observation.readings == (11,)
    assert decision.observation.launching == 1
    assert {i.instance_id: i.is_ready for i in world.store.list_instances("pulid")} == {
        "i-a": True,
        "i-c": False,
    }
