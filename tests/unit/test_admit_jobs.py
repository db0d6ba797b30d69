from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from ml_service.domain.fleets import Group, GroupMember
from ml_service.domain.jobs import JobState
from ml_service.ports import QueuedMessage
from ml_service.services.admit_jobs import (
    ADMISSION_SECONDS,
    AdmissionReport,
    AdmissionStatus,
    AdmitJobs,
)
from ml_service.services.refresh_registry import RefreshRegistry
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryAdmission,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryInstanceProbe,
    InMemoryInstanceWarmer,
    InMemoryJobQueue,
    InMemoryJobRunner,
    InMemoryJobStore,
)
from tests.makers import FLEETS, JOB_ID, make_body, make_instance, make_job

FLEET = "pulid"
GROUP = Group(1, 1, 3, [GroupMember("i-z", NOON, "10.0.0.26", in_service=True)])


@dataclass
class World:
    store: InMemoryFleetStore
    jobs: InMemoryJobStore = field(default_factory=InMemoryJobStore)
    queue: InMemoryJobQueue = field(default_factory=InMemoryJobQueue)
    runner: InMemoryJobRunner = field(default_factory=InMemoryJobRunner)
    admission: InMemoryAdmission = field(default_factory=InMemoryAdmission)
    clock: FakeClock = field(default_factory=FakeClock)
    warmer: InMemoryInstanceWarmer = field(default_factory=InMemoryInstanceWarmer)

    def put(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.jobs.add(make_job(job_id=job_id))
        self.queue.send([QueuedMessage(f"sqs-{i}", make_body(MessageId=i)) for i in job_ids])

    def admit(self, slots: int = 4) -> AdmissionReport:
        service = AdmitJobs(
            fleets={FLEET: FLEETS[FLEET].model_copy(update={"slots_per_instance": slots})},
            task_queues={FLEET: self.queue},
            jobs=self.jobs,
            store=self.store,
            registry=RefreshRegistry(
                self.store,
                InMemoryInstancePool({FLEETS[FLEET].group_name: GROUP}),
                InMemoryInstanceProbe({"10.0.0.26": 0}),
                self.warmer,
            ),
            runner=self.runner,
            admission=self.admission,
            clock=self.clock,
        )
        return service.admit(FLEET)

    def slots(self) -> dict[str, set[str]]:
        return {i.instance_id: set(i.jobs) for i in self.store.list_instances(FLEET)}


def world(*instances) -> World:
    return World(InMemoryFleetStore(FLEET, *instances))


def test_a_waiting_job_takes_a_slot_and_gets_its_execution():
    w = world(make_instance("a"))
    w.put(JOB_ID)
    report = w.admit()
    assert report.job_ids == [JOB_ID]
    job = w.jobs.get(JOB_ID)
    assert (job.state, job.instance_id, job.address, job.attempt) == (
        JobState.ADMITTED,
        "i-a",
        "10.0.0.1",
        1,
    )
    assert w.runner.started == [(JOB_ID, 1)]
    assert w.slots() == {"i-a": {JOB_ID}}
    assert (w.queue.visible, w.queue.hidden) == ([], {})


def test_only_as_many_jobs_as_there_are_free_slots_leave_the_queue():
    w = world(make_instance("a", reading=3), make_instance("b", reading=2))
    w.put(*(f"job-{n}" for n in range(6)))
    assert len(w.admit().job_ids) == 3
    assert len(w.queue.visible) == 3


def test_no_new_job_takes_the_slot_that_a_job_without_instance_waits_for():
    w = world(make_instance("a"))
    for n in range(3):
        w.store.wait_for_slot(FLEET, f"lost-{n}")
    w.put("job-0", "job-1")
    assert w.admit(slots=4).job_ids == ["job-0"]
    w.store.stop_waiting(FLEET, "lost-0")
    assert w.admit(slots=4).job_ids == ["job-1"]


def test_jobs_spread_over_the_instances():
    w = world(make_instance("a"), make_instance("b"), make_instance("c"))
    w.put(*(f"job-{n}" for n in range(6)))
    w.admit()
    assert [len(jobs) for jobs in w.slots().values()] == [2, 2, 2]


def test_more_than_one_receive_is_made_for_many_slots():
    w = world(*(make_instance(name) for name in "abcdefg"))
    w.put(*(f"job-{n}" for n in range(25)))
    assert len(w.admit().job_ids) == 25


def test_nothing_leaves_the_queue_while_nothing_is_ready():
    w = world(make_instance("a", reading=None))
    w.put(JOB_ID)
    assert w.admit().job_ids == []
    assert len(w.queue.visible) == 1


def test_a_message_received_twice_is_admitted_once():
    w = world(make_instance("a"), make_instance("b"))
    w.put(JOB_ID)
    w.queue.send([QueuedMessage("again", make_body())])
    report = w.admit()
    assert report.counts == {AdmissionStatus.ADMITTED: 1, AdmissionStatus.REPEATED: 1}
    assert w.runner.started == [(JOB_ID, 1)]
    assert sum(len(jobs) for jobs in w.slots().values()) == 1
    assert w.queue.hidden == {}


def test_a_job_whose_execution_was_never_started_gets_it():
    w = world(make_instance("a"))
    w.put(JOB_ID)
    w.jobs.save(w.jobs.get(JOB_ID).admit(instance="i-a#1", instance_id="i-a", address="", at=NOON))
    w.admit()
    assert w.runner.started == [(JOB_ID, 1)]


def test_a_job_that_has_its_answer_runs_no_more():
    w = world(make_instance("a"))
    w.put(JOB_ID)
    w.jobs.save(w.jobs.get(JOB_ID).close(JobState.FAILED, reply="r", at=NOON))
    assert w.admit().counts == {AdmissionStatus.REPEATED: 1}
    assert w.runner.started == []
    assert w.queue.hidden == {}


def test_a_message_without_a_record_is_left_for_the_dead_letter_queue():
    w = world(make_instance("a"))
    w.queue.send([QueuedMessage("x", make_body()), QueuedMessage("y", "no json")])
    assert w.admit().counts == {AdmissionStatus.ORPHANED: 2}
    assert len(w.queue.hidden) == 2


def test_fault_11_the_last_slot_goes_to_one_and_the_other_message_waits_on():
    class Raced(InMemoryFleetStore):
        def take_slot(self, fleet, key, job_id, *, slots, at):
            super().take_slot(fleet, key, "faster", slots=slots, at=at)
            return super().take_slot(fleet, key, job_id, slots=slots, at=at)

    w = World(Raced(FLEET, make_instance("a")))
    w.put(JOB_ID)
    report = w.admit(slots=1)
    assert report.counts == {AdmissionStatus.PUT_BACK: 1}
    assert len(w.queue.visible) == 1
    assert w.jobs.get(JOB_ID).state is JobState.QUEUED


def test_of_two_admissions_of_one_job_the_slower_gives_its_slot_back():
    class Raced(InMemoryJobStore):
        def save(self, job):
            if job.version == 2:
                super().save(
                    self.get(job.job_id).admit(
                        instance="i-b#1", instance_id="i-b", address="", at=NOON
                    )
                )
            super().save(job)

    w = World(InMemoryFleetStore(FLEET, make_instance("a")), jobs=Raced())
    w.put(JOB_ID)
    w.admit()
    assert w.jobs.get(JOB_ID).instance_id == "i-b"
    assert w.slots() == {"i-a": set()}


def test_an_empty_registry_is_filled_first_and_what_is_there_takes_jobs_once_it_is_warm():
    w = world()
    w.put(JOB_ID)
    assert w.admit().job_ids == []
    assert list(w.slots()) == ["i-z"]
    ((fleet, key),) = w.warmer.asked
    w.store.end_warm_up(fleet, key, at=NOON)
    assert w.admit().job_ids == [JOB_ID]


@pytest.mark.parametrize(
    ("seconds", "jobs", "admitted"),
    [
        (6, [], [JOB_ID]),
        # Read a moment ago, it is busy still.
        (5, [], []),
        # Jobs of our own end with a kick: nothing is asked.
        (6, ["job-1"], []),
    ],
)
def test_prompts_of_others_that_have_ended_meanwhile_keep_no_job_waiting(
    seconds: int, jobs: list[str], admitted: list[str]
):
    known = make_instance("z", reading=1, jobs=frozenset(jobs))
    w = world(replace(known, key=GROUP.members[0].key, address="10.0.0.26"))
    w.put(JOB_ID)
    w.clock.sleep(seconds)
    assert w.admit(slots=1).job_ids == admitted


def test_an_instance_that_comes_while_admission_waits_for_messages_is_used():
    w = world(make_instance("a", reading=3))

    class Waits(InMemoryJobQueue):
        def receive(self, limit):
            w.store.instances[FLEET, "i-b#1"] = make_instance("b")
            return super().receive(limit)

    w.queue = Waits()
    w.put(JOB_ID)
    w.admit()
    assert w.jobs.get(JOB_ID).instance_id == "i-b"


def test_prompts_that_are_still_to_come_count_in_every_receive():
    # A reading of other stages' prompts: our own jobs' prompts come on top of it.
    w = world(make_instance("a", reading=4))
    w.put(*(f"job-{n}" for n in range(30)))
    assert len(w.admit(slots=20).job_ids) == 16


def test_a_kick_during_an_admission_makes_it_look_again():
    w = world(make_instance("a"))

    class Kicks(InMemoryJobQueue):
        """A message and its kick arrive just after admission found the queue empty."""

        kicked = False

        def receive(self, limit):
            messages = super().receive(limit)
            if not self.kicked:
                self.kicked = True
                w.put(JOB_ID)
                assert not w.admit().was_first
            return messages

    w.queue = Kicks()
    assert w.admit().job_ids == [JOB_ID]


def test_an_admission_that_fails_lets_the_next_begin():
    w = world(make_instance("a"))
    w.put(JOB_ID)
    runner, w.runner = w.runner, None
    with pytest.raises(AttributeError):
        w.admit()
    w.runner = runner
    w.queue.visible = [*w.queue.hidden.values()]
    assert w.admit().was_first
    assert w.runner.started == [(JOB_ID, 1)]


def test_an_admission_whose_time_is_up_finishes_its_batch_and_hands_over():
    w = world(*(make_instance(name) for name in "abcdefg"))
    w.put(*(f"job-{n}" for n in range(25)))

    class Slow(InMemoryJobRunner):
        def start(self, job_id, run):
            w.clock.sleep(ADMISSION_SECONDS / 15)
            super().start(job_id, run)

    w.runner = Slow()
    report = w.admit()
    assert report.was_cut
    assert len(report.job_ids) == 20
    assert w.queue.hidden == {}
    assert w.admission.kicked == [FLEET]
    assert len(w.admit().job_ids) == 5
    assert w.admission.kicked == [FLEET]


def test_kicks_that_do_not_end_do_not_keep_an_admission_for_ever():
    w = world(make_instance("a", reading=4))

    class Kicked(InMemoryFleetStore):
        def end_admission(self, fleet):
            w.clock.sleep(1)
            if w.clock.now() < NOON + timedelta(minutes=5):
                self.look_again.add(fleet)
            return super().end_admission(fleet)

    w.store = Kicked(FLEET, make_instance("a", reading=4))
    w.clock.time = NOON + timedelta(minutes=4, seconds=45)
    assert w.admit().was_cut
    assert w.admission.kicked == [FLEET]


def test_a_job_that_is_redriven_while_it_is_placed_waits_on():
    w = world(make_instance("a"))

    class Redriven(InMemoryJobStore):
        redriven = False

        def save(self, job):
            if not self.redriven:
                self.redriven = True
                super().save(self.get(JOB_ID).redrive(NOON))
            super().save(job)

    w.jobs = Redriven()
    w.put(JOB_ID)
    assert w.admit().counts == {AdmissionStatus.PUT_BACK: 1}
    assert w.runner.started == []
    assert w.slots() == {"i-a": set()}
    assert w.admit().job_ids == [JOB_ID]
