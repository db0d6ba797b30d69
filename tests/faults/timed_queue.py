"""An SQS queue by the clock: messages hide and come back, twice, late or out of turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count

from ml_service.ports import QueuedMessage
from tests.fakes import FakeClock


@dataclass
class _Entry:
    message: QueuedMessage
    visible_at: datetime
    receives: int = 0


@dataclass
class TimedQueue:
    """A queue with a visibility timeout and, past so many receives, a dead-letter queue."""

    clock: FakeClock
    visibility: timedelta = timedelta(seconds=60)
    max_receives: int = 5
    dead: list[QueuedMessage] = field(default_factory=list)
    entries: dict[int, _Entry] = field(default_factory=dict)
    """By receipt."""
    _numbers: count = field(default_factory=count)

    def send(self, messages: Sequence[QueuedMessage]) -> Sequence[str]:
        for message in messages:
            self._put(_Entry(message, self.clock.now()))
        return []

    def receive(self, limit: int) -> Sequence[QueuedMessage]:
        received = []
        for receipt, entry in list(self.entries.items()):
            if entry.visible_at > self.clock.now() or len(received) == limit:
                continue
            del self.entries[receipt]
            if entry.receives == self.max_receives:
                self.dead.append(entry.message)
                continue
            hidden = _Entry(entry.message, self.clock.now() + self.visibility, entry.receives + 1)
            received.append(replace(entry.message, receipt=str(self._put(hidden))))
        return received

    def delete(self, receipts: Sequence[str]) -> None:
        for receipt in receipts:
            self.entries.pop(int(receipt), None)

    def put_back(self, message: QueuedMessage) -> None:
        self.send([message])
        self.delete([message.receipt])

    def count_waiting(self) -> int:
        return sum(entry.visible_at <= self.clock.now() for entry in self.entries.values())

    def repeat(self, index: int) -> None:
        """Deliver a message twice."""
        entry = list(self.entries.values())[index]
        self._put(replace(entry, visible_at=self.clock.now()))

    def move_to_the_end(self, index: int) -> None:
        receipt = list(self.entries)[index]
        self.entries[receipt] = self.entries.pop(receipt)

    def delay(self, index: int, by: timedelta) -> None:
        entry = list(self.entries.values())[index]
        entry.visible_at = max(entry.visible_at, self.clock.now() + by)

    def _put(self, entry: _Entry) -> int:
        number = next(self._numbers)
        self.entries[number] = entry
        return number
