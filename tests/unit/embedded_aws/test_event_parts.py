"""The pure parts of event source mappings, rules and the clock."""

import json
import time

import pytest

from local.aws.event_rules import matches_pattern, read_period
from local.aws.event_sources import select_successes
from local.aws.gateway import refuse_desired_capacity, refuse_group_update
from local.aws.virtual_clock import VirtualClock, format_time

RECORDS = [{"messageId": "a"}, {"messageId": "b"}, {"messageId": "c"}]


@pytest.mark.parametrize(
    ("answer", "done"),
    [
        ("null", "abc"),
        ("{}", "abc"),
        ('{"batchItemFailures": []}', "abc"),
        ('{"batchItemFailures": null}', "abc"),
        ('{"batchItemFailures": [{"itemIdentifier": "b"}]}', "ac"),
        ('{"batchItemFailures": [{"itemIdentifier": "nobody"}]}', ""),
        ('{"batchItemFailures": [{"itemIdentifier": ""}]}', ""),
        ('{"batchItemFailures": [{"itemIdentifier": null}]}', ""),
        ('{"batchItemFailures": [{"wrong": "b"}]}', ""),
        ('{"batchItemFailures": "text"}', ""),
        ('"text"', ""),
        ("[1]", ""),
    ],
)
def test_a_partial_batch_response_is_read_as_lambda_reads_it(answer: str, done: str) -> None:
    successes = select_successes(RECORDS, answer.encode())
    assert "".join(record["messageId"] for record in successes) == done


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ("rate(1 minute)", 60),
        ("rate(5 minutes)", 300),
        ("rate(2 hours)", 7200),
        ("rate(1 day)", 86400),
        ("cron(0 12 * * ? *)", None),
    ],
)
def test_a_rate_is_read_in_seconds(schedule: str, seconds: int | None) -> None:
    assert read_period(schedule) == seconds


def test_a_pattern_matches_nested_members_and_arrays_of_choices() -> None:
    pattern = json.dumps({"source": ["aws.states"], "detail": {"status": ["FAILED", "ABORTED"]}})
    event = {"source": "aws.states", "detail": {"status": "ABORTED", "name": "x"}}
    assert matches_pattern(pattern, event)
    assert not matches_pattern(pattern, {**event, "detail": {"status": "SUCCEEDED"}})


@pytest.mark.parametrize("desired", [1, 2, 3])
def test_a_desired_capacity_within_bounds_is_not_refused(desired: int) -> None:
    assert refuse_desired_capacity(desired, 1, 3) is None
    assert refuse_group_update(desired, 1, 3) is None


def test_a_virtual_clock_runs_at_its_rate_from_its_origin() -> None:
    clock = VirtualClock(origin=time.time() - 10, rate=60)
    assert clock.now() - clock.origin == pytest.approx(600, abs=6)
    assert clock.real_seconds(120) == 2


def test_times_are_written_in_whole_seconds_of_utc() -> None:
    assert format_time(1_700_000_000.9) == "2023-11-14T22:13:20Z"
