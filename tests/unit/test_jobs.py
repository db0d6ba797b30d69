from datetime import timedelta

import pytest

from ml_service.domain.errors import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    JobClosedError,
    RedriveRefusedError,
)
from ml_service.domain.jobs import (
    MAX_ATTEMPTS,
    REDRIVE_PATIENCE,
    AbandonedPrompt,
    Failure,
    Job,
    JobState,
    make_fingerprint,
)
from tests.fakes import NOON
from tests.makers import make_job

PLACE = {"instance": "i-a#1", "instance_id": "i-a", "address": "10.0.0.1"}


def submitted(**changes: object) -> Job:
    job = make_job().admit(**PLACE, at=NOON).submit(prompt_id="p", at=NOON)
    return job.model_copy(update=changes)


def test_a_job_goes_from_queue_to_success():
    job = submitted().see_running().collect(("k",)).close(JobState.SUCCEEDED, reply="r", at=NOON)
    job = job.mark_published(NOON)
    assert (job.state, job.run, job.attempt, job.version) == (JobState.SUCCEEDED, 1, 1, 7)


def test_a_final_state_is_final():
    closed = make_job().close(
        JobState.FAILED, reply="r", at=NOON, failure=Failure(code="X", sentence="No.")
    )
    with pytest.raises(JobClosedError):
        closed.close(JobState.SUCCEEDED, reply="other", at=NOON)
    with pytest.raises(JobClosedError):
        closed.admit(**PLACE, at=NOON)
    with pytest.raises(ValueError, match="not final"):
        make_job().close(JobState.ADMITTED, reply="r", at=NOON)


def test_a_step_out_of_turn_is_refused():
    with pytest.raises(JobClosedError):
        make_job().submit(prompt_id="p", at=NOON)
    with pytest.raises(JobClosedError):
        submitted().admit(**PLACE, at=NOON)


def test_a_prompt_lost_while_it_waited_costs_no_guilt():
    job = submitted().lose()
    assert (job.state, job.instance, job.prompt_id, job.guilty_losses) == (
        JobState.ADMITTED,
        "",
        "",
        0,
    )


def test_a_prompt_lost_twice_while_it_ran_is_given_up():
    job = submitted(seen_running=True).lose()
    again = job.place(**PLACE).submit(prompt_id="p2", at=NOON)
    with pytest.raises(AttemptsExhaustedError, match=r"ran 2 times in vain\. Out of memory\.$"):
        again.break_on_instance("Out of memory.").lose()


def test_no_job_is_placed_without_end():
    job = submitted(attempt=MAX_ATTEMPTS).lose()
    with pytest.raises(AttemptsExhaustedError):
        job.place(**PLACE)


def test_the_run_deadline_counts_from_admission():
    job = make_job(run_seconds=60).admit(**PLACE, at=NOON)
    job.check_deadline(NOON + timedelta(seconds=59))
    with pytest.raises(DeadlineExceededError):
        job.check_deadline(NOON + timedelta(seconds=60))


def test_the_run_deadline_is_never_beyond_the_jobs_own():
    job = make_job(run_seconds=60, deadline=NOON + timedelta(seconds=20)).admit(**PLACE, at=NOON)
    job.check_deadline(NOON + timedelta(seconds=19))
    with pytest.raises(DeadlineExceededError):
        job.check_deadline(NOON + timedelta(seconds=20))


def test_a_record_survives_its_store_form():
    job = submitted(guilty_losses=1)
    assert Job.model_validate(job.model_dump(mode="json")) == job


def test_a_fingerprint_ignores_the_order_of_members():
    assert make_fingerprint("s", {"a": 1, "b": 2}) == make_fingerprint("s", {"b": 2, "a": 1})
    assert make_fingerprint("s", {"a": 1}) != make_fingerprint("t", {"a": 1})


CLOSED_WITHOUT_RESULT = [JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED]
LATER = NOON + timedelta(days=20)


def closed(state: JobState, **changes: object) -> Job:
    failure = Failure(code="X", sentence="No.")
    job = submitted(**changes).close(state, reply="r", at=NOON, failure=failure)
    return job.mark_published(NOON)


@pytest.mark.parametrize("state", CLOSED_WITHOUT_RESULT)
def test_a_redriven_job_is_as_it_was_when_it_first_waited(state: JobState):
    used = closed(state, guilty_losses=1, lost_on=("i-b#1",), fault="Broken.", seen_running=True)
    redriven = used.redrive(LATER)
    kept = {"version": used.version + 1, "run": 2, "attempt": 1, "earlier_attempts": 1}
    assert redriven == make_job().model_copy(
        update={
            **kept,
            "deadline": LATER + REDRIVE_PATIENCE,
            "expires_at": int((LATER + timedelta(days=90)).timestamp()),
            "abandoned": (AbandonedPrompt(instance="i-a#1", address="10.0.0.1", prompt_id="p"),),
        }
    )


def test_each_redrive_is_a_run_of_its_own():
    job = closed(JobState.FAILED).redrive(LATER).admit(**PLACE, at=LATER)
    assert (job.run, job.attempt) == (2, 2)
    job = job.submit(prompt_id="p2", at=LATER).close(JobState.EXPIRED, reply="r2", at=LATER)
    job = job.mark_published(LATER).redrive(LATER)
    assert (job.run, job.attempt, job.earlier_attempts) == (3, 2, 2)


def test_earlier_runs_do_not_count_against_a_redriven_one():
    job = closed(JobState.FAILED, attempt=MAX_ATTEMPTS).redrive(LATER).admit(**PLACE, at=LATER)
    for _ in range(MAX_ATTEMPTS - 1):
        job = job.leave_instance().place(**PLACE)
    with pytest.raises(AttemptsExhaustedError, match=f"{MAX_ATTEMPTS} times"):
        job.leave_instance().place(**PLACE)


def test_a_job_that_waits_gets_a_new_deadline_but_no_new_run():
    waiting = make_job()
    redriven = waiting.redrive(LATER)
    assert (redriven.state, redriven.run) == (JobState.QUEUED, 1)
    assert redriven.deadline == redriven.due_at == LATER + REDRIVE_PATIENCE
    assert redriven.version == waiting.version + 1


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (make_job().admit(**PLACE, at=NOON), "ADMITTED"),
        (submitted(), "SUBMITTED"),
        (closed(JobState.SUCCEEDED), "SUCCEEDED"),
        (closed(JobState.FAILED, inputs=None), "refused"),
        (submitted().close(JobState.FAILED, reply="r", at=NOON), "answer is not out"),
    ],
    ids=["admitted", "submitted", "succeeded", "refused", "unpublished"],
)
def test_a_redrive_that_would_run_a_job_twice_or_lose_its_answer_is_refused(job: Job, why: str):
    with pytest.raises(RedriveRefusedError, match=why):
        job.redrive(LATER)
