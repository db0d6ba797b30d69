import time

from ml_service.domain.errors import InstanceUnreachableError
from ml_service.domain.fleets import Group, GroupMember
from ml_service.services.observe_instances import ObserveInstances
from ml_service.services.refresh_registry import RefreshRegistry
from ml_service.services.remove_instances import RemoveInstances
from ml_service.services.scale_fleets import ScaleFleets
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryInstanceWarmer,
    InMemoryJobQueue,
)
from tests.makers import FLEETS

SILENCE_SECONDS = 2.5
"""After so long the ComfyUI client gives a reading up."""


class Connector:
    """Instances that answer in 20 ms; those on network 9 never do."""

    def connect(self, address: str) -> "Answering | Silent":
        return Silent() if address.startswith("10.0.9.") else Answering()


class Answering:
    def count_prompts(self) -> int:
        time.sleep(0.02)
        return 3


class Silent:
    def count_prompts(self) -> int:
        time.sleep(SILENCE_SECONDS)
        raise InstanceUnreachableError("no answer")


def test_a_hundred_instances_ten_of_them_dead_are_read_in_under_four_seconds():
    alive = [f"10.0.0.{number}" for number in range(90)]
    dead = [f"10.0.9.{number}" for number in range(10)]
    began = time.monotonic()
    readings = ObserveInstances(Connector()).observe([*dead, *alive])
    assert time.monotonic() - began < 4
    assert readings == {**dict.fromkeys(alive, 3), **dict.fromkeys(dead, None)}


class SlowFleetStore(InMemoryFleetStore):
    """DynamoDB on a slow day: 25 ms a write."""

    def put_instance(self, fleet, member, *, reading, at):
        time.sleep(0.025)
        super().put_instance(fleet, member, reading=reading, at=at)


class Probe:
    def count_prompts(self, addresses):
        return ObserveInstances(Connector()).observe(addresses)


def test_a_whole_tick_with_a_hundred_instances_ten_of_them_dead_takes_under_four_seconds():
    fleet = FLEETS["pulid"]
    members = [
        GroupMember(f"i-{n}", NOON, f"10.0.{9 if n < 10 else 0}.{n}", in_service=True)
        for n in range(100)
    ]
    store, clock = SlowFleetStore(), FakeClock()
    pool = InMemoryInstancePool({fleet.group_name: Group(100, 1, 100, members)})
    for member in members:
        InMemoryFleetStore.put_instance(store, "pulid", member, reading=None, at=NOON)
        store.end_warm_up("pulid", member.key, at=NOON)
    scaler = ScaleFleets(
        {"pulid": fleet},
        {"pulid": InMemoryJobQueue()},
        store,
        pool,
        RefreshRegistry(store, pool, Probe(), InMemoryInstanceWarmer()),
        RemoveInstances(store, pool, Probe(), clock),
        clock,
        scaling_enabled=True,
        reports_unhealthy=True,
    )
    began = time.monotonic()
    (tick,) = scaler.scale(tick=NOON)
    seconds = time.monotonic() - began
    assert tick.decision is not None
    readings = tick.decision.observation.readings
    assert (readings.count(None), readings.count(3)) == (10, 90)
    assert len(store.list_instances("pulid")) == 100
    assert seconds < 4, "serial writes take 5.2 s, ten at a time 2.8 s"
