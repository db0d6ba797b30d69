from dataclasses import replace
from pathlib import Path

import pytest

from local.load_summary import (
    Expectations,
    ExpectationsFileError,
    JobOutcome,
    find_misses,
    find_percentile,
    load_expectations,
    summarize_load,
)

GOOD = JobOutcome("flux-prompt", seconds=2.0, replies=1)
FAILED = replace(GOOD, failure_code="PROMPT_FAILED", failure_sentence="Node 3 failed.")
MISSING = JobOutcome("flux-prompt", seconds=None, replies=0)
WRONG = replace(GOOD, wrong_result="expected the colour (1, 2, 3), found (9, 9, 9)")


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 50, 5.0),
        ([5.0], 99, 5.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 100, 4.0),
        ([float(n) for n in range(1, 101)], 95, 95.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 11)], 95, 10.0),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float):
    assert find_percentile(values, percent) == expected


def test_there_is_no_percentile_of_nothing():
    with pytest.raises(ValueError, match="nothing"):
        find_percentile([], 50)


def test_every_job_is_counted_once():
    outcomes = [GOOD, replace(GOOD, seconds=6.0, replies=3), FAILED, FAILED, MISSING, WRONG]
    summary = summarize_load(outcomes, elapsed_seconds=10)
    assert (summary.jobs, summary.answered, summary.succeeded) == (6, 5, 3)
    assert (summary.missing, summary.repeated) == (1, 2)
    assert summary.failures == {"PROMPT_FAILED": 2}
    assert summary.failure_sentences == {"PROMPT_FAILED": "Node 3 failed."}
    assert summary.wrong_results == [f"flux-prompt: {WRONG.wrong_result}"]
    assert summary.jobs_per_second == 0.5
    assert summary.percentiles == {50: 2.0, 95: 6.0, 99: 6.0, 100: 6.0}


@pytest.mark.parametrize(
    ("outcome", "miss"),
    [
        (FAILED, "1 jobs failed, expected at most 0."),
        (MISSING, "1 jobs have no reply, expected at most 0."),
        (replace(GOOD, replies=2), "1 replies came again, expected at most 0."),
        (WRONG, "1 results are wrong, expected at most 0."),
    ],
)
def test_without_a_file_every_job_must_succeed_once(outcome: JobOutcome, miss: str):
    assert find_misses(summarize_load([GOOD], elapsed_seconds=1), Expectations()) == []
    assert find_misses(summarize_load([GOOD, outcome], elapsed_seconds=1), Expectations()) == [miss]


@pytest.mark.parametrize(
    ("expected", "misses"),
    [
        (Expectations(max_failures=1), []),
        (Expectations(max_failures=1, p95_seconds=2.0), []),
        (Expectations(max_failures=1, p95_seconds=1.5), ["p95 is 2.0 s, expected at most 1.5 s."]),
        (
            Expectations(max_failures=1, max_seconds=1),
            ["The longest is 2.0 s, expected at most 1 s."],
        ),
        (
            Expectations(max_failures=1, min_jobs_per_second=3),
            ["2.00 jobs per second, expected at least 3."],
        ),
    ],
)
def test_an_expectation_that_is_missed_is_said(expected: Expectations, misses: list[str]):
    assert find_misses(summarize_load([GOOD, FAILED], elapsed_seconds=1), expected) == misses


def test_no_reply_at_all_misses_every_time():
    summary = summarize_load([MISSING], elapsed_seconds=0)
    misses = find_misses(summary, Expectations(max_missing=1, p50_seconds=5))
    assert misses == ["p50 is unknown, expected at most 5 s."]


def test_expectations_are_read_from_a_file(tmp_path: Path):
    file = tmp_path / "expect.json"
    file.write_text('{"max_failures": 2, "p95_seconds": 60}')
    assert load_expectations(file) == Expectations(max_failures=2, p95_seconds=60)


@pytest.mark.parametrize("content", ['{"p96_seconds": 1}', '{"max_failures": -1}', "[", "[]"])
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, content: str):
    file = tmp_path / "expect.json"
    file.write_text(content)
    with pytest.raises(ExpectationsFileError, match="expect.json"):
        load_expectations(file)


def test_a_file_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(ExpectationsFileError, match="No such file"):
        load_expectations(tmp_path / "none.json")
