"""await_prompt: looks at a submitted prompt, and stays with it when its end may be near."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from ml_service.domain.errors import (
    DeadlineExceededError,
    InstanceError,
    InstanceSilentError,
    PromptFailedError,
)
from ml_service.domain.fleets import Fleet, find_shorter_queue
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.prompts import (
    CANCEL_SECONDS,
    LONGEST_WAIT,
    Progress,
    Prompt,
    PromptState,
    Stall,
    StallLimits,
    find_stall,
    seconds_until_look,
)
from ml_service.domain.results import list_output_files
from ml_service.ports import Clock, ComfyUI, ComfyUIConnector, FleetStore, JobStore, PromptWatch
from ml_service.services.record_reading import record_reading

HOLD_LIMIT_SECONDS = 240
"""The longest that one call holds; the function's own limit is 300 s."""
POLL_SECONDS = 2.0
"""Between two looks while no news comes over the websocket."""
LOST_CHECK_SECONDS = (0.1, 0.9)
"""Before an unknown prompt is looked for once more, and again."""
MOVE_SECONDS = 15
"""Between two looks for a shorter queue, where the fleet's policy moves prompts that wait."""
SILENCE_SECONDS = 60.0
"""How long an instance may take requests without an answer, as while it loads a model."""
PROGRESS_SECONDS = 5.0
"""Between two notes of a prompt's progress in its job's record: each is a write."""


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
    progress: Progress | None = None
    """While RUNNING, if the instance told of it."""
    stall: Stall | None = None
    """Why the prompt was given up as LOST, if it still was in the queue."""
    moved: bool = False
    """LOST of its own accord: the job has its slot in a shorter queue already."""


@dataclass(frozen=True)
class AwaitPrompt:
    """Waits for the end of a prompt; the websocket is a hint, queue and history are the truth."""

    fleets: Mapping[str, Fleet]
    jobs: JobStore
    store: FleetStore
    connector: ComfyUIConnector
    clock: Clock
    stall_limits: StallLimits = field(default_factory=StallLimits)
    poll_seconds: float = POLL_SECONDS
    silence_seconds: float = SILENCE_SECONDS

    def await_prompt(self, job_id: str) -> Awaited:
        """Look at a job's prompt until it ends, its start proves far off, or the hold is over.

        Raises PromptFailedError, DeadlineExceededError, JobClosedError, InstanceError.
        """
        job = self.jobs.get(job_id)
        job.require_open()
        if job.state is JobState.ADMITTED:
            return Awaited(AwaitStatus.LOST, job, moved=True)  # by a call that died just after it
        comfyui = self.connector.connect(job.address)
        try:
            with comfyui.watch(job.prompt_id) as watch:
                awaited = self._hold(job, comfyui, watch)
        except InstanceError:
            self.store.record_reading(job.fleet, job.instance, None, self.clock.now())
            raise
        if awaited.stall is not None:
            self._cancel(job, comfyui, seconds=0)
            self.store.record_stall(job.fleet, job.instance, self.clock.now())
            # What answers but runs nothing is not ready for the next job.
            self.store.record_reading(job.fleet, job.instance, None, self.clock.now())
        else:
            record_reading(comfyui, job, store=self.store, clock=self.clock)
        return awaited

    def _hold(self, job: Job, comfyui: ComfyUI, watch: PromptWatch) -> Awaited:
        held_since = answered_at = noted_at = self.clock.monotonic()
        head = _QueueHead(job.queue_head, job.queue_head_since)
        moves = self._moves_waiting(job)
        next_move = held_since
        while True:
            try:
                prompt = self._find(job, comfyui)
                answered_at = self.clock.monotonic()
            except InstanceSilentError:
                if self.clock.monotonic() - answered_at >= self.silence_seconds:
                    raise
            else:
                job = self._note_running(job, prompt)
                if moves and self.clock.monotonic() >= next_move:
                    next_move = self.clock.monotonic() + MOVE_SECONDS
                    job = self._move(job, comfyui, prompt)
                    if job.state is JobState.ADMITTED:
                        return Awaited(AwaitStatus.LOST, job, moved=True)
                head = head.seen(prompt, self.clock.now())
                awaited = self._conclude(job, prompt, head)
                if awaited is not None:
                    return self._keep_head(awaited, head)
                if prompt.copies > 1:
                    comfyui.drop_copies(job.prompt_id)
            self._check_deadline(job, comfyui)
            if self.clock.monotonic() - held_since >= HOLD_LIMIT_SECONDS:
                awaited = (
                    Awaited(AwaitStatus.RUNNING, job, progress=watch.progress)
                    if job.seen_running
                    else Awaited(AwaitStatus.PENDING, job, wait_seconds=1)
                )
                return self._keep_head(awaited, head)
            watch.wait(self.poll_seconds)
            job, noted_at = self._note_progress(job, watch.progress, noted_at)

    def _note_progress(
        self, job: Job, progress: Progress | None, noted_at: float
    ) -> tuple[Job, float]:
        """The job with its progress, and when that was last looked at, if it is time to."""
        now = self.clock.monotonic()
        if now - noted_at < PROGRESS_SECONDS:
            return job, noted_at
        if job.seen_running and progress is not None and progress != job.progress:
            job = job.report_progress(progress)
            self.jobs.save(job)
        return job, now

    def _find(self, job: Job, comfyui: ComfyUI) -> Prompt:
        prompt = comfyui.find(job.prompt_id)
        for pause in LOST_CHECK_SECONDS:
            if prompt.state is not PromptState.UNKNOWN:
                break
            self.clock.sleep(pause)
            prompt = comfyui.find(job.prompt_id)
        return prompt

    def _note_running(self, job: Job, prompt: Prompt) -> Job:
        if prompt.state is PromptState.RUNNING and not job.seen_running:
            job = job.see_running()
            self.jobs.save(job)
        return job

    def _moves_waiting(self, job: Job) -> bool:
        return self.fleets[job.fleet].make_policy().moves_waiting

    def _move(self, job: Job, comfyui: ComfyUI, prompt: Prompt) -> Job:
        """Give a waiting prompt's job a place where fewer are before it, if there is one.

        The slot there comes first, then the prompt leaves its queue, then the job has its place.
        """
        if prompt.state is not PromptState.PENDING:
            return job
        place = find_shorter_queue(
            self.store.list_instances(job.fleet),
            slots=self.fleets[job.fleet].slots_per_instance,
            ahead=prompt.position,
            avoid=(job.instance, *job.lost_on),
        )
        # One more than it has: of many that see the same place, one gets it.
        if place is None or not self.store.take_slot(
            job.fleet, place.key, job.job_id, slots=len(place.jobs) + 1, at=self.clock.now()
        ):
            return job
        has_left = False
        try:
            moving = job.begin_move()
            self.jobs.save(moving)
            has_left = comfyui.withdraw(job.prompt_id)
            if has_left:
                after = moving.move(
                    instance=place.key, instance_id=place.instance_id, address=place.address
                )
            else:
                after = moving.end_move()
            self.jobs.save(after)
        finally:
            left = job.instance if has_left else place.key
            self.store.release_slot(job.fleet, left, job.job_id)
        return after

    def _keep_head(self, awaited: Awaited, head: "_QueueHead") -> Awaited:
        """Write down for the next call how long the head of the queue has been the same."""
        job = awaited.job
        is_over = awaited.status not in (AwaitStatus.PENDING, AwaitStatus.RUNNING)
        if is_over or head.since is None or head.since == job.queue_head_since:
            return awaited
        job = job.see_queue_head(head.prompt_id, at=head.since)
        self.jobs.save(job)
        return replace(awaited, job=job)

    def _conclude(self, job: Job, prompt: Prompt, head: "_QueueHead") -> Awaited | None:
        """What a look means for the job; None to look again."""
        if prompt.state is PromptState.SUCCEEDED:
            job = job.list_outputs(list_output_files(prompt.outputs))
            self.jobs.save(job)
            return Awaited(AwaitStatus.SUCCEEDED, job)
        if prompt.failure is not None and prompt.failure.is_instance_fault:
            job = job.break_on_instance(prompt.failure.sentence)
            self.jobs.save(job)
            return Awaited(AwaitStatus.LOST, job)
        if prompt.state is PromptState.FAILED:
            raise PromptFailedError(
                prompt.failure.sentence
                if prompt.failure is not None
                else "The prompt failed without a reason."
            )
        if prompt.state is PromptState.INTERRUPTED:
            raise PromptFailedError("The prompt was interrupted.")
        if prompt.state is PromptState.UNKNOWN:
            return Awaited(AwaitStatus.LOST, job)
        stall = self._find_stall(job, prompt, head)
        if stall is not None:
            return Awaited(AwaitStatus.LOST, job, stall=stall)
        if prompt.state is PromptState.PENDING:
            since = job.submitted_at or self.clock.now()
            wait_seconds = seconds_until_look(
                prompt.position,
                expected_seconds=job.expected_seconds,
                waited_seconds=(self.clock.now() - since).total_seconds(),
                longest_seconds=MOVE_SECONDS if self._moves_waiting(job) else LONGEST_WAIT,
            )
            if wait_seconds:
                return Awaited(AwaitStatus.PENDING, job, wait_seconds)
        return None

    def _find_stall(self, job: Job, prompt: Prompt, head: "_QueueHead") -> Stall | None:
        now = self.clock.now()
        since = head.since or now
        limits = self.stall_limits
        if prompt.state is PromptState.RUNNING and job.attempt_seconds:
            # What it waits for before that may be of a workflow that takes longer.
            limits = replace(limits, running=job.attempt_seconds)
        return find_stall(prompt, unchanged_seconds=(now - since).total_seconds(), limits=limits)

    def _check_deadline(self, job: Job, comfyui: ComfyUI) -> None:
        try:
            job.check_deadline(self.clock.now())
        except DeadlineExceededError:
            self._cancel(job, comfyui, seconds=CANCEL_SECONDS)
            raise

    def _cancel(self, job: Job, comfyui: ComfyUI, *, seconds: float) -> None:
        # If it cannot be done, what is already known of the job stays as true.
        with suppress(InstanceError):
            comfyui.cancel(job.prompt_id, seconds=seconds)


@dataclass(frozen=True)
class _QueueHead:
    """What runs on the instance, while our prompt is in its queue, and since when."""

    prompt_id: str
    since: datetime | None

    def seen(self, prompt: Prompt, at: datetime) -> "_QueueHead":
        if not prompt.is_queued or (self.since is not None and self.prompt_id == prompt.head):
            return self
        return _QueueHead(prompt.head, at)
