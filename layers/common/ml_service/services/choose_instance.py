"""choose_instance: makes sure that a job has a slot on an instance that takes jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ml_service.domain.errors import JobChangedError
from ml_service.domain.fleets import Fleet, rank_instances
from ml_service.domain.jobs import Job, JobState
from ml_service.ports import FleetStore, JobStore, PromptCanceller

WAIT_SECONDS = 10
"""Between two looks for a slot: slots are short here only after an instance was lost."""


class PlacementStatus(StrEnum):
    """Whether the job has a place."""

    PLACED = "PLACED"
    NO_SLOT = "NO_SLOT"
    OUTPUTS_KEPT = "OUTPUTS_KEPT"
    """It needs none: the last run's files are still to be collected."""


@dataclass(frozen=True)
class Choice:
    """What became of the job's place."""

    status: PlacementStatus
    job: Job
    quarantined: str = ""
    """Key of the instance that gets no more jobs, since this one was its last fault."""


@dataclass(frozen=True)
class ChooseInstance:
    """Keeps the slot that a job has, or takes one elsewhere."""

    fleets: Mapping[str, Fleet]
    jobs: JobStore
    store: FleetStore
    canceller: PromptCanceller

    def choose(self, job_id: str, *, now: datetime) -> Choice:
        """Place a job; a job whose prompt was submitted comes here because it was lost.

        Raises AttemptsExhaustedError, DeadlineExceededError, JobClosedError.
        """
        job = self.jobs.get(job_id)
        job.require_open()
        job.check_deadline(now)
        if job.kept is not None:
            if job.instance:
                job = self._leave(job, job.leave_instance())
            return Choice(PlacementStatus.OUTPUTS_KEPT, job)
        instances = self.store.list_instances(job.fleet)
        quarantined = ""
        if job.state is JobState.SUBMITTED:
            # A prompt that was to be moved is gone through nobody's fault.
            if not job.moving and self.store.record_fault(job.fleet, job.instance, now):
                quarantined = job.instance
            job = self._leave(job, job.displace() if job.moving else job.lose())
            # An instance that only went silent may still run it.
            self.canceller.cancel_abandoned(job_id)
        elif job.instance:
            present = next((i for i in instances if i.key == job.instance), None)
            if present is not None and present.is_ready and job_id in present.jobs:
                return Choice(PlacementStatus.PLACED, job)
            job = self._leave(job, job.leave_instance())

        slots = self.fleets[job.fleet].slots_per_instance
        instances = [i for i in instances if i.key != quarantined]
        for instance in rank_instances(instances, slots=slots, avoid=job.lost_on):
            placed = job.place(
                instance=instance.key, instance_id=instance.instance_id, address=instance.address
            )
            if not self.store.take_slot(job.fleet, instance.key, job_id, slots=slots, at=now):
                continue
            try:
                self.jobs.save(placed)
            except JobChangedError:
                self.store.release_slot(job.fleet, instance.key, job_id)
                raise
            self.store.stop_waiting(job.fleet, job_id)
            return Choice(PlacementStatus.PLACED, placed, quarantined)
        # Admission leaves it a slot: else every lost instance would let new jobs overtake this one.
        self.store.wait_for_slot(job.fleet, job_id)
        return Choice(PlacementStatus.NO_SLOT, job, quarantined)

    def _leave(self, job: Job, left: Job) -> Job:
        # The slot first: after a crash in between, the repeat finds the place still in the record.
        self.store.release_slot(job.fleet, job.instance, job.job_id)
        self.jobs.save(left)
        return left
