"""list_fleets: how many jobs wait, what runs where; all of it this stage's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_service.domain.api_models import FleetView, InstanceView, QueuedJob
from ml_service.domain.errors import JobNotFoundError
from ml_service.domain.fleets import Fleet, Instance, count_free_slots
from ml_service.ports import FleetStore, JobQueue, JobStore


@dataclass(frozen=True)
class ListFleets:
    """Reads the fleet table, which every look at an instance brings up to date."""

    fleets: Mapping[str, Fleet]
    task_queues: Mapping[str, JobQueue]
    jobs: JobStore
    store: FleetStore

    def list_fleets(self) -> tuple[FleetView, ...]:
        """Every fleet, in the order of the stage's settings."""
        return tuple(self._read_fleet(name, fleet) for name, fleet in self.fleets.items())

    def list_instances(self, fleet: str) -> tuple[InstanceView, ...]:
        """A fleet's instances with this stage's jobs on each, and the names of their files."""
        return tuple(self._read_instance(i) for i in self.store.list_instances(fleet))

    def _read_fleet(self, name: str, fleet: Fleet) -> FleetView:
        instances = self.store.list_instances(name)
        ready = sum(instance.is_ready for instance in instances)
        return FleetView(
            fleet=name,
            waiting=self.task_queues[name].count_waiting(),
            instances=len(instances),
            ready_instances=ready,
            slots=ready * fleet.slots_per_instance,
            free_slots=count_free_slots(instances, slots=fleet.slots_per_instance),
        )

    def _read_instance(self, instance: Instance) -> InstanceView:
        found = (self._find_job(job_id) for job_id in sorted(instance.jobs))
        return InstanceView(
            instance_id=instance.instance_id,
            is_ready=instance.is_ready,
            is_warm=instance.is_warm,
            prompts=instance.reading,
            jobs=tuple(job for job in found if job is not None),
        )

    def _find_job(self, job_id: str) -> QueuedJob | None:
        try:
            job = self.jobs.get(job_id)
        except JobNotFoundError:
            return None  # a leaked slot: the sweep returns it
        media = job.inputs.media if job.inputs else ()
        return QueuedJob(
            job_id=job_id,
            status=job.state,
            workflow=job.workflow,
            files=tuple(source.upload_name for source in media),
        )
