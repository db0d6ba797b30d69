"""When an instance is of no use any more, so that its group should replace it.

Slow is not dead: one look without an answer says nothing, and an instance that boots or works may
be silent for long.
"""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta

from ml_service.domain.fleets import GroupMember, Instance
from ml_service.domain.warm_ups import WARM_UP_TRIES

SILENT_TICKS = 3
"""Ticks in a row without an answer."""
STARTUP_TIME = timedelta(minutes=10)
"""An instance that has never answered since its launch may be silent for so long: it boots."""


def count_silent(
    members: Sequence[GroupMember],
    readings: Mapping[str, int | None],
    before: Mapping[str, int],
    *,
    answered: Set[str],
    tick: datetime,
) -> dict[str, int]:
    """How many ticks in a row each silent instance has now been silent, by its key.

    ``readings`` are those of this tick; ``answered`` are the keys of instances that have answered
    since their launch.
    """
    return {
        member.key: before.get(member.key, 0) + 1
        for member in members
        if member.key in readings
        and readings[member.key] is None
        and (member.key in answered or tick >= member.launched_at + STARTUP_TIME)
    }


def find_fault(instance: Instance, *, silent_ticks: int) -> str:
    """Why an instance should be replaced, in a sentence; empty if it should not.

    A queue that has stalled alone may be one bad prompt; with the quarantine, which takes three
    prompts in a row, it is a ComfyUI that answers and runs nothing.
    """
    if silent_ticks >= SILENT_TICKS:
        return f"It has not answered {silent_ticks} checks in a row."
    if instance.warm_up_tries >= WARM_UP_TRIES:
        return f"Its warm-up failed {instance.warm_up_tries} times. {instance.warm_up_fault}"
    if instance.quarantined_at is not None and instance.stalled_at is not None:
        return "Its queue has stalled, and it lost or broke three prompts in a row."
    return ""
