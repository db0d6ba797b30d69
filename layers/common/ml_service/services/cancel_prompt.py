"""cancel_prompt: ends the prompts that nobody waits for any more, each by its own id."""

from dataclasses import dataclass
from datetime import datetime

from ml_service.domain.errors import InstanceError
from ml_service.domain.jobs import CANCEL_GRACE, AbandonedPrompt, Job
from ml_service.domain.prompts import CANCEL_SECONDS
from ml_service.ports import ComfyUIConnector, FleetStore, JobStore
from ml_service.services.update_job import update_job


@dataclass(frozen=True)
class CancelPrompt:
    """Goes to each instance that may still hold an abandoned prompt of a job."""

    jobs: JobStore
    store: FleetStore
    connector: ComfyUIConnector

    def cancel(self, job_id: str, *, now: datetime) -> Job:
        """Cancel a job's abandoned prompts; those that could not be stay in its record.

        Those of a job that was closed a moment ago stay, too: a step that was at work then may post
        its prompt after this. The sweep comes back for them. Raises JobNotFoundError.
        """
        job = self.jobs.get(job_id)
        known = {instance.key for instance in self.store.list_instances(job.fleet)}
        gone = {prompt.prompt_id for prompt in job.abandoned if self._is_gone(prompt, known)}
        may_still_come = job.closed_at is not None and now < job.closed_at + CANCEL_GRACE
        if may_still_come or not gone:
            return job
        return update_job(self.jobs, job_id, lambda job: job.drop_abandoned(gone))

    def _is_gone(self, prompt: AbandonedPrompt, known: set[str]) -> bool:
        if prompt.instance not in known:
            return True  # with its instance
        try:
            comfyui = self.connector.connect(prompt.address)
            return comfyui.cancel(prompt.prompt_id, seconds=CANCEL_SECONDS)
        except InstanceError:
            return False
