import pytest

from ml_service.ports import DeadLetter, QueuedMessage
from ml_service.services.hold_letters import HeldLetters
from tests.fakes import NOON, InMemoryDeadLetterQueue


def make_letters(count: int) -> list[DeadLetter]:
    return [DeadLetter(QueuedMessage(str(n), "body"), NOON) for n in range(count)]


def ids(letters) -> list[str]:
    return [letter.message.message_id for letter in letters]


def test_every_letter_is_seen_once_and_none_is_taken():
    queue = InMemoryDeadLetterQueue(*make_letters(25))
    with HeldLetters(queue) as letters:
        assert ids(letters) == [str(n) for n in range(25)]
        assert queue.visible == [], "somebody else could take one meanwhile"
    assert ids(queue.visible) == [str(n) for n in range(25)]


def test_what_is_done_with_does_not_come_back():
    queue = InMemoryDeadLetterQueue(*make_letters(3))
    with HeldLetters(queue) as letters:
        for letter in letters:
            if letter.message.message_id == "1":
                letters.delete(letter)
    assert ids(queue.visible) == ["0", "2"]
    assert queue.held == {}


def test_an_error_lets_everything_go():
    queue = InMemoryDeadLetterQueue(*make_letters(12))

    def look() -> None:
        with HeldLetters(queue) as letters:
            for letter in letters:
                letters.delete(letter)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look()
    assert sorted(ids(queue.visible), key=int) == [str(n) for n in range(1, 12)]


def test_a_hold_that_runs_out_neither_repeats_a_letter_nor_keeps_it():
    queue = InMemoryDeadLetterQueue(*make_letters(12))
    seen = []
    with HeldLetters(queue) as letters:
        for letter in letters:
            seen.append(letter.message.message_id)
            if len(seen) == 10:
                queue.let_holds_run_out()
        letters.delete(letter)
    assert seen == [str(n) for n in range(12)]
    assert queue.held == {}
    assert sorted(ids(queue.visible), key=int) == [str(n) for n in range(11)]


def test_a_letter_in_somebody_elses_hands_is_left_there():
    queue = InMemoryDeadLetterQueue(*make_letters(11))
    theirs = queue.hold()
    with HeldLetters(queue) as letters:
        assert ids(letters) == ["10"]
    assert ids(queue.held.values()) == ids(theirs)
