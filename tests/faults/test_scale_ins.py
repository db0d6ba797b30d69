"""No instance leaves with work on it: the whole service in memory, with company at every call.

The short form runs with the other tests, the long one in ``make faults``.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ml_service.domain.fleets import Instance
from ml_service.domain.jobs import JobState
from ml_service.services.scale_fleets import ScaleFleets
from tests.fakes import InMemoryFleetStore, InMemoryInstancePool
from tests.faults.call_points import CallPoints
from tests.faults.executions import Execution
from tests.faults.simulated_instances import SimulatedInstances
from tests.faults.stage import MINUTE, Stage

MINUTES = 30
"""How long a fleet is watched."""
_PARALLEL_CALL = "put_instance"
"""Made by several threads at once: company there would not be repeatable."""


@dataclass
class ObservedPool(InMemoryInstancePool):
    """Tells of instances in the moment in which they are terminated."""

    tell: Callable[[Sequence[str]], None] = lambda _: None

    def set_desired(self, group_name: str, desired: int) -> None:
        before = len(self.terminated)
        super().set_desired(group_name, desired)
        if gone := self.terminated[before:]:
            self.tell(gone)


@dataclass
class CompanyAnywhere(CallPoints):
    """Something else happens before any call of a port."""

    at: int = 0
    happen: Callable[[], None] = lambda: None

    def call(self, port: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if name != _PARALLEL_CALL:
            self.happen()
        return super().call(port, name, *args, **kwargs)


@dataclass
class FlakyInstances(SimulatedInstances):
    """Now and then one does not answer the scaler in time."""

    dice: random.Random = field(default_factory=random.Random)

    def count_prompts(self, addresses: list[str]) -> Mapping[str, int | None]:
        readings = super().count_prompts(addresses)
        return {a: None if self.dice.random() < 0.02 else n for a, n in readings.items()}


class RandomFleet:
    """A fleet that is made, loaded and disturbed at random, and by the same seed always so."""

    pool: type[ObservedPool] = ObservedPool
    instances: type[FlakyInstances] = FlakyInstances
    fleet_store: type[InMemoryFleetStore] = InMemoryFleetStore

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        size = self.random.randint(2, 5)
        self.stage = stage = Stage(
            instances=size,
            minimum=1,
            slots=self.random.choice([1, 2, 14]),
            prompt_seconds=self.random.choice([3, 30, 100, 300]),
            scaling=self._choose_policy(),
        )
        group = replace(stage.pool.groups[stage.group_name], maximum=size)
        stage.store = self.fleet_store()
        stage.pool = self.pool({stage.group_name: group}, tell=self._see_gone)
        stage.instances = self.instances(stage.instances.by_address, self.random)
        stage.clock.wait = self._wait
        self.load = self.random.choice([0.1, 0.3, 0.6])
        self.others = self.random.choice([0.05, 0.2])
        self.most_open = self.random.randint(1, 8)
        self.scale_ins = self.beside_work = self.refused = 0
        self.has_lost_work = False

    def _choose_policy(self) -> dict[str, Any]:
        parameters = {
            "in_checks": self.random.randint(1, 3),
            "in_cooldown": self.random.choice([0, 0, 60]),
            "out_cooldown": 600,
            "moves_waiting": self.random.random() < 0.5,
        }
        if self.random.random() < 0.2:
            return parameters
        # A fleet that shrinks by need does so while other instances work.
        return {"preset": "need", "checks_per_tick": self.random.choice([1, 4]), **parameters}

    def live(self) -> None:
        """Let minutes go by, then let all end; every job has run once, and where it began."""
        for _ in range(MINUTES):
            self._meet(self.load)
            self._tick()
            self._grow()
        self.load = self.others = 0
        self.stage.settle(ticks=100)
        self.stage.check_end(losses=0)
        for job in self.stage.posted_jobs():
            assert not job.lost_on, "work was on an instance that went"
            assert job.state is JobState.SUCCEEDED

    def _tick(self) -> None:
        stage = self.stage
        stage.clock.sleep(self.random.uniform(20, 60))
        stage.strikes[ScaleFleets] = CompanyAnywhere(happen=lambda: self._meet(self.load / 5))
        checks = stage.make_scaler().scale(tick=stage.clock.now())
        # Not where it is seen: the scaler would catch what is raised amid its call.
        assert not self.has_lost_work, "work was on an instance that went"
        assert "FAILED" not in [check.outcome for check in checks]
        self.refused += [check.outcome for check in checks].count("REFUSED")
        stage.fill_group()
        stage.sweep()
        stage.admit()

    def _grow(self) -> None:
        """A person wants all instances again, so that there is something to scale in."""
        group = self.stage.pool.groups[self.stage.group_name]
        if group.desired == group.minimum:
            self.stage.pool.set_desired(self.stage.group_name, group.maximum)
            self.stage.fill_group()

    def _see_gone(self, keys: Sequence[str]) -> None:
        ids = {key.partition("#")[0] for key in keys}
        for instance in self.stage.instances.by_address.values():
            if instance.instance_id in ids:
                instance.run()
                instance.is_alive = False
                self.has_lost_work |= bool(instance.queue)
        self.has_lost_work |= any(
            job.instance in keys and not job.state.is_final for job in self.stage.jobs.jobs.values()
        )
        self.scale_ins += 1
        self.beside_work += any(instance.queue for instance in self.stage.present())

    def _wait(self, seconds: float) -> None:
        """While the scaler waits, the other stage places prompts too, and knows no draining."""
        for _ in range(2):
            self.stage.clock.sleep(seconds / 2)
            self._meet(self.load)
            idle = [i for i in self.stage.present() if i.count_prompts() == 0]
            if idle and self.random.random() < self.others:
                prompt_id = f"of-the-other-stage-{self.random.random()}"
                self.random.choice(idle).submit(prompt_id, {})

    def _meet(self, chance: float) -> None:
        """Jobs come, are placed, submitted, moved and ended."""
        if self.random.random() >= chance:
            return
        open_jobs = len(self.stage.posted) - len(self.stage.topic.replies)
        for _ in range(self.random.randint(0, max(0, self.most_open - open_jobs))):
            self.stage.post()
        self.stage.dispatch()
        self.stage.admit()
        for execution in self.stage.awake():
            for _ in range(self.random.randint(1, 6)):
                if execution.is_awake and self._is_brief(execution):
                    self.stage.step(execution)

    def _is_brief(self, execution: Execution) -> bool:
        """Whether the step takes no time: none that stays with a prompt that runs."""
        instance = self.stage.find_instance(execution.job_id)
        if execution.state != "Await Prompt" or instance is None:
            return True
        instance.run()
        prompt_id = self.stage.jobs.get(execution.job_id).prompt_id
        return prompt_id not in instance.queue[:1]


def scale_in_at_random(number: int, fleets: type[RandomFleet] = RandomFleet) -> Counter[str]:
    """Let fleet after fleet live until so many scale-ins are done; what came of it, in numbers."""
    counts: Counter[str] = Counter()
    while counts["scale_ins"] < number:
        fleet = fleets(seed=counts["fleets"])
        fleet.live()
        counts.update(
            fleets=1,
            jobs=len(fleet.stage.posted),
            scale_ins=fleet.scale_ins,
            beside_work=fleet.beside_work,
            refused=fleet.refused,
        )
    return counts


@pytest.mark.parametrize(
    "number", [60, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_a_running_job_is_never_on_the_victim(number: int):
    counts = scale_in_at_random(number)
    # Others were at work beside the victim, and races were lost by the scaler.
    assert counts["beside_work"] > number / 5
    assert counts["refused"] > number / 5


class SlotsWhileDraining(InMemoryFleetStore):
    """A draining instance is given jobs as any other."""

    def take_slot(self, fleet, key, job_id, *, slots, at):
        drained = self.instances[fleet, key]
        self.instances[fleet, key] = replace(drained, takes_jobs=True)
        taken = super().take_slot(fleet, key, job_id, slots=slots, at=at)
        after = self.instances[fleet, key]
        self.instances[fleet, key] = replace(after, takes_jobs=drained.takes_jobs)
        return taken


class NoProtection(ObservedPool):
    """Auto Scaling may choose any instance."""

    def set_protection(self, group_name, instance_ids, *, is_protected):
        pass


class OneLook(FlakyInstances):
    """Whoever looks again within a minute sees what was seen before."""

    def count_prompts(self, addresses):
        seen = self.__dict__.setdefault("seen", {})
        for address, count in super().count_prompts(addresses).items():
            now = self.by_address[address].clock.now()
            if address not in seen or now - seen[address][0] >= MINUTE:
                seen[address] = (now, count)
        return {address: seen[address][1] for address in addresses}


def hold_to(fleets: type[RandomFleet]) -> None:
    with pytest.raises(AssertionError, match="work was on an instance that went"):
        scale_in_at_random(200, fleets)


def test_without_protection_of_the_others_it_would_be():
    hold_to(type("Unsafe", (RandomFleet,), {"pool": NoProtection}))


def test_without_the_second_look_it_would_be():
    hold_to(type("Unsafe", (RandomFleet,), {"instances": OneLook}))


def test_without_draining_it_would_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Instance, "is_ready", property(lambda i: i.in_service and i.is_warm))
    hold_to(type("Unsafe", (RandomFleet,), {"fleet_store": SlotsWhileDraining}))
