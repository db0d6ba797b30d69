"""Cancelling one job, wherever it stands."""

import pytest

from ml_service.domain.jobs import JobState
from tests.api_world import ApiWorld, submitted, succeeded
from tests.makers import JOB_ID, make_instance, make_job


def test_a_pending_job_is_cancelled_and_answered(api: ApiWorld):
    api.jobs.add(make_job())
    answer = api.request("DELETE", f"/jobs/{JOB_ID}")
    assert (answer.status, answer.json["status"]) == (200, "CANCELLED")
    assert len(api.topic.replies) == 1
    assert api.canceller.asked == []


def test_a_running_jobs_prompt_is_taken_back_and_its_slot_is_free(api: ApiWorld):
    instance = make_instance(key="i-a#1", jobs=frozenset({JOB_ID, "other"}))
    api.store.instances["pulid", "i-a#1"] = instance
    api.jobs.add(submitted())
    assert api.request("DELETE", f"/jobs/{JOB_ID}").json["status"] == "CANCELLED"
    assert api.canceller.asked == [JOB_ID]
    assert api.store.instances["pulid", "i-a#1"].jobs == {"other"}


def test_a_repeat_cancels_nothing_more(api: ApiWorld):
    api.jobs.add(make_job())
    api.request("DELETE", f"/jobs/{JOB_ID}")
    assert api.request("DELETE", f"/jobs/{JOB_ID}").status == 200
    assert len(api.stopper.stopped) == len(api.topic.replies) == 1


def test_a_finished_job_stays_as_it_is(api: ApiWorld):
    done = succeeded("comfyui-results/a.png")
    api.jobs.add(done)
    answer = api.request("DELETE", f"/jobs/{JOB_ID}")
    assert (answer.status, answer.json["code"]) == (409, "JOB_CLOSED")
    assert api.jobs.get(JOB_ID) == done
    assert api.stopper.stopped == []


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.EXPIRED])
def test_a_job_that_ended_otherwise_cannot_be_cancelled(api: ApiWorld, state: JobState):
    ended = make_job(state=state)
    api.jobs.add(ended)
    answer = api.request("DELETE", f"/jobs/{JOB_ID}")
    assert (answer.status, answer.json["code"]) == (409, "JOB_CLOSED")
    assert api.jobs.get(JOB_ID) == ended


def test_a_job_whose_result_is_stored_already_has_succeeded(api: ApiWorld):
    api.jobs.add(submitted().collect(("comfyui-results/a.png",)))
    assert api.request("DELETE", f"/jobs/{JOB_ID}").status == 409
    assert api.jobs.get(JOB_ID).state is JobState.SUCCEEDED


def test_a_job_that_begins_another_run_meanwhile_is_told_as_changed(api: ApiWorld):
    api.jobs.add(make_job())
    api.stopper.then = None
    answer = api.request("DELETE", f"/jobs/{JOB_ID}")
    assert (answer.status, answer.json["code"]) == (409, "JOB_CHANGED")
