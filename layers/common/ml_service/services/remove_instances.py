"""The victim protocol: instances leave a fleet only after they were seen idle, drained and alone.

A lower desired capacity by itself lets Auto Scaling choose, and it may choose one that works.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_service.domain.errors import ScalingRefusedError
from ml_service.domain.fleets import Fleet, Group, GroupMember, Instance, choose_victims
from ml_service.ports import Clock, FleetStore, InstancePool, InstanceProbe
from ml_service.services.refresh_registry import FleetSnapshot

SETTLE_SECONDS = 30.0
"""Another stage, which knows nothing of draining, may have placed a prompt just before."""
_VERIFY_SECONDS = 10.0
_VERIFY_PAUSE = 2.0


@dataclass(frozen=True)
class RemoveInstances:
    """Takes idle instances out of a fleet, or leaves everything as it was."""

    store: FleetStore
    pool: InstancePool
    probe: InstanceProbe
    clock: Clock

    def remove(self, name: str, fleet: Fleet, group: Group, *, desired: int) -> bool:
        """Lower a group's desired capacity so that only idle instances go.

        True once they are seen to go and nothing is protected any more for it; False if Auto
        Scaling has accepted but not yet begun. Raises ScalingRefusedError if anything changed
        meanwhile, or it did not accept.
        """
        members = [member for member in group.members if member.in_service]
        others: list[str] = []
        drained: list[Instance] = []
        try:
            victims = self._drain(name, members, group.desired - desired, drained)
            self._require_idle(name, victims)
            self.clock.wait(SETTLE_SECONDS)
            self._require_idle(name, victims)
            self._require_unchanged(fleet, group)
            leaving = {victim.key for victim in victims}
            others += [
                m.instance_id for m in members if m.key not in leaving and not m.is_protected
            ]
            self.pool.set_protection(fleet.group_name, others, is_protected=True)
            # Protecting takes time, and it is the last chance to see a prompt there.
            self._require_idle(name, victims)
            self.pool.set_desired(fleet.group_name, desired)
        except BaseException:
            for instance in drained:
                self.store.stop_draining(name, instance.key)
            self.pool.set_protection(fleet.group_name, others, is_protected=False)
            raise
        if not self._see_leaving(fleet, leaving):
            return False
        self.pool.set_protection(fleet.group_name, others, is_protected=False)
        return True

    def mend(
        self, name: str, fleet: Fleet, snapshot: FleetSnapshot, *, shielded: Sequence[str]
    ) -> bool:
        """Undo what a removal left behind that died or was slow; False if it still goes on."""
        members = {m.key: m for m in snapshot.group.members if m.in_service}
        if len(members) > snapshot.group.desired:
            return False
        for instance in snapshot.instances:
            if instance.key in members and not instance.takes_jobs:
                self.store.stop_draining(name, instance.key)
        present = {member.instance_id for member in members.values()}
        left = [instance_id for instance_id in shielded if instance_id in present]
        self.pool.set_protection(fleet.group_name, left, is_protected=False)
        return True

    def _drain(
        self, name: str, members: Sequence[GroupMember], count: int, drained: list[Instance]
    ) -> Sequence[Instance]:
        """Choose victims and let them take no more jobs; ``drained`` has those that was done to."""
        unprotected = {member.key for member in members if not member.is_protected}
        known = [i for i in self.store.list_instances(name) if i.key in unprotected]
        victims = choose_victims(known, count)
        if len(victims) < count:
            raise ScalingRefusedError(
                f"Only {len(victims)} of {count} instances are idle and not protected."
            )
        for victim in victims:
            if not self.store.start_draining(name, victim.key):
                raise ScalingRefusedError(f"{victim.instance_id} was given a job meanwhile.")
            drained.append(victim)
        return victims

    def _require_idle(self, name: str, victims: Sequence[Instance]) -> None:
        readings = self.probe.count_prompts([victim.address for victim in victims])
        known = {instance.key: instance for instance in self.store.list_instances(name)}
        for victim in victims:
            instance = known.get(victim.key)
            is_drained = instance is not None and not instance.takes_jobs and not instance.jobs
            if readings.get(victim.address) != 0 or not is_drained:
                raise ScalingRefusedError(f"{victim.instance_id} is not idle any more.")

    def _require_unchanged(self, fleet: Fleet, before: Group) -> None:
        now = self.pool.describe(fleet.group_name)
        if now.desired != before.desired or set(now.members) != set(before.members):
            raise ScalingRefusedError("The group was changed meanwhile.")
        if now.obstacles or now.is_paused or self.pool.is_refreshing(fleet.group_name):
            raise ScalingRefusedError("The group must not shrink any more.")

    def _see_leaving(self, fleet: Fleet, keys: set[str]) -> bool:
        for _ in range(int(_VERIFY_SECONDS / _VERIFY_PAUSE)):
            members = self.pool.describe(fleet.group_name).members
            if not any(member.in_service and member.key in keys for member in members):
                return True
            self.clock.wait(_VERIFY_PAUSE)
        return False
