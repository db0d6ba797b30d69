"""await_prompt: looks at a submitted prompt, and stays with it when its end may be near."""

from dataclasses import dataclass
from enum import StrEnum

from ml_service.domain.errors import (
    DeadlineExceededError,
    InstanceUnreachableError,
    PromptFailedError,
)
from ml_service.domain.jobs import Job
from ml_service.domain.prompts import Prompt, PromptState, seconds_until_look
from ml_service.domain.results import list_output_files
from ml_service.ports import Clock, ComfyUI, ComfyUIConnector, FleetStore, JobStore
from ml_service.services.record_reading import record_reading

HOLD_LIMIT_SECONDS = 240
"""The longest that one call holds; the function's own limit is 300 s."""
POLL_SECONDS = 2.0
"""Between two looks while no news comes over the websocket."""
LOST_CHECK_SECONDS = 1.0
"""Before an unknown prompt is looked for once more."""


class AwaitStatus(StrEnum):
    """Where the prompt stands, and so what the state machine does next."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    LOST = "LOST"


@dataclass(frozen=True)
class Awaited:
    """What one call found."""

    status: AwaitStatus
    job: Job
    wait_seconds: int = 0
    """Until the next call, while PENDING."""


@dataclass(frozen=True)
class AwaitPrompt:
    """Waits for the end of a prompt; the websocket is a hint, queue and history are the truth."""

    jobs: JobStore
    store: FleetStore
    connector: ComfyUIConnector
    clock: Clock

    def await_prompt(self, job_id: str) -> Awaited:
        """Look at a job's prompt until it ends, its start proves far off, or the hold is over.

        Raises PromptFailedError, DeadlineExceededError, JobClosedError, InstanceUnreachableError.
        """
        job = self.jobs.get(job_id)
        job.require_open()
        comfyui = self.connector.connect(job.address)
        try:
            awaited = self._hold(job, comfyui)
        except InstanceUnreachableError:
            self.store.record_reading(job.fleet, job.instance, None, self.clock.now())
            raise
        record_reading(comfyui, job, store=self.store, clock=self.clock)
        return awaited

    def _hold(self, job: Job, comfyui: ComfyUI) -> Awaited:
        held_since = self.clock.monotonic()
        with comfyui.watch(job.prompt_id) as wait_for_news:
            while True:
                prompt = self._find(job, comfyui)
                if prompt.state is PromptState.RUNNING and not job.seen_running:
                    job = job.see_running()
                    self.jobs.save(job)
                awaited = self._conclude(job, prompt)
                if awaited is not None:
                    return awaited
                try:
                    job.check_deadline(self.clock.now())
                except DeadlineExceededError:
                    comfyui.cancel(job.prompt_id)
                    raise
                if self.clock.monotonic() - held_since >= HOLD_LIMIT_SECONDS:
                    if prompt.state is PromptState.RUNNING:
                        return Awaited(AwaitStatus.RUNNING, job)
                    return Awaited(AwaitStatus.PENDING, job, wait_seconds=1)
                wait_for_news(POLL_SECONDS)

    def _find(self, job: Job, comfyui: ComfyUI) -> Prompt:
        prompt = comfyui.find(job.prompt_id)
        if prompt.state is PromptState.UNKNOWN:
            self.clock.sleep(LOST_CHECK_SECONDS)
            prompt = comfyui.find(job.prompt_id)
        return prompt

    def _conclude(self, job: Job, prompt: Prompt) -> Awaited | None:
        """What a look means for the job; None to look again."""
        if prompt.state is PromptState.SUCCEEDED:
            job = job.list_outputs(list_output_files(prompt.outputs))
            self.jobs.save(job)
            return Awaited(AwaitStatus.SUCCEEDED, job)
        if prompt.state is PromptState.FAILED:
            raise PromptFailedError(prompt.failure)
        if prompt.state is PromptState.UNKNOWN:
            return Awaited(AwaitStatus.LOST, job)
        if prompt.state is PromptState.PENDING:
            since = job.submitted_at or self.clock.now()
            wait_seconds = seconds_until_look(
                prompt.position,
                expected_seconds=job.expected_seconds,
                waited_seconds=(self.clock.now() - since).total_seconds(),
            )
            if wait_seconds:
                return Awaited(AwaitStatus.PENDING, job, wait_seconds)
        return None
