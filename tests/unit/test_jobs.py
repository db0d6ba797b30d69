from datetime import timedelta

import pytest

from ml_service.domain.errors import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    JobClosedError,
)
from ml_service.domain.jobs import MAX_ATTEMPTS, Failure, Job, JobState, make_fingerprint
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
