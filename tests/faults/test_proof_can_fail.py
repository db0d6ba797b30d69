"""With any one of its safeguards switched off, the service fails the tests that hold it to them."""

from dataclasses import replace

import pytest

from ml_service.services.choose_instance import ChooseInstance
from ml_service.services.finish_job import FinishJob
from tests.fakes import InMemoryFleetStore, InMemoryJobStore
from tests.faults.call_points import CallPoints, Strike
from tests.faults.stage import Stage
from tests.faults.test_crash_anywhere import (
    ENDS,
    a_race_for_the_last_slot,
    meet_everywhere,
    running,
    strike_everywhere,
    two_jobs,
)


class RecordWithoutCondition(InMemoryJobStore):
    """Whoever writes last is right."""

    def save(self, job):
        self.jobs[job.job_id] = job


class SlotWithoutCondition(InMemoryFleetStore):
    """Whoever asks gets one."""

    def take_slot(self, fleet, key, job_id, *, slots, at):
        instance = self.instances[fleet, key]
        self.instances[fleet, key] = replace(instance, jobs=instance.jobs | {job_id}, placed_at=at)
        return True


class RecordWithoutOutbox(InMemoryJobStore):
    """A closed job's reply counts as sent before it is."""

    def save(self, job):
        super().save(job)
        if job.state.is_final and job.published_at is None:
            self.jobs[job.job_id] = job.model_copy(update={"published_at": job.closed_at})


@pytest.fixture
def without_record_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "job_store", RecordWithoutCondition)


@pytest.fixture
def without_slot_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "fleet_store", SlotWithoutCondition)


@pytest.fixture
def without_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "job_store", RecordWithoutOutbox)


@pytest.mark.usefixtures("without_record_condition")
def test_without_the_records_condition_a_job_gets_two_answers():
    with pytest.raises(AssertionError, match="has two different answers"):
        meet_everywhere(FinishJob, running, "the deadline")


@pytest.mark.usefixtures("without_slot_condition")
def test_without_the_slots_condition_an_instance_gets_too_many_jobs():
    with pytest.raises(AssertionError, match="more jobs on an instance than slots"):
        meet_everywhere(ChooseInstance, a_race_for_the_last_slot, "another admission")


@pytest.mark.usefixtures("without_outbox")
@pytest.mark.parametrize("strike", [Strike.FAILS, Strike.DIES_BEFORE])
def test_without_the_outbox_a_job_gets_no_answer(strike: Strike):
    with pytest.raises(AssertionError, match="has no answer"):
        strike_everywhere(FinishJob, two_jobs, ENDS, lambda _, at: CallPoints(at, strike))


def test_with_all_of_them_the_same_tests_pass():
    assert meet_everywhere(FinishJob, running, "the deadline")
    assert meet_everywhere(ChooseInstance, a_race_for_the_last_slot, "another admission")
    assert strike_everywhere(
        FinishJob, two_jobs, ENDS, lambda _, at: CallPoints(at, Strike.DIES_BEFORE)
    )
