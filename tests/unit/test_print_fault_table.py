import pytest

from scripts.print_fault_table import format_table, judge_row


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"passed": 2}, "pass"),
        ({"passed": 2, "skipped": 1}, "pass"),
        ({"passed": 9, "failed": 1}, "FAIL"),
        ({"skipped": 1}, "none"),
        ({}, "none"),
    ],
)
def test_one_failure_is_enough_and_a_skip_proves_nothing(counts: dict[str, int], verdict: str):
    assert judge_row(counts) == verdict


def test_every_row_must_be_proven_and_every_number_known():
    titles = {"fault-01": "twice", "fault-02": "late"}
    one = {"fault-01": {"passed": 3}}
    table, is_proven = format_table(titles, one)
    assert table == "fault-01  pass    3 tests  twice\nfault-02  none    0 tests  late"
    assert not is_proven
    two = one | {"fault-02": {"passed": 1}}
    assert format_table(titles, two)[1]
    assert not format_table(titles, two | {"input-09": {"passed": 1}})[1]
