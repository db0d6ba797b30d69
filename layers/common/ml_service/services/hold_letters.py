"""Going through a dead-letter queue without losing, or keeping from others, what lies in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

from ml_service.ports import DeadLetter, DeadLetterQueue

_BATCH_LIMIT = 10  # SQS takes no more at a time


@dataclass
class HeldLetters:
    """Each letter of a queue once, hidden from others inside a ``with`` block.

    What was not deleted can be received again when the block is left, and after a crash when the
    hold runs out.
    """

    queue: DeadLetterQueue
    _receipts: dict[str, str] = field(default_factory=dict)
    """The last receipt of each letter that is held, by message id."""
    _seen: set[str] = field(default_factory=set)

    def __enter__(self) -> "HeldLetters":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        receipts = list(self._receipts.values())
        for start in range(0, len(receipts), _BATCH_LIMIT):
            self.queue.release(receipts[start : start + _BATCH_LIMIT])

    def __iter__(self) -> Iterator[DeadLetter]:
        while batch := self.queue.hold():
            self._receipts |= {
                letter.message.message_id: letter.message.receipt for letter in batch
            }
            fresh = [letter for letter in batch if letter.message.message_id not in self._seen]
            if not fresh:
                return  # the first holds have run out: the queue has been gone through
            self._seen |= {letter.message.message_id for letter in fresh}
            yield from fresh

    def delete(self, letter: DeadLetter) -> None:
        """A letter is done with."""
        self.queue.delete(self._receipts.pop(letter.message.message_id))
