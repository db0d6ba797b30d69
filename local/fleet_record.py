"""Records what a stage's fleets do while something else runs: backlog, slots, capacity."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

from local.backend import Backend
from ml_service.domain.fleets import Fleet

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class FleetMoment:
    """A fleet as it was at one moment."""

    seconds: float
    """Since the record began."""
    waiting: int
    """Messages in the task queue, those that admission holds at this moment included."""
    slots: tuple[int, ...]
    """Slots taken, by instance."""
    ready: int
    """Instances on which a job may be placed."""
    desired: int
    """Desired capacity of the group."""


@dataclass
class FleetRecord:
    """A fleet's moments, and what they come to."""

    fleet: str
    slots_per_instance: int
    moments: list[FleetMoment] = field(default_factory=list)

    @property
    def most_waiting(self) -> int:
        """The longest backlog that was seen."""
        return max((moment.waiting for moment in self.moments), default=0)

    @property
    def most_slots(self) -> int:
        """The most slots taken on one instance."""
        return max((max(moment.slots, default=0) for moment in self.moments), default=0)

    @property
    def most_busy(self) -> int:
        """The most instances that had a job at the same moment."""
        return max((sum(map(bool, moment.slots)) for moment in self.moments), default=0)

    @property
    def desired_changes(self) -> list[int]:
        """Desired capacity as it went: each value once, when it changed."""
        changes: list[int] = []
        for moment in self.moments:
            if changes[-1:] != [moment.desired]:
                changes.append(moment.desired)
        return changes


@contextmanager
def recording_fleets(backend: Backend) -> Iterator[Sequence[FleetRecord]]:
    """Record every fleet of a stage twice a second, until the end of the block."""
    fleets = backend.read_fleets()
    records = [FleetRecord(name, fleet.slots_per_instance) for name, fleet in fleets.items()]
    end = Event()
    with ThreadPoolExecutor(1) as recorder:
        recording = recorder.submit(_record, backend, fleets, records, end)
        try:
            yield records
        finally:
            end.set()
    recording.result()


def find_overfull(records: Sequence[FleetRecord]) -> list[str]:
    """A sentence for each fleet of which an instance had more jobs than slots."""
    return [
        f"An instance of {record.fleet} had {record.most_slots} jobs in "
        f"{record.slots_per_instance} slots."
        for record in records
        if record.most_slots > record.slots_per_instance
    ]


def _record(
    backend: Backend, fleets: Mapping[str, Fleet], records: Sequence[FleetRecord], end: Event
) -> None:
    began = time.monotonic()
    while True:
        for record in records:
            record.moments.append(
                _look(backend, record.fleet, fleets[record.fleet], time.monotonic() - began)
            )
        if end.wait(_LOOK_SECONDS):
            return


def _look(backend: Backend, name: str, fleet: Fleet, seconds: float) -> FleetMoment:
    instances = backend.fleets.list_instances(name)
    return FleetMoment(
        seconds=seconds,
        waiting=backend.count_messages(fleet.task_queue_url),
        slots=tuple(len(instance.jobs) for instance in instances),
        ready=sum(instance.is_ready for instance in instances),
        desired=backend.read_desired_capacity(fleet.group_name),
    )
