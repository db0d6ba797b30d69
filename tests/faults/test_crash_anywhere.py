"""Each service is struck at each of its calls, in every way; all that comes after makes it good."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from ml_service.domain.jobs import JobState
from ml_service.domain.replies import make_error_reply
from ml_service.services.admit_jobs import AdmitJobs
from ml_service.services.await_prompt import AwaitPrompt
from ml_service.services.cancel_prompt import CancelPrompt
from ml_service.services.choose_instance import ChooseInstance
from ml_service.services.collect_outputs import CollectOutputs
from ml_service.services.dispatch_jobs import DispatchJobs
from ml_service.services.finish_job import FinishJob
from ml_service.services.submit_prompt import SubmitPrompt
from ml_service.services.sweep_jobs import SweepJobs
from tests.faults.call_points import CallPoints, Strike
from tests.faults.stage import Stage

SUCCEEDS = {JobState.SUCCEEDED}
FAILS = {JobState.FAILED}
CLOSES = {JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED}
ENDS = SUCCEEDS | CLOSES


def begin(prompt_seconds: float = 3.0) -> Stage:
    return Stage(workflow="photo-make-up-lips-thumbnails", prompt_seconds=prompt_seconds)


def two_jobs() -> Stage:
    stage = begin()
    stage.post()
    stage.post()
    return stage


def a_refused_job() -> Stage:
    stage = begin()
    stage.post(Subject="Unknown")
    return stage


def running(prompt_seconds: float = 3.0) -> Stage:
    """A job whose prompt runs."""
    stage = begin(prompt_seconds)
    stage.post()
    stage.dispatch()
    stage.admit()
    (execution,) = stage.executions.values()
    while execution.state != "Await Prompt":
        stage.step(execution)
    return stage


def a_lost_job() -> Stage:
    stage = running()
    (job,) = stage.jobs.jobs.values()
    stage.terminate(job.address)
    return stage


def a_race_for_the_last_slot() -> Stage:
    """A lost job and one that waits both want the one slot that is free."""
    stage = Stage(instances=2, slots=1)
    stage.post()
    stage.dispatch()
    stage.admit()
    (execution,) = stage.executions.values()
    while execution.state != "Await Prompt":
        stage.step(execution)
    (job,) = stage.jobs.jobs.values()
    stage.terminate(job.address)
    stage.post()
    stage.dispatch()
    stage.admission.kicked.clear()
    while execution.state != "Choose Instance":
        stage.clock.sleep(5)
        if execution.is_awake:
            stage.step(execution)
    return stage


def a_failing_job() -> Stage:
    stage = two_jobs()
    stage.media.inputs.clear()
    return stage


def a_stopped_job() -> Stage:
    """Its execution was stopped, and nobody was told."""
    stage = running()
    (execution,) = stage.executions.values()
    execution.status = "ABORTED"
    return stage


def an_overdue_job() -> Stage:
    stage = a_stopped_job()
    stage.clock.sleep(timedelta(hours=2).total_seconds())
    return stage


def an_unpublished_reply() -> Stage:
    """Who closed the job died before anything else."""
    stage = a_stopped_job()
    (job,) = stage.jobs.jobs.values()
    now = stage.clock.now()
    reply = make_error_reply(
        job_id=job.job_id, partial_name=job.partial_name, sentence="Stopped.", at=now
    )
    stage.jobs.save(job.close(JobState.CANCELLED, reply=reply, at=now))
    stage.clock.sleep(300)
    return stage


def never_started() -> Stage:
    stage = begin()
    stage.post()
    stage.dispatch()
    stage.is_throttled = True
    stage.admit()
    stage.is_throttled = False
    stage.task_queue.entries.clear()
    stage.clock.sleep(120)
    return stage


def leaked_slots() -> Stage:
    stage = begin()
    for instance in stage.store.list_instances(stage.fleet):
        assert stage.store.take_slot(
            stage.fleet, instance.key, "nobody", slots=2, at=stage.clock.now()
        )
    stage.post()
    return stage


def an_abandoned_prompt() -> Stage:
    stage = running(prompt_seconds=600)
    (execution,) = stage.executions.values()
    stage.stop(execution)
    assert stage.canceller.asked
    return stage


SCENES = [
    pytest.param(DispatchJobs, two_jobs, SUCCEEDS, id="dispatch_jobs"),
    pytest.param(DispatchJobs, a_refused_job, FAILS, id="dispatch_jobs refusing"),
    pytest.param(AdmitJobs, two_jobs, SUCCEEDS, id="admit_jobs"),
    pytest.param(ChooseInstance, two_jobs, SUCCEEDS, id="choose_instance"),
    pytest.param(ChooseInstance, a_lost_job, SUCCEEDS, id="choose_instance after a loss"),
    pytest.param(ChooseInstance, a_race_for_the_last_slot, SUCCEEDS, id="the last slot"),
    pytest.param(SubmitPrompt, two_jobs, SUCCEEDS, id="submit_prompt"),
    pytest.param(AwaitPrompt, two_jobs, SUCCEEDS, id="await_prompt"),
    pytest.param(AwaitPrompt, a_lost_job, SUCCEEDS, id="await_prompt after a loss"),
    pytest.param(CollectOutputs, two_jobs, SUCCEEDS, id="collect_outputs"),
    pytest.param(FinishJob, two_jobs, SUCCEEDS, id="finish_job"),
    pytest.param(FinishJob, a_failing_job, FAILS, id="finish_job after a failure"),
    pytest.param(FinishJob, running, ENDS, id="finish_job of a running job"),
    pytest.param(SweepJobs, an_unpublished_reply, CLOSES, id="sweep_jobs publishing"),
    pytest.param(SweepJobs, an_overdue_job, CLOSES, id="sweep_jobs closing"),
    pytest.param(SweepJobs, never_started, SUCCEEDS, id="sweep_jobs restarting"),
    pytest.param(SweepJobs, leaked_slots, SUCCEEDS, id="sweep_jobs returning slots"),
    pytest.param(CancelPrompt, an_abandoned_prompt, CLOSES, id="cancel_prompt"),
]


def strike_everywhere(
    service: type,
    make_stage: Callable[[], Stage],
    states: set[JobState],
    make_points: Callable[[Stage, int], CallPoints],
) -> int:
    """Strike one call after the other, in a stage of its own each; returns how many there were."""
    at = 0
    while True:
        at += 1
        stage = make_stage()
        points = make_points(stage, at)
        stage.strikes[service] = points
        try:
            stage.settle(ticks=90)
            if not points.struck_at:
                return at - 1
            stage.check_end()
            found = {job.state for job in stage.posted_jobs()}
            assert found <= states
        except Exception as error:
            error.add_note(f"struck at call {at}, {points.struck_at}; {stage.errors}")
            raise


@pytest.mark.parametrize("strike", [s for s in Strike if s is not Strike.NONE])
@pytest.mark.parametrize(("service", "make_stage", "states"), SCENES)
def test_a_strike_at_any_call_is_made_good(service, make_stage, states, strike):
    calls = strike_everywhere(service, make_stage, states, lambda stage, at: CallPoints(at, strike))
    assert calls >= 2, "nothing was struck"


def stop_all(stage: Stage) -> None:
    for execution in stage.awake():
        stage.stop(execution)


def let_time_pass(stage: Stage) -> None:
    stage.clock.sleep(timedelta(hours=2).total_seconds())
    stage.sweep()


def lose_an_instance(stage: Stage) -> None:
    stage.terminate(stage.present()[0].address)


COMPANY = {
    "a tick": Stage.tick,
    "a repeat of the messages": lambda stage: (stage.clock.sleep(200), stage.dispatch()),
    "another admission": Stage.admit,
    "a stop of every execution": stop_all,
    "the deadline": let_time_pass,
    "the end of an instance": lose_an_instance,
    "a cancel": Stage.cancel,
}


def meet_everywhere(service: type, make_stage: Callable[[], Stage], company: str) -> int:
    """Let something else happen just before one call after the other."""

    def make_points(stage: Stage, at: int) -> CallPoints:
        return CallPoints(at, Strike.NONE, meets=lambda: COMPANY[company](stage))

    return strike_everywhere(service, make_stage, ENDS, make_points)


@pytest.mark.parametrize("company", COMPANY)
@pytest.mark.parametrize(("service", "make_stage", "states"), SCENES)
def test_whatever_happens_meanwhile_is_made_good(service, make_stage, states, company):
    assert meet_everywhere(service, make_stage, company) >= 2


@pytest.mark.parametrize("strike", Strike)
@pytest.mark.parametrize("company", [stop_all, let_time_pass])
def test_a_prompt_posted_by_a_dying_step_after_its_job_was_closed_is_cancelled(company, strike):
    def a_long_job() -> Stage:
        stage = Stage(prompt_seconds=600)
        stage.post()
        return stage

    def make_points(stage: Stage, at: int) -> CallPoints:
        return CallPoints(at, strike, meets=lambda: (company(stage), stage.cancel()))

    assert strike_everywhere(SubmitPrompt, a_long_job, CLOSES, make_points) >= 5
