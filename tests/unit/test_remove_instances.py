import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from ml_service.domain.errors import ScalingRefusedError
from ml_service.domain.fleets import Group, GroupMember
from ml_service.services.remove_instances import SETTLE_SECONDS, RemoveInstances
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryInstanceProbe,
)
from tests.makers import FLEETS

FLEET = FLEETS["pulid"]


class World:
    """A fleet of idle instances; `happen` is called before each step of the removal."""

    def __init__(self, size: int = 3) -> None:
        members = [GroupMember(f"i-{n}", NOON, f"10.0.0.{n}", in_service=True) for n in range(size)]
        self.members = members
        self.store = InMemoryFleetStore()
        self.pool = InMemoryInstancePool({FLEET.group_name: Group(size, 1, size, members)})
        self.probe = InMemoryInstanceProbe({member.address: 0 for member in members})
        self.clock = FakeClock()
        for member in members:
            self.store.put_instance("pulid", member, reading=0, at=NOON)

    @property
    def group(self) -> Group:
        return self.pool.groups[FLEET.group_name]

    def remove(self, *, desired: int) -> bool:
        remover = RemoveInstances(self.store, self.pool, self.probe, self.clock)
        return remover.remove("pulid", FLEET, self.group, desired=desired)

    def during(self, step: str, happen: Callable[[], None]) -> None:
        """Let something happen just before a step, as `wait` or `set_protection`."""
        owner = self.clock if step == "wait" else self.pool
        original = getattr(owner, step)

        def call(*arguments: object, **options: object) -> object:
            happen()
            return original(*arguments, **options)

        setattr(owner, step, call)

    def take_slot(self, number: int) -> bool:
        return self.store.take_slot("pulid", self.members[number].key, "job", slots=14, at=NOON)

    def is_as_before(self) -> bool:
        return (
            self.group.desired == len(self.members)
            and self.group.members == self.members
            and all(i.takes_jobs for i in self.store.list_instances("pulid"))
        )


def test_an_idle_instance_goes_and_nothing_is_left_behind():
    world = World()
    world.take_slot(0)
    world.probe.readings["10.0.0.2"] = 4
    world.store.record_reading("pulid", world.members[2].key, 4, NOON)
    assert world.remove(desired=2)
    assert world.pool.terminated == [world.members[1].key]
    assert world.clock.now().timestamp() - NOON.timestamp() == SETTLE_SECONDS
    assert not any(member.is_protected for member in world.group.members)


def test_several_may_go_at_once():
    world = World()
    world.take_slot(1)
    assert world.remove(desired=1)
    assert sorted(world.pool.terminated) == [world.members[0].key, world.members[2].key]


def test_an_instance_in_quarantine_goes_first():
    world = World()
    key = world.members[2].key
    world.store.instances["pulid", key] = replace(
        world.store.instances["pulid", key], quarantined_at=NOON
    )
    world.remove(desired=2)
    assert world.pool.terminated == [key]


def test_a_draining_instance_is_given_no_job():
    world = World(size=1)
    taken: list[bool] = []
    world.during("wait", lambda: taken.append(world.take_slot(0)))
    world.remove(desired=0)
    assert taken == [False]


@pytest.mark.parametrize("step", ["wait", "set_protection"])
def test_a_prompt_of_the_other_stage_stops_it_and_all_is_undone(step: str):
    world = World()
    world.during(step, lambda: world.probe.readings.update({"10.0.0.0": 1}))
    with pytest.raises(ScalingRefusedError, match="not idle any more"):
        world.remove(desired=2)
    assert world.is_as_before()


def test_an_instance_that_falls_silent_is_unknown_and_stays():
    world = World()
    world.during("wait", lambda: world.probe.readings.update({"10.0.0.0": None}))
    with pytest.raises(ScalingRefusedError):
        world.remove(desired=2)
    assert world.is_as_before()


@pytest.mark.parametrize(
    "changes",
    [
        {"desired": 2},
        {"obstacles": ["The process Terminate is suspended."]},
        {"is_paused": True},
        {"members": []},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_group_that_changed_meanwhile_stops_it(changes: dict[str, object]):
    world = World()
    before = world.group

    def change() -> None:
        world.pool.groups[FLEET.group_name] = replace(before, **changes)

    world.during("wait", change)
    with pytest.raises(ScalingRefusedError):
        world.remove(desired=2)
    assert world.pool.terminated == []
    assert all(i.takes_jobs for i in world.store.list_instances("pulid"))


def test_an_instance_that_takes_jobs_again_stays():
    world = World()
    world.during("wait", lambda: world.store.stop_draining("pulid", world.members[0].key))
    with pytest.raises(ScalingRefusedError):
        world.remove(desired=2)
    assert world.is_as_before()


def test_an_instance_refresh_that_began_meanwhile_stops_it():
    world = World()
    world.during("wait", lambda: world.pool.refreshing.add(FLEET.group_name))
    with pytest.raises(ScalingRefusedError):
        world.remove(desired=2)
    assert world.is_as_before()


def test_what_a_person_protected_stays_and_stays_protected():
    world = World(size=2)
    world.members[0] = replace(world.members[0], is_protected=True)
    world.pool.groups[FLEET.group_name] = replace(world.group, members=world.members)
    assert world.remove(desired=1)
    assert world.pool.terminated == [world.members[1].key]
    assert [member.is_protected for member in world.group.members] == [True]


def test_too_few_idle_instances_are_left_alone():
    world = World(size=2)
    world.take_slot(0)
    with pytest.raises(ScalingRefusedError, match="Only 1 of 2"):
        world.remove(desired=0)
    assert world.is_as_before()


def test_a_call_that_is_refused_undoes_all():
    world = World()
    world.pool.refuses = True
    with pytest.raises(ScalingRefusedError):
        world.remove(desired=2)
    assert world.is_as_before()


def test_a_running_job_is_never_on_the_victim_in_a_thousand_scale_ins():
    """Jobs of this stage come and go before every call; those of the other until the last look."""
    removed = 0
    for seed in range(1000):
        random_ = random.Random(seed)
        world = World(size=random_.randint(2, 5))
        _place_at_random(world, random_, chance=0.3)
        for step in ("describe", "set_protection", "set_desired"):
            world.during(step, lambda w=world, r=random_: _place_at_random(w, r, chance=0.15))
        world.during("wait", lambda w=world, r=random_: _prompt_at_random(w, r, chance=0.15))
        before = {member.key: member for member in world.members}
        try:
            world.remove(desired=random_.randint(1, len(world.members) - 1))
        except ScalingRefusedError:
            assert world.pool.terminated == []
            assert world.group.desired == len(world.members)
            assert all(i.takes_jobs for i in world.store.list_instances("pulid"))
            continue
        removed += 1
        for key in world.pool.terminated:
            assert world.store.instances["pulid", key].jobs == frozenset(), seed
            assert world.probe.readings[before[key].address] == 0, seed
    assert removed > 200


def _place_at_random(world: World, random_: random.Random, *, chance: float) -> None:
    for number in _choose_at_random(len(world.members), random_, chance):
        world.take_slot(number)


def _prompt_at_random(world: World, random_: random.Random, *, chance: float) -> None:
    for number in _choose_at_random(len(world.members), random_, chance):
        world.probe.readings[world.members[number].address] = random_.randint(1, 3)


def _choose_at_random(count: int, random_: random.Random, chance: float) -> Sequence[int]:
    return [number for number in range(count) if random_.random() < chance]
