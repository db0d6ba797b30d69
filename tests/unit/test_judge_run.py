"""The chaos run's verdict: that a sound run passes, and that each broken promise is named."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from local.chaos.judge_run import ChaosEvidence, GpuRun, JobEvidence, judge_run
from ml_service.domain.jobs import AbandonedPrompt, Failure, Job, JobState
from tests.makers import JOB_ID, NOON, make_job

ANSWER = '[true, {"MainKey": "a.png"}]'
OTHER_ANSWER = '[true, {"MainKey": "b.png"}]'
CLOSED_AT = NOON + timedelta(seconds=30)


def make_record(**changes: Any) -> Job:
    """A job that was closed and answered."""
    closed = {"admitted_at": NOON, "closed_at": CLOSED_AT, "published_at": CLOSED_AT, "attempt": 1}
    return make_job(**{"state": JobState.SUCCEEDED, **closed, **changes})


def make_failed(code: str, **changes: Any) -> Job:
    failure = Failure(code=code, sentence="It failed.")
    return make_record(state=JobState.FAILED, failure=failure, **changes)


def make_run(instance_id: str = "i-a", *, was_lost: bool = False, end: str | None = "success"):
    return GpuRun(instance_id, was_lost, end)


SOUND = JobEvidence(JOB_ID, [ANSWER], make_record(), [make_run()])
EVIDENCE = ChaosEvidence([SOUND], slots={"i-a#1": frozenset()})


def find_broken(job: JobEvidence = SOUND, **changes: Any) -> list[str]:
    return list(judge_run(replace(EVIDENCE, jobs=[job], **changes)).broken)


def test_a_sound_run_breaks_nothing_and_is_counted():
    twice = replace(SOUND, answers=[ANSWER, ANSWER])
    figures = judge_run(replace(EVIDENCE, jobs=[SOUND, twice]))
    assert figures.broken == []
    assert (figures.accepted, figures.answered, figures.repeated_answers) == (2, 2, 1)
    assert (figures.gpu_runs, figures.repeated_runs, figures.losses) == (2, 0, 0)


@pytest.mark.parametrize(
    ("job", "word"),
    [
        (replace(SOUND, answers=[ANSWER, OTHER_ANSWER]), "has 2 different answers"),
        (replace(SOUND, answers=[]), "is lost: it has no answer"),
        (replace(SOUND, record=None, runs=[]), "was never accepted"),
        (replace(SOUND, record=make_job(state=JobState.SUBMITTED)), "is still SUBMITTED"),
        (replace(SOUND, record=make_record(published_at=None)), "something is left to be done"),
        (
            replace(
                SOUND,
                record=make_record(
                    abandoned=(AbandonedPrompt(instance="i-a#1", address="", prompt_id="p"),)
                ),
            ),
            "something is left to be done",
        ),
        (
            replace(SOUND, runs=[make_run("i-a"), make_run("i-b")]),
            "ran 2 times, and the loss of an instance explains only 0",
        ),
        (
            replace(SOUND, record=make_record(lost_on=("i-sound#1",))),
            "gave up instance i-sound, with which nothing was wrong",
        ),
        (
            replace(
                SOUND,
                record=make_failed("INTERNAL_ERROR"),
                step_errors=["Collect Outputs: Runtime.ExitError"],
            ),
            "INTERNAL_ERROR, which nothing explains (Collect Outputs: Runtime.ExitError).",
        ),
        (
            replace(SOUND, record=make_failed("DEADLINE_EXCEEDED")),
            "failed with DEADLINE_EXCEEDED, which nothing explains",
        ),
        (
            replace(SOUND, record=make_failed("PROMPT_FAILED")),
            "failed with PROMPT_FAILED, which nothing explains",
        ),
        (
            replace(SOUND, record=make_failed("ATTEMPTS_EXHAUSTED")),
            "failed with ATTEMPTS_EXHAUSTED, which nothing explains",
        ),
    ],
)
def test_a_broken_promise_to_a_job_is_named(job: JobEvidence, word: str):
    (sentence,) = find_broken(job)
    assert sentence.startswith(f"Job {JOB_ID} ")
    assert word in sentence


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"slots": {"i-a#1": frozenset({JOB_ID})}}, "i-a#1 still has slots taken"),
        ({"overfull": {"i-a#1"}}, "i-a#1 had more jobs than slots"),
        ({"prompts_left": {"i-a": 2}}, "i-a still has 2 prompts"),
        ({"stray_runs": 1}, "1 runs belong to no attempt"),
    ],
)
def test_a_fleet_that_was_not_left_clean_is_named(changes: dict[str, Any], word: str):
    (sentence,) = find_broken(**changes)
    assert word in sentence


@pytest.mark.parametrize(
    ("record", "runs"),
    [
        (make_record(lost_on=("i-a#1",), attempt=2), [make_run("i-a"), make_run("i-b")]),
        (make_record(), [make_run("i-a", was_lost=True, end=None), make_run("i-a")]),
        (make_failed("ATTEMPTS_EXHAUSTED", lost_on=("i-a#1",)), [make_run("i-a")]),
        (make_failed("PROMPT_FAILED"), [make_run(end="error")]),
        (make_failed("DEADLINE_EXCEEDED", run_seconds=30), [make_run(end=None)]),
        (make_failed("DEADLINE_EXCEEDED", deadline=CLOSED_AT), []),
    ],
)
def test_what_a_harmed_instance_explains_is_no_fault(record: Job, runs: list[GpuRun]):
    job = replace(SOUND, record=record, runs=runs)
    assert find_broken(job, faulted={"i-a"}) == []
