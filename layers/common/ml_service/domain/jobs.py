"""A job's life: its record, and every step from one state to the next.

QUEUED -> ADMITTED -> SUBMITTED -> SUCCEEDED
             ^            |
             +-- lost ----+        any of the three -> FAILED, CANCELLED or EXPIRED

FAILED, CANCELLED or EXPIRED -> QUEUED if an operator redrives the job: its next run begins. Each
run ends in exactly one final state and has one final answer, with an id of its own.

Each state has a time at which somebody must look at the job if nothing has happened: its due time.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from ml_service.domain.errors import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    JobClosedError,
    OutputUploadError,
    RedriveRefusedError,
)
from ml_service.domain.hand_offs import HandOff, HandOffState
from ml_service.domain.inputs import JobInputs
from ml_service.domain.manifests import Conversion
from ml_service.domain.prompts import Progress
from ml_service.domain.results import OutputFile

MAX_GUILTY_LOSSES = 2
"""A job that was running each time its instance was lost may be what kills instances."""
MAX_ATTEMPTS = 8
"""Two guilty losses and six innocent ones: then the fleet, not the job, is at fault."""
RECORD_LIFETIME = timedelta(days=90)
"""As long as Step Functions remembers an execution's name."""
REDRIVE_PATIENCE = timedelta(hours=24)
"""Queue deadline of a redriven job: an operator has decided that its first one no longer counts."""

START_GRACE = timedelta(minutes=1)
"""An admitted job's execution submits its prompt sooner than this, or waits for a slot."""
CLOSE_GRACE = timedelta(minutes=5)
"""Beyond its run deadline an execution that lives has closed its job itself."""
PUBLISH_GRACE = timedelta(minutes=2)
"""A closed job's reply is out and its video handed on by then, or who closed it has died."""
CANCEL_GRACE = timedelta(minutes=1)
"""A closed job's prompt is cancelled again then: it may have been posted after the first time."""


class JobState(StrEnum):
    """Where a job stands; the last four are final, and a run ends in exactly one of them."""

    QUEUED = "QUEUED"
    ADMITTED = "ADMITTED"
    SUBMITTED = "SUBMITTED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def is_final(self) -> bool:
        """Whether the job's present run has had its one final answer."""
        return self in _FINAL_STATES


_FINAL_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
)
_REDRIVABLE_STATES = _FINAL_STATES - {JobState.SUCCEEDED}


class Failure(BaseModel):
    """Why a job has no result."""

    model_config = ConfigDict(frozen=True)

    code: str
    """Stable, for metrics and searches."""
    sentence: str
    """For a person; the backend gets it."""


class AbandonedPrompt(BaseModel):
    """A prompt that nobody waits for any more, and that may still be in its instance's queue."""

    model_config = ConfigDict(frozen=True)

    instance: str
    """The instance's key."""
    address: str
    prompt_id: str


class KeptOutputs(BaseModel):
    """What the last run made and could not store: it may still lie on its instance."""

    model_config = ConfigDict(frozen=True)

    instance: str
    """The instance's key."""
    instance_id: str
    address: str
    prompt_id: str
    outputs: tuple[OutputFile, ...]


class Job(BaseModel):
    """The record of one message of the backend; each change is a new, higher version."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    version: int = 1
    state: JobState
    subject: str
    partial_name: str
    fingerprint: str
    """Tells a repeat of the same message from another message under the same id."""
    request_digest: str = ""
    """The same for the whole body of a request to the API; empty for a message of the queue."""
    received_at: datetime
    deadline: datetime | None = None
    """When it is too late for a result; None in records of messages that were refused."""
    expires_at: int
    """Epoch seconds after which DynamoDB may delete the record."""

    workflow: str = ""
    """Empty if the message was refused before it was classified."""
    fleet: str = ""
    inputs: JobInputs | None = None
    seed: int = 0
    conversion: Conversion | None = None
    """How its pictures are stored; None as the graph saves them."""
    hand_off: HandOff | None = None
    """What is to be done with its video once it has one."""
    run_seconds: int = 0
    attempt_seconds: int = 0
    """How long one prompt may run; 0 in records of earlier versions."""
    expected_seconds: float = 0

    run: int = 1
    """The execution that it is in or waits for: 1, and one more per redrive."""
    attempt: int = 0
    """Placements so far, in all runs; each has a prompt id of its own."""
    earlier_attempts: int = 0
    """Those of earlier runs, which do not count against this one."""
    guilty_losses: int = 0
    seen_running: bool = False
    """Whether the present attempt's prompt has been seen running."""
    moving: bool = False
    """Whether the waiting prompt is being taken out of its queue, to go to a shorter one."""
    progress: Progress | None = None
    """What its instance last told of the running prompt."""
    queue_head: str = ""
    """Id of the prompt that was last seen running on the instance; empty if none was."""
    queue_head_since: datetime | None = None
    """When it was first seen to be that one."""
    instance: str = ""
    """Key of the instance on which the job has a slot."""
    instance_id: str = ""
    address: str = ""
    """The instance's private IPv4 address."""
    admitted_at: datetime | None = None
    submitted_at: datetime | None = None
    run_deadline: datetime | None = None
    prompt_id: str = ""
    outputs: tuple[OutputFile, ...] = ()
    """The files that the prompt saved on its instance."""
    result_keys: tuple[str, ...] = ()
    """The same files in the result bucket."""
    kept: KeptOutputs | None = None
    """Files that this run only has to collect; None once it has begun to, or must make them."""
    lost_on: tuple[str, ...] = ()
    """Keys of the instances that lost or broke a prompt of this job: others are tried first."""
    fault: str = ""
    """What the last of them did, in a sentence."""
    abandoned: tuple[AbandonedPrompt, ...] = ()
    """Prompts to be cancelled: of attempts that were lost, or of a job that was closed early."""

    closed_at: datetime | None = None
    failure: Failure | None = None
    reply: str = ""
    """The one final answer, written together with the final state and published afterwards."""
    published_at: datetime | None = None

    @property
    def turn(self) -> str:
        """Its turn among the jobs in the order of receipt."""
        return make_turn(self.received_at, self.job_id)

    @property
    def due_at(self) -> datetime | None:
        """When the sweep must look at the job; None once there is nothing left to be done."""
        match self.state:
            case JobState.QUEUED:
                return self.deadline
            case JobState.ADMITTED:
                return _after(self.admitted_at, START_GRACE)
            case JobState.SUBMITTED:
                return _after(self.run_deadline, CLOSE_GRACE)
        if self.published_at is None or self.needs_hand_off:
            return _after(self.closed_at, PUBLISH_GRACE)
        return _after(self.closed_at, CANCEL_GRACE) if self.abandoned else None

    @property
    def late_after(self) -> datetime | None:
        """When it is to be closed, and then answered, at the latest; None once it is."""
        if self.state.is_final:
            return None if self.published_at else _after(self.closed_at, PUBLISH_GRACE)
        return _after(self.run_deadline, CLOSE_GRACE) or self.deadline

    @property
    def needs_hand_off(self) -> bool:
        """Whether the job has a video that was not handed on yet."""
        return (
            self.state is JobState.SUCCEEDED
            and self.hand_off is not None
            and self.hand_off.state is HandOffState.WAITING
        )

    def admit(self, *, instance: str, instance_id: str, address: str, at: datetime) -> "Job":
        """The job has a slot and gets its run's execution."""
        self._require(JobState.QUEUED)
        run_deadline = at + timedelta(seconds=self.run_seconds)
        return self._next(
            state=JobState.ADMITTED,
            attempt=self.attempt + 1,
            instance=instance,
            instance_id=instance_id,
            address=address,
            admitted_at=at,
            run_deadline=min(run_deadline, self.deadline or run_deadline),
        )

    def lose(self) -> "Job":
        """The submitted prompt is gone with its instance's memory; the job needs a new slot.

        Only a prompt that was running spends guilt. Raises AttemptsExhaustedError.
        """
        self._require(JobState.SUBMITTED)
        guilty_losses = self.guilty_losses + (1 if self.seen_running else 0)
        if guilty_losses >= MAX_GUILTY_LOSSES:
            raise AttemptsExhaustedError(
                " ".join(filter(None, [f"The job ran {guilty_losses} times in vain.", self.fault]))
            )
        return self._next(
            state=JobState.ADMITTED,
            guilty_losses=guilty_losses,
            lost_on=(*self.lost_on, self.instance),
            abandoned=self._abandon(),
            **_NO_PLACE,
        )

    def begin_move(self) -> "Job":
        """The waiting prompt is about to leave its queue: from here on its absence is no loss."""
        self._require(JobState.SUBMITTED)
        return self._next(moving=True)

    def end_move(self) -> "Job":
        """The prompt was not taken out: it runs."""
        self._require(JobState.SUBMITTED)
        return self._next(moving=False)

    def move(self, *, instance: str, instance_id: str, address: str) -> "Job":
        """The prompt is out of its queue, and the job has a slot in a shorter one.

        The attempt before does not count.
        """
        self._require(JobState.SUBMITTED)
        place = {"instance": instance, "instance_id": instance_id, "address": address}
        return self._next(
            state=JobState.ADMITTED,
            attempt=self.attempt + 1,
            earlier_attempts=self.earlier_attempts + 1,
            **{**_NO_PLACE, **place},
        )

    def displace(self) -> "Job":
        """A prompt that was to be moved may be gone from its queue, and nobody has lost it.

        It may also be there still. Its attempt does not count.
        """
        self._require(JobState.SUBMITTED)
        return self._next(
            state=JobState.ADMITTED,
            earlier_attempts=self.earlier_attempts + 1,
            abandoned=self._abandon(),
            **_NO_PLACE,
        )

    def leave_instance(self) -> "Job":
        """The job gives up its slot before anything was submitted there."""
        self._require(JobState.ADMITTED)
        return self._next(**_NO_PLACE)

    def place(self, *, instance: str, instance_id: str, address: str) -> "Job":
        """The job has a slot on another instance. Raises AttemptsExhaustedError."""
        self._require(JobState.ADMITTED)
        attempts = self.attempt - self.earlier_attempts
        if attempts >= MAX_ATTEMPTS:
            raise AttemptsExhaustedError(f"The job lost its instance {attempts} times.")
        return self._next(
            attempt=self.attempt + 1, instance=instance, instance_id=instance_id, address=address
        )

    def submit(self, *, prompt_id: str, at: datetime) -> "Job":
        """The prompt is about to be posted: from here on it may exist."""
        self._require(JobState.ADMITTED)
        return self._next(
            state=JobState.SUBMITTED, prompt_id=prompt_id, submitted_at=at, seen_running=False
        )

    def see_running(self) -> "Job":
        """The prompt was seen running."""
        self._require(JobState.SUBMITTED)
        return self._next(seen_running=True, moving=False)

    def report_progress(self, progress: Progress) -> "Job":
        """The running prompt has come further."""
        self._require(JobState.SUBMITTED)
        return self._next(progress=progress)

    def break_on_instance(self, fault: str) -> "Job":
        """The prompt ran and failed through a fault of its instance, told in a sentence."""
        self._require(JobState.SUBMITTED)
        return self._next(seen_running=True, moving=False, fault=fault)

    def see_queue_head(self, prompt_id: str, *, at: datetime) -> "Job":
        """Another prompt than before, or none, was seen running on the instance."""
        self._require(JobState.SUBMITTED)
        return self._next(queue_head=prompt_id, queue_head_since=at)

    def list_outputs(self, outputs: tuple[OutputFile, ...]) -> "Job":
        """The prompt has succeeded and its files are known."""
        self._require(JobState.SUBMITTED)
        return self._next(outputs=outputs)

    def take_up_outputs(self, at: datetime) -> "Job":
        """Go on where the last run ended: its prompt has succeeded, its files are known."""
        self._require(JobState.ADMITTED)
        if self.kept is None:
            raise ValueError("there are no outputs to take up")
        place = {name: getattr(self.kept, name) for name in KeptOutputs.model_fields}
        return self._next(state=JobState.SUBMITTED, submitted_at=at, kept=None, **place)

    def collect(self, result_keys: tuple[str, ...]) -> "Job":
        """The files are in the result bucket."""
        self._require(JobState.SUBMITTED)
        return self._next(result_keys=result_keys)

    def close(
        self, state: JobState, *, reply: str, at: datetime, failure: Failure | None = None
    ) -> "Job":
        """The one step into a final state, with the reply that goes with it."""
        if not state.is_final:
            raise ValueError(f"{state} is not final")
        self._require(JobState.QUEUED, JobState.ADMITTED, JobState.SUBMITTED)
        return self._next(
            state=state, reply=reply, closed_at=at, failure=failure, abandoned=self._abandon()
        )

    def mark_published(self, at: datetime) -> "Job":
        """The stored reply has gone out."""
        self._require(*_FINAL_STATES)
        return self._next(published_at=at)

    def end_hand_off(self, state: HandOffState) -> "Job":
        """The video was handed on, or will never be."""
        self._require(JobState.SUCCEEDED)
        if self.hand_off is None:
            raise ValueError("there is no hand-off to end")
        return self._next(hand_off=self.hand_off.model_copy(update={"state": state}))

    def redrive(self, at: datetime) -> "Job":
        """An operator lets the job run again from its start, or wait anew if it still waits.

        Raises RedriveRefusedError: while it runs, once it has succeeded, if it never was a job, and
        before its last answer is out, which would be lost or come after the next one.
        """
        fresh = {
            "deadline": at + REDRIVE_PATIENCE,
            "expires_at": int((at + RECORD_LIFETIME).timestamp()),
        }
        if self.state is JobState.QUEUED:
            return self._next(**fresh)
        if self.state not in _REDRIVABLE_STATES:
            raise RedriveRefusedError(f"The job is {self.state}.")
        if self.inputs is None:
            raise RedriveRefusedError("The message was refused, so there is no job to run.")
        if self.published_at is None:
            raise RedriveRefusedError("The job's last answer is not out yet.")
        return self._next(
            state=JobState.QUEUED,
            run=self.run + 1,
            kept=self._keep_outputs(),
            earlier_attempts=self.attempt,
            guilty_losses=0,
            lost_on=(),
            fault="",
            admitted_at=None,
            run_deadline=None,
            result_keys=(),
            closed_at=None,
            failure=None,
            reply="",
            published_at=None,
            **fresh,
            **_NO_PLACE,
        )

    def drop_abandoned(self, prompt_ids: Collection[str]) -> "Job":
        """These prompts are in no queue any more."""
        left = tuple(prompt for prompt in self.abandoned if prompt.prompt_id not in prompt_ids)
        return self._next(abandoned=left)

    def check_deadline(self, now: datetime) -> None:
        """Raise DeadlineExceededError once it is too late for the job's result."""
        if self.run_deadline is not None and now >= self.run_deadline:
            raise DeadlineExceededError("The job did not end in time.")

    def require_open(self) -> None:
        """Raise JobClosedError if the job has had its final answer."""
        if self.state.is_final:
            raise JobClosedError(f"The job is {self.state} already.")

    def _keep_outputs(self) -> KeptOutputs | None:
        if self.failure is None or self.failure.code != OutputUploadError.code:
            return None
        return KeptOutputs(**{name: getattr(self, name) for name in KeptOutputs.model_fields})

    def _abandon(self) -> tuple[AbandonedPrompt, ...]:
        if self.state is not JobState.SUBMITTED or self.outputs:
            return self.abandoned
        prompt = AbandonedPrompt(
            instance=self.instance, address=self.address, prompt_id=self.prompt_id
        )
        return (*self.abandoned, prompt)

    def _require(self, *states: JobState) -> None:
        if self.state in states:
            return
        self.require_open()
        raise JobClosedError(f"The job is {self.state}, which does not allow this step.")

    def _next(self, **changes: object) -> "Job":
        return self.model_copy(update={"version": self.version + 1, **changes})


_NO_PLACE: Mapping[str, object] = {
    "instance": "",
    "instance_id": "",
    "address": "",
    "prompt_id": "",
    "submitted_at": None,
    "seen_running": False,
    "moving": False,
    "progress": None,
    "queue_head": "",
    "queue_head_since": None,
    "outputs": (),
}


def _after(moment: datetime | None, grace: timedelta) -> datetime | None:
    return None if moment is None else moment + grace


@dataclass(frozen=True)
class JobSummary:
    """A job in a list of many, as the index of jobs by fleet and state knows it."""

    job_id: str
    state: JobState
    workflow: str
    fleet: str
    received_at: datetime
    closed_at: datetime | None = None

    @property
    def turn(self) -> str:
        """As the job's own."""
        return make_turn(self.received_at, self.job_id)


def make_turn(received_at: datetime, job_id: str) -> str:
    """A text that orders jobs by their receipt, and those of one millisecond by their ids."""
    return f"{round(received_at.timestamp() * 1000):015d}#{job_id}"


def make_refused_id(sqs_message_id: str) -> str:
    """The record id of a message that was refused: its own id may be wrong, or taken."""
    return f"refused-{sqs_message_id}"


def make_fingerprint(subject: str, payload: Mapping[str, object]) -> str:
    """A digest that is equal for messages that ask for the same thing."""
    text = json.dumps([subject, payload], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
