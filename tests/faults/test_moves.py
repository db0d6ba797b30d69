"""Prompts that wait move to a new instance: cancelled there, placed here, and nobody's fault."""

import pytest

from ml_service.domain.errors import InstanceSilentError
from ml_service.domain.jobs import JobState
from ml_service.services.await_prompt import AwaitPrompt
from tests.faults.call_points import CallPoints, Strike
from tests.faults.stage import Stage

MOVES = {"moves_waiting": True}


def a_long_queue(scaling=MOVES) -> Stage:
    """Four prompts of 100 s wait on the only instance, and then there is another one."""
    stage = Stage(instances=1, slots=14, prompt_seconds=100, scaling=scaling)
    for _ in range(4):
        stage.post()
    stage.dispatch()
    stage.admit()
    for execution in stage.executions.values():
        while execution.state != "Await Prompt":
            stage.step(execution)
    stage.pool.set_desired(stage.group_name, 2)
    stage.fill_group()
    stage.tick()
    return stage


def look_from_behind(stage: Stage) -> None:
    """The two that have waited least look first, and go as far as they get without waiting."""
    for execution in list(stage.executions.values())[:1:-1]:
        stage.step(execution)
        while execution.state != "Await Prompt" and execution.is_awake:
            stage.step(execution)


def queues(stage: Stage) -> list[int]:
    return [len(instance.queue) for instance in stage.present()]


def test_prompts_that_wait_go_to_a_new_instance_and_nobody_has_lost_them():
    stage = a_long_queue()
    assert queues(stage) == [4, 0]
    look_from_behind(stage)
    assert queues(stage) == [2, 2]
    stage.settle(ticks=20)
    stage.check_end(losses=0)
    first, second = stage.present()
    jobs = stage.posted_jobs()
    assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 4
    assert sorted(job.attempt for job in jobs) == [1, 1, 2, 2]
    assert len(first.history | second.history) == 0
    assert all((j.lost_on, j.guilty_losses, j.abandoned) == ((), 0, ()) for j in jobs)
    assert not any(i.faults for i in stage.store.list_instances(stage.fleet))
    moved = [job for job in jobs if job.attempt == 2]
    assert {job.address for job in moved} == {second.address}
    assert all(job.attempt - job.earlier_attempts == 1 for job in moved), "it cost no attempt"


def test_without_the_parameter_they_stay():
    stage = a_long_queue({})
    look_from_behind(stage)
    assert queues(stage) == [4, 0]
    stage.settle(ticks=20)
    stage.check_end(losses=0)
    assert {job.attempt for job in stage.posted_jobs()} == {1}


def test_of_two_that_see_the_same_place_one_moves():
    stage = a_long_queue()
    third, fourth = [e for e in stage.awake() if e.state == "Await Prompt"][2:4]
    place = stage.present()[1]

    def meet() -> None:
        stage.step(fourth)

    points = stage.strikes[AwaitPrompt] = CallPoints(
        "InMemoryFleetStore.take_slot", Strike.NONE, meets=meet
    )
    stage.step(third)
    assert points.struck_at
    instances = {i.address: i for i in stage.store.list_instances(stage.fleet)}
    assert len(instances[place.address].jobs) == 1


def test_a_prompt_that_begins_to_run_is_left_alone():
    stage = a_long_queue()
    second = list(stage.executions.values())[1]
    (job,) = [j for j in stage.jobs.jobs.values() if j.job_id == second.job_id]
    # Just before it would be taken out of the queue, the prompt before it ends.
    points = stage.strikes[AwaitPrompt] = CallPoints(
        "SimulatedInstance.withdraw", Strike.NONE, meets=lambda: stage.clock.sleep(100)
    )
    stage.step(second)
    assert points.struck_at
    after = stage.jobs.get(job.job_id)
    assert (after.address, after.attempt, after.moving) == (job.address, 1, False)
    assert not any(
        job.job_id in i.jobs
        for i in stage.store.list_instances(stage.fleet)
        if i.address != job.address
    )
    stage.settle(ticks=20)
    stage.check_end(losses=0)


@pytest.mark.parametrize("strike", [s for s in Strike if s is not Strike.NONE])
def test_a_move_that_breaks_at_any_call_loses_no_job_and_runs_none_twice(strike: Strike):
    number = 0
    while True:
        number += 1
        stage = a_long_queue()
        last = list(stage.executions.values())[3]
        points = stage.strikes[AwaitPrompt] = CallPoints(number, strike)
        stage.step(last)
        stage.settle(ticks=20)
        stage.check_end(losses=0)
        assert {job.state for job in stage.posted_jobs()} == {JobState.SUCCEEDED}
        if not points.struck_at:
            break
    assert number > 8, "the move has as many calls"


def test_an_instance_that_falls_silent_during_a_move_is_asked_to_drop_the_prompt():
    stage = a_long_queue()
    last = list(stage.executions.values())[3]

    def fall_silent() -> None:
        raise InstanceSilentError("now")

    stage.strikes[AwaitPrompt] = CallPoints(
        "SimulatedInstance.withdraw", Strike.NONE, meets=fall_silent
    )
    stage.step(last)
    job = stage.jobs.get(last.job_id)
    assert job.moving
    stage.step(last)
    assert stage.canceller.asked == [last.job_id]
    stage.settle(ticks=20)
    stage.check_end(losses=0)
