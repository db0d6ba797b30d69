"""The fleet table's instances, brought up to date with Auto Scaling, EC2 and ComfyUI itself."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from ml_service.domain.fleets import Fleet, Group, GroupMember, Instance
from ml_service.ports import FleetStore, InstancePool, InstanceProbe, InstanceWarmer

_PARALLEL = 10  # a hundred writes of 25 ms, one after the other, would take 2.5 of the tick's 4 s


@dataclass(frozen=True)
class FleetSnapshot:
    """A fleet as it was found."""

    group: Group
    readings: Mapping[str, int | None]
    """Prompts by instance key, of the instances that are in service."""
    instances: Sequence[Instance] = ()
    """The members as the fleet table then knew them."""


@dataclass(frozen=True)
class RefreshRegistry:
    """Describes a group, asks its instances, and stores what was seen."""

    store: FleetStore
    pool: InstancePool
    probe: InstanceProbe
    warmer: InstanceWarmer

    def refresh(self, name: str, fleet: Fleet, *, now: datetime) -> FleetSnapshot:
        """Bring one fleet's instances up to date, and have new ones warmed up.

        Those that left the group are forgotten.
        """
        group = self.pool.describe(fleet.group_name)
        running = [m for m in group.members if m.in_service and m.address]
        counts = self.probe.count_prompts([m.address for m in running]) if running else {}
        readings = {m.key: counts.get(m.address) for m in running}
        self._put_instances(name, group.members, readings, now)
        present = {member.key for member in group.members}
        instances = self.store.list_instances(name)
        for instance in instances:
            if instance.key not in present:
                self.store.remove_instance(name, instance.key)
                continue
            if instance.may_return(now):
                self.store.lift_quarantine(name, instance.key)
            if instance.needs_warm_up(now) and self.store.begin_warm_up(name, instance.key, at=now):
                self.warmer.warm_up(name, instance.key)
        known = [instance for instance in instances if instance.key in present]
        return FleetSnapshot(group, readings, known)

    def _put_instances(
        self,
        name: str,
        members: Sequence[GroupMember],
        readings: Mapping[str, int | None],
        now: datetime,
    ) -> None:
        def put(member: GroupMember) -> None:
            self.store.put_instance(name, member, reading=readings.get(member.key), at=now)

        with ThreadPoolExecutor(_PARALLEL) as threads:
            for written in [threads.submit(put, member) for member in members]:
                written.result()
