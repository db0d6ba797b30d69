"""Every talk with an instance leaves the reading it saw, so that placement knows it at once."""

from ml_service.domain.errors import InstanceError
from ml_service.domain.jobs import Job
from ml_service.ports import Clock, ComfyUI, FleetStore


def record_reading(comfyui: ComfyUI, job: Job, *, store: FleetStore, clock: Clock) -> None:
    """Store the queue length of a job's instance after a talk that went well.

    No answer here stores nothing: the step has done its work, and the next tick asks again.
    """
    try:
        reading = comfyui.count_prompts()
    except InstanceError:
        return
    store.record_reading(job.fleet, job.instance, reading, clock.now())
