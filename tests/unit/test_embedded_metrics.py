"""What a stage measures of itself, as CloudWatch reads it from the functions' output."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from ml_service.domain.jobs import JobState
from ml_service.domain.stage_counts import LATE_GRACE, OpenJob, count_stage
from ml_service.services.count_jobs import CountJobs
from tests.emitted_metrics import Answering, make_answered_job, read_metrics, run_handler
from tests.fakes import NOON, InMemoryFleetStore, InMemoryJobStore
from tests.makers import FLEETS, make_instance, make_job

PULID = {"service": "ml-service", "fleet": "pulid"}
SECOND = timedelta(seconds=1)


def find(output: str, name: str, dimensions: Mapping[str, str]) -> Any:
    (value,) = [
        value
        for metric, dims, value in read_metrics(output)
        if metric.name == name and dims == dimensions
    ]
    return value


def finish(job: Any) -> str:
    return run_handler("finish_job", {"job_id": "j", "run": 1}, finish_job=Answering(job))


@pytest.mark.parametrize(
    "dimensions",
    [{"service": "ml-service"}, PULID, {**PULID, "workflow": "flux-prompt"}],
    ids=["stage", "fleet", "workflow"],
)
def test_an_answered_job_counts_by_its_state_and_tells_how_long_it_took(
    dimensions: Mapping[str, str],
):
    output = finish(make_answered_job(JobState.EXPIRED))
    assert find(output, "JobsExpired", dimensions) == [1.0]
    assert find(output, "QueueSeconds", dimensions) == [60.0]
    assert find(output, "RunSeconds", dimensions) == [120.0]
    assert find(output, "JobSeconds", dimensions) == [180.0]


def test_a_repeat_counts_nothing():
    before = make_answered_job(JobState.SUCCEEDED)
    before = before.model_copy(update={"published_at": NOON - SECOND})
    assert finish(before) == ""


def test_a_redriven_run_is_counted_without_the_time_before_it():
    names = {m.name for m, _, _ in read_metrics(finish(make_answered_job(JobState.FAILED, run=2)))}
    assert names == {"JobsFailed", "RunSeconds"}


def test_a_job_that_expired_in_its_queue_has_no_run():
    job = make_job().close(JobState.EXPIRED, reply="r", at=NOON).mark_published(NOON)
    names = {metric.name for metric, _, _ in read_metrics(finish(job))}
    assert names == {"JobsExpired", "JobSeconds"}


def test_the_sweep_tells_what_waits_and_runs_per_fleet_and_workflow():
    admitted = make_job(job_id="admitted").admit(
        instance="i", instance_id="i", address="a", at=NOON
    )
    jobs = InMemoryJobStore(make_job(), admitted, make_job("latent-sync", job_id="other"))
    counter = CountJobs(list(FLEETS), jobs, InMemoryFleetStore("pulid", make_instance()))
    sweep = Answering(_Report())
    output = run_handler("sweep_jobs", {}, sweep_jobs=sweep, count_jobs=counter)
    assert find(output, "WaitingJobs", PULID) == [1.0]
    assert find(output, "ActiveJobs", {**PULID, "workflow": "flux-prompt"}) == [1.0]
    assert find(output, "ReadyInstances", PULID) == [1.0]
    lip_sync = {"service": "ml-service", "fleet": "lip-sync"}
    assert find(output, "WaitingJobs", {**lip_sync, "workflow": "latent-sync"}) == [1.0]
    assert find(output, "ReadyInstances", lip_sync) == [0.0]


class _Report:
    counts: Mapping[str, int] = {}
    answered = errors = ()


@pytest.mark.parametrize(
    ("job", "after", "overdue", "unanswered"),
    [
        (make_job(deadline=NOON), LATE_GRACE, 0, 0),
        (make_job(deadline=NOON), LATE_GRACE + SECOND, 1, 0),
        (make_job().close(JobState.FAILED, reply="r", at=NOON), 2 * LATE_GRACE, 0, 1),
        (make_answered_job(JobState.FAILED), timedelta(days=9), 0, 0),
    ],
    ids=["in time", "not closed", "not answered", "all done"],
)
def test_jobs_that_nobody_has_mended_are_counted(job, after, overdue, unanswered):
    found = OpenJob(job.fleet, job.workflow, job.state, job.late_after)
    counts = count_stage([found], {"pulid": []}, now=NOON + after)
    assert (counts.overdue_jobs, counts.unanswered_jobs) == (overdue, unanswered)


def test_a_running_job_is_late_by_its_run_deadline_not_by_the_next_look_at_it():
    job = make_job().admit(instance="i", instance_id="i", address="a", at=NOON)
    assert job.due_at == NOON + timedelta(minutes=1)
    assert job.late_after == NOON + timedelta(minutes=65)
