from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ml_service.domain.fleets import Fleet, Group, GroupMember
from ml_service.domain.scaling import ScalerState, ScalingAction
from ml_service.ports import QueuedMessage
from ml_service.services.refresh_registry import RefreshRegistry
from ml_service.services.remove_instances import RemoveInstances
from ml_service.services.scale_fleets import ScaleFleets
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryInstanceProbe,
    InMemoryInstanceWarmer,
    InMemoryJobQueue,
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
        self.task_queues = {name: InMemoryJobQueue() for name in FLEETS}
        self.clock = FakeClock()
        self.warmer = InMemoryInstanceWarmer()
        self.enabled = enabled

    def warm(self) -> None:
        """All instances were there and warm before."""
        for name, fleet in FLEETS.items():
            for member in self.pool.groups[fleet.group_name].members:
                self.store.put_instance(name, member, reading=None, at=NOON - 60 * MINUTE)
                self.store.end_warm_up(name, member.key, at=NOON - 60 * MINUTE)

    def tick(self, minute: float = 0, fleets: dict[str, Fleet] | None = None):
        """The last check of each fleet, whose instances are warm."""
        self.warm()
        return {t.fleet: t for t in self.run_tick(minute, fleets or FLEETS)}

    def run_tick(self, minute: float, fleets: dict[str, Fleet]):
        self.clock.time = NOON + minute * MINUTE
        service = ScaleFleets(
            fleets,
            self.task_queues,
            self.store,
            self.pool,
            RefreshRegistry(self.store, self.pool, self.probe, self.warmer),
            RemoveInstances(self.store, self.pool, self.probe, self.clock),
            self.clock,
            scaling_enabled=self.enabled,
            reports_unhealthy=self.enabled,
        )
        return service.scale(tick=NOON + minute * MINUTE)

    def desired(self, fleet: str = "pulid") -> int:
        return self.pool.groups[FLEETS[fleet].group_name].desired


def test_a_busy_fleet_gets_one_instance_more_and_the_decision_is_kept():
    world = World()
    world.tick()
    assert world.desired() == 2
    kept = {fleet: (decision.action, outcome) for fleet, decision, outcome in world.store.decisions}
    assert kept["pulid"] == (ScalingAction.SCALE_OUT, "DONE")


def test_fault_35_the_same_tick_again_does_nothing():
    world = World()
    world.tick()
    assert world.tick()["pulid"].outcome == "REPEATED"
    assert world.desired() == 2
    assert len(world.store.decisions) == 3


def test_fault_35_of_two_ticks_at_once_one_acts():
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


def test_fault_39_a_refused_call_is_tried_again_at_the_next_tick():
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


def test_an_instance_that_is_not_warm_yet_is_launching_and_has_no_say():
    world = World()
    cold = GroupMember("i-c", NOON, "10.0.0.3", in_service=True)
    group_name = FLEETS["pulid"].group_name
    world.warm()
    world.pool.groups[group_name] = Group(2, 1, 3, [MEMBER, cold])
    world.probe.readings = {"10.0.0.1": 0, "10.0.0.3": 99}
    (decision,) = [t.decision for t in world.run_tick(0, {"pulid": FLEETS["pulid"]})]
    assert decision is not None
    assert (decision.observation.readings, decision.observation.launching) == ((0,), 1)
    assert decision.reason == "Idle, but an instance is still launching."
    assert world.warmer.asked == [("pulid", cold.key)]


def test_only_an_instance_that_answers_is_warmed_up_and_one_at_work_is_left_alone():
    world = World(reading=None)
    fleets = {"pulid": FLEETS["pulid"]}
    world.run_tick(0, fleets)
    assert world.warmer.asked == []
    world.probe.readings["10.0.0.1"] = 0
    world.run_tick(1, fleets)
    assert world.warmer.asked == [("pulid", MEMBER.key)]
    world.run_tick(2, fleets)
    world.run_tick(5, fleets)
    assert len(world.warmer.asked) == 1
    world.run_tick(6, fleets)
    assert len(world.warmer.asked) == 2, "the one that began has died"


class Crash(BaseException):
    """Lambda's end: nothing catches it."""


class TestWithOneFleet:
    """Two idle instances of pulid, unless told otherwise."""

    group_name = FLEETS["pulid"].group_name

    def make_world(self, *readings: int | None, **scaling: Any) -> World:
        world = World()
        members = [
            GroupMember(f"i-{n}", NOON, f"10.0.0.{n}", in_service=True)
            for n in range(len(readings))
        ]
        world.pool.groups[self.group_name] = Group(len(members), 1, 3, members)
        world.probe.readings = {f"10.0.0.{n}": reading for n, reading in enumerate(readings)}
        self.fleets = {"pulid": FLEETS["pulid"].model_copy(update={"scaling": scaling})}
        return world

    def run(self, world: World, minute: float):
        world.warm()
        return world.run_tick(minute, self.fleets)

    def test_three_idle_ticks_take_one_idle_instance(self):
        world = self.make_world(0, 0)
        outcomes = [self.run(world, minute)[0] for minute in range(3)]
        assert [t.outcome for t in outcomes] == ["DONE"] * 3
        group = world.pool.groups[self.group_name]
        assert (group.desired, len(group.members)) == (1, 1)
        assert not group.members[0].is_protected
        assert world.store.load_scaler("pulid").shielded == ()

    def test_a_crash_before_the_call_is_no_persons_change_and_it_is_done_next(self):
        world = self.make_world(11)
        world.pool.crashes = Crash()
        with pytest.raises(Crash):
            self.run(world, 0)
        assert world.desired() == 1
        world.pool.crashes = None
        (tick,) = self.run(world, 1)
        assert (tick.outcome, world.desired()) == ("DONE", 2)

    def test_a_crash_after_the_call_keeps_its_cooldown(self):
        world = self.make_world(11)

        class Dying(InMemoryFleetStore):
            def add_decision(self, fleet, decision, *, outcome):
                raise Crash

            def save_scaler(self, fleet, state, *, last_tick):
                if last_tick is not None:
                    raise Crash
                return super().save_scaler(fleet, state, last_tick=last_tick)

        world.store = Dying()
        with pytest.raises(Crash):
            self.run(world, 0)
        assert world.desired() == 2
        scalers, world.store = world.store.scalers, InMemoryFleetStore()
        world.store.scalers = scalers
        (tick,) = self.run(world, 1)
        assert tick.decision is not None
        assert tick.decision.reason.startswith("Cooling down until 12:10:00")

    def test_a_removal_that_died_leaves_nothing_drained_or_protected(self):
        world = self.make_world(0, 0)
        for minute in range(2):
            self.run(world, minute)
        world.pool.crashes = Crash()
        world.store.stop_draining = lambda fleet, key: None  # dead at once: nothing is undone
        with pytest.raises(Crash):
            self.run(world, 2)
        del world.store.stop_draining
        assert not all(i.takes_jobs for i in world.store.list_instances("pulid"))
        world.pool.crashes = None
        world.probe.readings["10.0.0.1"] = 3
        assert self.run(world, 3)[0].outcome == "HELD", "it may be alive"
        self.run(world, 5)
        assert all(i.takes_jobs for i in world.store.list_instances("pulid"))
        assert not any(m.is_protected for m in world.pool.groups[self.group_name].members)

    def test_what_is_slow_to_go_stays_drained_and_the_others_protected_until_it_went(self):
        world = self.make_world(0, 0)
        world.pool.is_slow = True
        for minute in range(4):
            self.run(world, minute)
        drained = [i.takes_jobs for i in world.store.list_instances("pulid")]
        assert sorted(drained) == [False, True]
        assert [m.is_protected for m in world.pool.groups[self.group_name].members] == [False, True]
        world.pool.is_slow = False
        world.pool.set_desired(self.group_name, 1)
        self.run(world, 4)
        (left,) = world.pool.groups[self.group_name].members
        assert not left.is_protected
        assert world.store.load_scaler("pulid").shielded == ()

    @pytest.mark.parametrize("kind", ["protected", "refresh", "suspended"])
    def test_an_obstacle_of_the_group_is_in_the_decision(self, kind: str):
        world = self.make_world(0, 0)
        group = world.pool.groups[self.group_name]
        if kind == "protected":
            members = [replace(m, is_protected=True) for m in group.members]
            world.pool.groups[self.group_name] = replace(group, members=members)
        elif kind == "refresh":
            world.pool.refreshing.add(self.group_name)
        else:
            obstacles = ["The process Terminate is suspended."]
            world.pool.groups[self.group_name] = replace(group, obstacles=obstacles)
        (tick,) = [self.run(world, minute)[0] for minute in range(3)][-1:]
        assert tick.decision is not None
        (obstacle,) = tick.decision.observation.obstacles
        assert kind in obstacle
        assert tick.decision.reason.endswith(f"No scale-in: {obstacle}")
        assert world.desired() == 2

    def test_a_paused_group_is_observed_and_left_alone(self):
        world = self.make_world(11)
        group = world.pool.groups[self.group_name]
        world.pool.groups[self.group_name] = replace(group, is_paused=True)
        (tick,) = self.run(world, 0)
        assert tick.decision is not None
        assert tick.decision.reason.endswith("Paused: not done.")
        assert world.desired() == 1
        assert len(world.store.decisions) == 1

    def test_fault_23_three_silent_ticks_in_a_row_and_the_instance_is_reported(self):
        world = self.make_world(1, None)
        ticks = [self.run(world, minute)[0] for minute in range(3)]
        assert [t.unhealthy and t.unhealthy.instance_id for t in ticks] == [None, None, "i-1"]
        assert world.pool.unhealthy == ["i-1"]
        assert world.desired() == 2

    def test_fault_24_an_answer_between_and_the_count_begins_anew(self):
        world = self.make_world(1, None)
        for minute in range(8):
            world.probe.readings["10.0.0.1"] = 4 if minute % 3 == 2 else None
            self.run(world, minute)
        assert world.pool.unhealthy == []

    @pytest.mark.parametrize("minutes", [(0, 0.2, 0.4, 0.6), (0, 1, 4, 5)], ids=["one", "gap"])
    def test_repeats_of_a_tick_and_ticks_after_a_gap_are_not_in_a_row(self, minutes):
        world = self.make_world(1, None)
        for minute in minutes:
            self.run(world, minute)
        assert world.pool.unhealthy == []

    def test_four_checks_in_a_minute_are_one_tick(self):
        world = self.make_world(1, None, checks_per_tick=4, counts_backlog=True)
        for minute in range(3):
            assert world.pool.unhealthy == []
            self.run(world, minute)
        assert world.pool.unhealthy == ["i-1"]

    def test_one_instance_at_most_is_reported_in_a_tick(self):
        world = self.make_world(None, None)
        for minute in range(3):
            self.run(world, minute)
        assert world.pool.unhealthy == ["i-0"]

    def test_neither_protection_nor_a_job_keeps_a_dead_instance(self):
        world = self.make_world(None)
        self.run(world, 0)
        world.pool.set_protection(self.group_name, ["i-0"], is_protected=True)
        (instance,) = world.store.list_instances("pulid")
        world.store.take_slot("pulid", instance.key, "job", slots=14, at=NOON)
        for minute in (1, 2):
            self.run(world, minute)
        assert world.pool.unhealthy == ["i-0"]

    @pytest.mark.parametrize("kind", ["other stage", "tag", "is_paused", "is_dry_run"])
    def test_who_does_not_act_reports_nothing(self, kind: str):
        parameters = {kind: True} if kind.startswith("is_") else {}
        world = self.make_world(None, **parameters)
        world.enabled = kind != "other stage"
        group = world.pool.groups[self.group_name]
        world.pool.groups[self.group_name] = replace(group, is_paused=kind == "tag")
        for minute in range(4):
            self.run(world, minute)
        assert world.pool.unhealthy == []

    def test_an_instance_that_boots_has_ten_minutes(self):
        world = self.make_world(None)
        for minute in range(12):
            world.run_tick(minute, self.fleets)
        assert world.pool.unhealthy == []
        world.run_tick(12, self.fleets)
        assert world.pool.unhealthy == ["i-0"]

    def test_a_zombie_answers_and_is_reported_when_its_third_prompt_has_left_it(self):
        world = self.make_world(1)
        world.warm()
        (instance,) = world.store.list_instances("pulid")
        for fault in range(3):
            self.run(world, fault)
            assert world.pool.unhealthy == []
            world.store.record_stall("pulid", instance.key, world.clock.now())
            world.store.record_fault("pulid", instance.key, world.clock.now())
        self.run(world, 3)
        assert world.pool.unhealthy == ["i-0"]

    def test_fault_22_a_black_hole_is_quarantined_and_not_replaced(self):
        world = self.make_world(1)
        world.warm()
        (instance,) = world.store.list_instances("pulid")
        for _ in range(3):
            world.store.record_fault("pulid", instance.key, world.clock.now())
        for minute in range(4):
            self.run(world, minute)
        assert world.pool.unhealthy == []

    def test_a_third_warm_up_that_fails_and_the_instance_is_reported(self):
        world = self.make_world(1)
        for minute in range(3):
            world.run_tick(minute, self.fleets)
            world.store.abandon_warm_up(*world.warmer.asked[minute], fault="No GPU.")
        assert world.pool.unhealthy == []
        world.run_tick(3, self.fleets)
        assert world.pool.unhealthy == ["i-0"]

    def test_several_checks_in_a_minute_have_their_own_times(self):
        world = self.make_world(6, checks_per_tick=4, counts_backlog=True)
        ticks = self.run(world, 0)
        assert [t.decision.observation.tick for t in ticks if t.decision] == [
            NOON + n * timedelta(seconds=15) for n in range(4)
        ]
        assert world.desired() == 2, "the third check scaled out"
        assert world.clock.now() == NOON + timedelta(seconds=45)
        assert {t.outcome for t in self.run(world, 0)} == {"REPEATED"}

    def test_a_removal_that_would_not_end_in_time_waits_for_the_next_tick(self):
        world = self.make_world(0, 0, checks_per_tick=4, counts_backlog=True)
        assert [t.outcome for t in self.run(world, 0)] == ["DONE", "DONE", "POSTPONED", "POSTPONED"]
        assert world.desired() == 2
        assert self.run(world, 1)[0].outcome == "DONE"
        assert world.desired() == 1

    def test_the_backlog_is_counted_where_it_counts(self):
        world = self.make_world(1, counts_backlog=True)
        world.task_queues["pulid"].send([QueuedMessage(str(n), "") for n in range(11)])
        (tick,) = self.run(world, 0)
        assert tick.decision is not None
        assert tick.decision.observation.backlog == 11
        assert world.desired() == 2


def test_fault_35_a_tick_twice_in_a_minute_or_left_out_is_never_two_steps():
    world = World(reading=6)
    for minute in (0, 0.4, 0.9, 2, 2.2, 3):
        world.tick(minute)
    assert world.desired() == 2, "12:00, 12:02 and 12:03 are three checks in a row"
    world = World(reading=6)
    for minute in (0, 0.5, 1, 1.5):
        world.tick(minute)
    assert world.desired() == 1


def test_fault_36_the_events_time_decides_and_not_the_functions_clock():
    world = World(reading=6)
    for minute, skew in ((0, 5), (1, -5), (2, 0)):
        world.clock.time = NOON + (minute + skew) * MINUTE
        world.tick(minute)
    assert world.desired() == 2


def test_fault_39_a_refused_call_keeps_the_streak_and_is_tried_again():
    world = World(reading=6)
    world.pool.refuses = True
    outcomes = [world.tick(minute)["pulid"].outcome for minute in range(4)]
    assert outcomes == ["DONE", "DONE", "REFUSED", "REFUSED"]
    world.pool.refuses = False
    assert world.tick(4)["pulid"].outcome == "DONE"
    assert world.desired() == 2
