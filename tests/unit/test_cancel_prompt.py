from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ml_service.domain.errors import InstanceUnreachableError
from ml_service.domain.jobs import CANCEL_GRACE, Job, JobState
from ml_service.services.cancel_prompt import CancelPrompt
from tests.fakes import NOON, InMemoryFleetStore, InMemoryJobStore
from tests.makers import JOB_ID, make_instance, make_job

FLEET = "pulid"


@dataclass
class Instances:
    """The instances' cancel, and nothing else of them."""

    silent: str = ""
    hung: str = ""
    cancelled: list[tuple[str, str]] = field(default_factory=list)

    def connect(self, address: str) -> "Instance":
        return Instance(self, address)


@dataclass
class Instance:
    instances: Instances
    address: str

    def cancel(self, prompt_id: str, *, seconds: float) -> bool:
        if self.address == self.instances.silent:
            raise InstanceUnreachableError(self.address)
        self.instances.cancelled.append((self.address, prompt_id))
        return self.address != self.instances.hung


def abandoned_twice() -> Job:
    job = make_job().admit(instance="i-a#1", instance_id="i-a", address="10.0.0.1", at=NOON)
    job = job.submit(prompt_id="p1", at=NOON).lose()
    job = job.place(instance="i-b#1", instance_id="i-b", address="10.0.0.2")
    job = job.submit(prompt_id="p2", at=NOON)
    return job.close(JobState.CANCELLED, reply="r", at=NOON)


def cancel(instances: Instances, *names: str, now: datetime = NOON + CANCEL_GRACE) -> Job:
    jobs = InMemoryJobStore(abandoned_twice())
    store = InMemoryFleetStore(FLEET, *(make_instance(name) for name in names))
    returned = CancelPrompt(jobs, store, instances).cancel(JOB_ID, now=now)
    assert returned == jobs.get(JOB_ID)
    return returned


def test_every_abandoned_prompt_is_cancelled_where_it_was():
    instances = Instances()
    assert cancel(instances, "a", "b").abandoned == ()
    assert instances.cancelled == [("10.0.0.1", "p1"), ("10.0.0.2", "p2")]


def test_a_prompt_that_may_still_be_posted_is_cancelled_once_more_later():
    instances = Instances()
    left = cancel(instances, "a", "b", now=NOON + CANCEL_GRACE - timedelta(seconds=1))
    assert [prompt.prompt_id for prompt in left.abandoned] == ["p1", "p2"]
    assert instances.cancelled == [("10.0.0.1", "p1"), ("10.0.0.2", "p2")]


def test_what_cannot_be_reached_stays_to_be_asked_for_again():
    instances = Instances("10.0.0.1")
    assert [prompt.prompt_id for prompt in cancel(instances, "a", "b").abandoned] == ["p1"]
    assert instances.cancelled == [("10.0.0.2", "p2")]


def test_what_hangs_stays_to_be_asked_for_again():
    instances = Instances(hung="10.0.0.2")
    assert [prompt.prompt_id for prompt in cancel(instances, "a", "b").abandoned] == ["p2"]


def test_a_prompt_is_gone_with_its_instance():
    instances = Instances("10.0.0.1")
    assert cancel(instances, "b").abandoned == ()


def test_a_job_that_somebody_else_writes_meanwhile_keeps_both_changes():
    class Raced(InMemoryJobStore):
        raced = False

        def save(self, job):
            if not self.raced:
                self.raced = True
                super().save(self.get(job.job_id).mark_published(NOON))
            super().save(job)

    jobs = Raced(abandoned_twice())
    service = CancelPrompt(jobs, InMemoryFleetStore(FLEET), Instances())
    service.cancel(JOB_ID, now=NOON + CANCEL_GRACE)
    job = jobs.get(JOB_ID)
    assert (job.abandoned, job.published_at) == ((), NOON)
