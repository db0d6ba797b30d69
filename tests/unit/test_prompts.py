import uuid

import pytest

from ml_service.domain.prompts import make_prompt_id, seconds_until_look


def test_a_prompt_id_is_stable_canonical_and_its_own_for_each_attempt():
    ids = [make_prompt_id(stage="dev", job_id="j", attempt=n) for n in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == str(uuid.UUID(ids[0]))
    assert ids[0] != make_prompt_id(stage="prod", job_id="j", attempt=1)


@pytest.mark.parametrize(
    ("position", "expected_seconds", "waited_seconds", "wait"),
    [
        (1, 600, 9999, 0),  # next in the queue
        (3, 5, 9999, 0),  # starts within 15 s
        (2, 10, 9999, 5),  # never less than 5 s
        (4, 80, 9999, 300),  # never more than 300 s
        (3, 20, 9999, 45),
        (3, 20, 0, 0),  # just submitted: the queue may be quick
        (3, 20, 4.9, 0),
        (3, 20, 5, 5),
        (3, 20, 12.7, 12),  # never longer than it has waited
    ],
)
def test_a_pending_prompt_is_looked_at_when_its_start_is_near(
    position: int, expected_seconds: float, waited_seconds: float, wait: int
):
    found = seconds_until_look(
        position, expected_seconds=expected_seconds, waited_seconds=waited_seconds
    )
    assert found == wait
