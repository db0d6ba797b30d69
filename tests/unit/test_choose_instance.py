from datetime import timedelta

import pytest

from ml_service.domain.errors import AttemptsExhaustedError, DeadlineExceededError, JobClosedError
from ml_service.domain.jobs import Job, JobState
from ml_service.services.choose_instance import ChooseInstance, PlacementStatus
from tests.fakes import NOON, InMemoryFleetStore, InMemoryJobStore, InMemoryPromptCanceller
from tests.makers import FLEETS, JOB_ID, make_instance, make_job

FLEET = "pulid"


def admitted() -> Job:
    return make_job().admit(instance="i-a#1", instance_id="i-a", address="10.0.0.1", at=NOON)


def choose(job: Job, *instances, now=NOON):
    jobs, store = InMemoryJobStore(job), InMemoryFleetStore(FLEET, *instances)
    service = ChooseInstance(FLEETS, jobs, store, InMemoryPromptCanceller())
    status = service.choose(JOB_ID, now=now).status
    slots = {i.instance_id: set(i.jobs) for i in store.list_instances(FLEET)}
    return status, jobs.get(JOB_ID), slots


def holding(name: str = "a", **changes):
    return make_instance(name, jobs=frozenset({JOB_ID}), **changes)


def test_the_slot_that_admission_took_is_kept():
    status, job, slots = choose(admitted(), holding(), make_instance("b"))
    assert (status, job) == (PlacementStatus.PLACED, admitted())
    assert slots == {"i-a": {JOB_ID}, "i-b": set()}


@pytest.mark.parametrize(
    "changes", [{"reading": None}, {"in_service": False}, {"takes_jobs": False}]
)
def test_an_instance_that_takes_no_jobs_any_more_is_left(changes):
    status, job, slots = choose(admitted(), holding(**changes), make_instance("b"))
    assert (status, job.instance_id, job.address) == (PlacementStatus.PLACED, "i-b", "10.0.0.2")
    assert slots == {"i-a": set(), "i-b": {JOB_ID}}
    assert job.attempt == 2


def test_an_instance_that_is_gone_is_left():
    _, job, slots = choose(admitted(), make_instance("b"))
    assert (job.instance_id, slots) == ("i-b", {"i-b": {JOB_ID}})


def test_without_a_free_slot_the_job_waits():
    full = make_instance("b", reading=99)
    status, job, slots = choose(admitted(), holding(reading=None), full)
    assert (status, job.instance, job.state) == (PlacementStatus.NO_SLOT, "", JobState.ADMITTED)
    assert slots == {"i-a": set(), "i-b": set()}


def test_a_job_waits_for_a_slot_until_it_has_one():
    jobs = InMemoryJobStore(admitted())
    store = InMemoryFleetStore(FLEET, make_instance("b", reading=99))
    service = ChooseInstance(FLEETS, jobs, store, InMemoryPromptCanceller())
    assert service.choose(JOB_ID, now=NOON).status is PlacementStatus.NO_SLOT
    assert store.list_waiting(FLEET) == {JOB_ID}
    store.record_reading(FLEET, "i-b#1", 0, NOON)
    assert service.choose(JOB_ID, now=NOON).status is PlacementStatus.PLACED
    assert store.list_waiting(FLEET) == set()


def test_a_lost_prompt_is_placed_again_as_a_new_attempt():
    lost = admitted().submit(prompt_id="p", at=NOON)
    status, job, slots = choose(lost, holding(reading=None), make_instance("b"))
    assert (status, job.state, job.attempt, job.prompt_id) == (
        PlacementStatus.PLACED,
        JobState.ADMITTED,
        2,
        "",
    )
    assert slots == {"i-a": set(), "i-b": {JOB_ID}}


def test_a_job_lost_twice_while_running_is_given_up():
    lost = admitted().submit(prompt_id="p", at=NOON).see_running()
    with pytest.raises(AttemptsExhaustedError):
        choose(lost.model_copy(update={"guilty_losses": 1}), make_instance("b"))


def test_a_job_past_its_deadline_or_closed_is_not_placed():
    with pytest.raises(DeadlineExceededError):
        choose(admitted(), holding(), now=NOON + timedelta(hours=1))
    with pytest.raises(JobClosedError):
        choose(admitted().close(JobState.CANCELLED, reply="r", at=NOON), holding())


def test_a_repeat_of_the_call_changes_nothing():
    jobs = InMemoryJobStore(admitted())
    store = InMemoryFleetStore(FLEET, make_instance("b"))
    service = ChooseInstance(FLEETS, jobs, store, InMemoryPromptCanceller())
    first = service.choose(JOB_ID, now=NOON)
    assert first.status is PlacementStatus.PLACED
    assert service.choose(JOB_ID, now=NOON) == first


def test_the_prompt_of_a_lost_attempt_is_cancelled_where_it_was():
    jobs = InMemoryJobStore(admitted().submit(prompt_id="p", at=NOON))
    canceller = InMemoryPromptCanceller()
    store = InMemoryFleetStore(FLEET, make_instance("b"))
    job = ChooseInstance(FLEETS, jobs, store, canceller).choose(JOB_ID, now=NOON).job
    (prompt,) = job.abandoned
    assert (prompt.prompt_id, prompt.instance, prompt.address) == ("p", "i-a#1", "10.0.0.1")
    assert canceller.asked == [JOB_ID]


def test_an_instance_that_lost_the_job_is_tried_last():
    lost = admitted().submit(prompt_id="p", at=NOON)
    _, job, _ = choose(lost, holding("a"), make_instance("b", reading=9))
    assert (job.instance_id, job.lost_on) == ("i-b", ("i-a#1",))
    _, job, _ = choose(lost, holding("a"))
    assert job.instance_id == "i-a"


def test_fault_22_the_third_fault_in_a_row_puts_an_instance_in_quarantine():
    jobs = InMemoryJobStore(admitted().submit(prompt_id="p", at=NOON))
    store = InMemoryFleetStore(FLEET, holding("a", faults=2))
    service = ChooseInstance(FLEETS, jobs, store, InMemoryPromptCanceller())
    choice = service.choose(JOB_ID, now=NOON)
    assert (choice.status, choice.quarantined) == (PlacementStatus.NO_SLOT, "i-a#1")
    (instance,) = store.list_instances(FLEET)
    assert (instance.quarantined_at, instance.is_ready) == (NOON, False)
