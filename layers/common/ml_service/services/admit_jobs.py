"""admit_jobs: pulls jobs out of a fleet's task queue, one for each free slot."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ml_service.domain.errors import ExecutionsThrottledError, JobChangedError, JobNotFoundError
from ml_service.domain.fleets import (
    Fleet,
    Instance,
    count_free_slots,
    is_registry_stale,
    rank_instances,
)
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.messages import read_job_id
from ml_service.ports import (
    Admission,
    Clock,
    FleetStore,
    JobQueue,
    JobRunner,
    JobStore,
    QueuedMessage,
)
from ml_service.services.dispatch_jobs import JOB_ID_ATTRIBUTE
from ml_service.services.refresh_registry import RefreshRegistry

ADMISSION_SECONDS = 10.0
"""After so long an admission begins no other batch: the function's own limit is 55 s, and a tick
admits for three fleets in one call."""
_RECEIVE_LIMIT = 10  # SQS hands out no more at a time


class AdmissionStatus(StrEnum):
    """What became of one message of a task queue."""

    ADMITTED = "ADMITTED"
    REPEATED = "REPEATED"
    """Its job was admitted before; the execution exists."""
    ORPHANED = "ORPHANED"
    """No job record belongs to it: it is left alone and ends in the dead-letter queue."""
    PUT_BACK = "PUT_BACK"
    """Somebody else was faster for the last slot: the message waits on."""
    THROTTLED = "THROTTLED"
    """Admitted, but Step Functions starts nothing now: the message comes back in a minute."""


_DONE_WITH = frozenset({AdmissionStatus.ADMITTED, AdmissionStatus.REPEATED})
_STOPS = frozenset({AdmissionStatus.PUT_BACK, AdmissionStatus.THROTTLED})
"""After one of these nothing more is pulled."""


@dataclass
class AdmissionReport:
    """What one admission did for a fleet."""

    fleet: str
    was_first: bool = False
    """False if another admission was at work on the fleet, which then looks again."""
    was_cut: bool = False
    """True if its time was up before its work was: another call goes on."""
    ready_instances: int = 0
    """When it last began to fill, as are the free slots."""
    free_slots: int = 0
    counts: Counter[AdmissionStatus] = field(default_factory=Counter)
    job_ids: list[str] = field(default_factory=list)
    """The jobs that were admitted."""


@dataclass(frozen=True)
class AdmitJobs:
    """Fills free slots with waiting jobs, and starts their executions."""

    fleets: Mapping[str, Fleet]
    task_queues: Mapping[str, JobQueue]
    jobs: JobStore
    store: FleetStore
    registry: RefreshRegistry
    runner: JobRunner
    admission: Admission
    clock: Clock

    def admit(self, name: str) -> AdmissionReport:
        """Admit jobs of one fleet until its slots are full, nothing waits, or its time is up.

        One admission at a time works on a fleet: many at once would only take each other's slots.
        A call that finds another at work makes that one look again, and returns.
        """
        report = AdmissionReport(name)
        if not self.store.begin_admission(name, at=self.clock.now()):
            return report
        report.was_first = True
        ends = self.clock.monotonic() + ADMISSION_SECONDS
        try:
            while self._fill(name, report, ends):
                if report.counts[AdmissionStatus.THROTTLED]:
                    self._leave(name)
                    return report
                if self.store.end_admission(name):
                    return report
                if self.clock.monotonic() >= ends:
                    break
        except BaseException:
            self._leave(name)  # who asked for another look is served by the repeat of this call
            raise
        report.was_cut = True
        self._leave(name)
        self.admission.kick(name)
        return report

    def _leave(self, name: str) -> None:
        while not self.store.end_admission(name):
            pass  # another look was asked for: whoever comes after this one takes it

    def _fill(self, name: str, report: AdmissionReport, ends: float) -> bool:
        """Admit batch after batch; False if the time was up first."""
        fleet = self.fleets[name]
        now = self.clock.now()
        known = self.store.list_instances(name)
        if is_registry_stale(known, now, slots=fleet.slots_per_instance):
            self.registry.refresh(name, fleet, now=now)
        round_ = _Round(self, name, fleet.slots_per_instance, job_ids=report.job_ids)
        round_.look()
        report.ready_instances = sum(i.is_ready for i in round_.instances.values())
        report.free_slots = round_.count_free_slots()
        queue = self.task_queues[name]
        while free := round_.count_free_slots():
            if self.clock.monotonic() >= ends:
                return False
            messages = queue.receive(min(free, _RECEIVE_LIMIT))
            if not messages:
                break
            # Receiving may have waited, and an instance come or gone meanwhile.
            round_.look()
            statuses = [round_.admit(message) for message in messages]
            report.counts.update(statuses)
            queue.delete(
                [m.receipt for m, s in zip(messages, statuses, strict=True) if s in _DONE_WITH]
            )
            if _STOPS & set(statuses):
                break
        return True


@dataclass
class _Round:
    """One admission of one fleet, with its own view of the instances as it fills them."""

    parts: AdmitJobs
    fleet: str
    slots: int
    instances: dict[str, Instance] = field(default_factory=dict)
    placed: Counter[str] = field(default_factory=Counter)
    """Jobs placed in this round by instance key; their prompts are in no reading yet."""
    reserved: int = 0
    """Slots left to admitted jobs that have lost theirs."""
    job_ids: list[str] = field(default_factory=list)
    is_throttled: bool = False

    def look(self) -> None:
        instances = self.parts.store.list_instances(self.fleet)
        self.reserved = len(self.parts.store.list_waiting(self.fleet))
        self.instances = {i.key: i.expecting(self.placed[i.key]) for i in instances}

    def count_free_slots(self) -> int:
        free = count_free_slots(self.instances.values(), slots=self.slots)
        return max(0, free - self.reserved)

    def admit(self, message: QueuedMessage) -> AdmissionStatus:
        if self.is_throttled:
            return self._put_back(message)
        job_id = find_job_id(message)
        try:
            job = self.parts.jobs.get(job_id or "")
        except JobNotFoundError:
            return AdmissionStatus.ORPHANED
        status = AdmissionStatus.REPEATED
        if job.state is JobState.QUEUED:
            admitted = self._place(job)
            if admitted is None:
                return self._put_back(message)
            job = admitted
            status = AdmissionStatus.ADMITTED
            self.job_ids.append(job.job_id)
        if not job.state.is_final:
            # Also for a job admitted before: the crash may have come before its execution.
            try:
                self.parts.runner.start(job.job_id, job.run)
            except ExecutionsThrottledError:
                self.is_throttled = True
                return AdmissionStatus.THROTTLED
        return status

    def _put_back(self, message: QueuedMessage) -> AdmissionStatus:
        self.parts.task_queues[self.fleet].put_back(message)
        return AdmissionStatus.PUT_BACK

    def _place(self, job: Job) -> Job | None:
        """Give a queued job a slot; returns its record as it then is, None if none is left."""
        store = self.parts.store
        now = self.parts.clock.now()
        for instance in rank_instances(self.instances.values(), slots=self.slots):
            if not store.take_slot(self.fleet, instance.key, job.job_id, slots=self.slots, at=now):
                # Somebody filled or drained it since the list was read.
                del self.instances[instance.key]
                continue
            self.instances[instance.key] = instance.with_job(job.job_id, now)
            self.placed[instance.key] += 1
            admitted = job.admit(
                instance=instance.key,
                instance_id=instance.instance_id,
                address=instance.address,
                at=now,
            )
            try:
                self.parts.jobs.save(admitted)
            except JobChangedError:
                # The same message, received twice: the other admission's placement counts. Or an
                # operator has redriven the job, which waits on.
                admitted = self.parts.jobs.get(job.job_id)
                if admitted.instance != instance.key:
                    store.release_slot(self.fleet, instance.key, job.job_id)
                if admitted.state is JobState.QUEUED:
                    return None
            return admitted
        return None


def find_job_id(message: QueuedMessage) -> str | None:
    """The id of the job that a message on a task queue stands for; None if it names none.

    The body wins: a sender may have an attribute of the same name, too.
    """
    job_id = read_job_id(message.body)
    attribute = (message.attributes or {}).get(JOB_ID_ATTRIBUTE)
    if job_id is None and attribute is not None:
        return str(attribute.get("StringValue", ""))
    return job_id
