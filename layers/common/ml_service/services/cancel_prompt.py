"""cancel_prompt: ends the prompts that nobody waits for any more, each by its own id."""

from dataclasses import dataclass

from ml_service.domain.errors import InstanceUnreachableError, JobChangedError
from ml_service.domain.jobs import AbandonedPrompt, Job
from ml_service.ports import ComfyUIConnector, FleetStore, JobStore

_WRITE_TRIES = 5  # against the job's execution, which may be at work on it


@dataclass(frozen=True)
class CancelPrompt:
    """Goes to each instance that may still hold an abandoned prompt of a job."""

    jobs: JobStore
    store: FleetStore
    connector: ComfyUIConnector

    def cancel(self, job_id: str) -> Job:
        """Cancel a job's abandoned prompts; those that cannot be reached stay in its record.

        Raises JobNotFoundError.
        """
        job = self.jobs.get(job_id)
        known = {instance.key for instance in self.store.list_instances(job.fleet)}
        gone = {prompt.prompt_id for prompt in job.abandoned if self._is_gone(prompt, known)}
        return self._drop(job, gone) if gone else job

    def _is_gone(self, prompt: AbandonedPrompt, known: set[str]) -> bool:
        if prompt.instance not in known:
            return True  # with its instance
        try:
            self.connector.connect(prompt.address).cancel(prompt.prompt_id)
        except InstanceUnreachableError:
            return False
        return True

    def _drop(self, job: Job, gone: set[str]) -> Job:
        for tries_left in reversed(range(_WRITE_TRIES)):
            dropped = job.drop_abandoned(gone)
            try:
                self.jobs.save(dropped)
            except JobChangedError:
                if not tries_left:
                    raise
                job = self.jobs.get(job.job_id)
            else:
                return dropped
        raise AssertionError("unreachable: the last try returns or raises")
