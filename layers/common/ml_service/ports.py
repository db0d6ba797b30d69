"""What the services need of the world, named by role; the adapters keep these promises."""

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol

from ml_service.domain.fleets import Group, GroupMember, Instance
from ml_service.domain.inputs import MediaSource
from ml_service.domain.jobs import Job, JobState, JobSummary
from ml_service.domain.manifests import Conversion
from ml_service.domain.prompts import Progress, Prompt
from ml_service.domain.results import OutputFile
from ml_service.domain.scaling import ScalerState, ScalingDecision
from ml_service.domain.stage_counts import OpenJob

REFUSAL_CODE_ATTRIBUTE = "RefusalCode"
REFUSAL_REASON_ATTRIBUTE = "RefusalReason"
"""Message attributes of a message that was refused: the stable code, and a sentence."""


class Clock(Protocol):
    """The time; local mode lets it run faster."""

    def now(self) -> datetime:
        """The present time in UTC."""

    def monotonic(self) -> float:
        """Seconds that only grow and never run faster, to measure real waiting with."""

    def sleep(self, seconds: float) -> None:
        """Wait for so many real seconds."""

    def wait(self, seconds: float) -> None:
        """Wait for so many seconds of the time that ``now`` tells."""


@dataclass(frozen=True)
class QueuedMessage:
    """A message as its queue hands it over."""

    message_id: str
    body: str
    receipt: str = ""
    attributes: Mapping[str, Mapping[str, object]] | None = None
    """The sender's message attributes in SQS's own form, to be passed on unchanged."""


@dataclass(frozen=True)
class MediaStream:
    """A file that is read while it comes."""

    content: BinaryIO
    size: int
    """In bytes."""


class JobQueue(Protocol):
    """A queue of jobs that wait."""

    def send(self, messages: Sequence[QueuedMessage]) -> Sequence[str]:
        """Put messages into the queue, in batches; returns the ids of those it did not take."""

    def receive(self, limit: int) -> Sequence[QueuedMessage]:
        """Take up to ``limit`` messages; they are hidden until deleted, returned or timed out."""

    def delete(self, receipts: Sequence[str]) -> None:
        """These messages, at most 10, are done with; one that stays is received again."""

    def put_back(self, message: QueuedMessage) -> None:
        """Let a received message wait on, as if it had never been received."""

    def count_waiting(self) -> int:
        """About how many messages wait; those that were received do not count."""


@dataclass(frozen=True)
class DeadLetter:
    """A message in a dead-letter queue."""

    message: QueuedMessage
    sent_at: datetime
    """When the queue that gave it up, or the dead-letter queue itself, was sent it."""
    fleet: str = ""
    """Whose task queue gave it up; empty for the input queue."""


class DeadLetterQueue(Protocol):
    """Where messages lie that a queue gave up, until an operator decides."""

    def count_hidden(self) -> int:
        """Messages that somebody else holds at present, about."""

    def hold(self) -> Sequence[DeadLetter]:
        """Up to 10 messages, hidden from others for two minutes; none when all are held."""

    def release(self, receipts: Sequence[str]) -> None:
        """Let held messages be received again, at once; at most 10."""

    def delete(self, receipt: str) -> None:
        """A held message is done with."""


class RefusedMessages(Protocol):
    """Where a message ends that is wrong and whose sender cannot be answered."""

    def keep(self, body: str, *, code: str, sentence: str) -> None:
        """Store the message with the reason it was refused for."""


class JobStore(Protocol):
    """The job records; every write is conditional, so two writers never undo each other."""

    def add(self, job: Job) -> bool:
        """Store a new record; False if its job id is taken."""

    def get(self, job_id: str) -> Job:
        """The present record, read consistently; raises JobNotFoundError."""

    def save(self, job: Job) -> None:
        """Replace the version before this one; raises JobChangedError if it is not the last."""

    def list_due(self, now: datetime, *, limit: int) -> Sequence[str]:
        """Ids of jobs whose due time has come, the longest due first; may lag a little behind."""

    def list_open(self) -> Sequence[OpenJob]:
        """Every job with something left to be done; may lag a little behind."""

    def list_latest(
        self, fleet: str, state: JobState, *, before: str = "", limit: int
    ) -> Sequence[JobSummary]:
        """Jobs of a fleet in one state, the latest first: those before the turn ``before``, or all.

        May lag a little behind the records.
        """

    def count_earlier(self, job: Job) -> int:
        """Jobs of the same fleet and state that were received before; may lag a little behind."""


class FleetStore(Protocol):
    """The fleet table: instances with their slots, and what the scaler remembers."""

    def list_instances(self, fleet: str) -> Sequence[Instance]:
        """Every known instance of a fleet, read consistently."""

    def put_instance(
        self, fleet: str, member: GroupMember, *, reading: int | None, at: datetime
    ) -> None:
        """Store what was seen of an instance; its slots and flags stay as they are.

        ``at`` is when the look began: what was seen later is not overwritten.
        """

    def remove_instance(self, fleet: str, key: str) -> None:
        """Forget an instance that has left its group."""

    def take_slot(self, fleet: str, key: str, job_id: str, *, slots: int, at: datetime) -> bool:
        """Give a job one of an instance's ``slots``; True also if it has one there already."""

    def release_slot(self, fleet: str, key: str, job_id: str, *, worked: bool = False) -> None:
        """Take a job's slot back; no effect if it has none there.

        ``worked``: the instance did what it should, so its faults before count no more.
        """

    def wait_for_slot(self, fleet: str, job_id: str) -> None:
        """Note an admitted job that has lost its place and found no other."""

    def stop_waiting(self, fleet: str, job_id: str) -> None:
        """Such a job waits no more; no effect if it did not."""

    def list_waiting(self, fleet: str) -> Set[str]:
        """Ids of the admitted jobs that wait for a slot, read consistently."""

    def record_fault(self, fleet: str, key: str, at: datetime) -> bool:
        """Count a prompt that the instance lost or broke; True if that puts it in quarantine."""

    def lift_quarantine(self, fleet: str, key: str) -> None:
        """Let an instance have jobs again; its next fault puts it back."""

    def record_reading(self, fleet: str, key: str, reading: int | None, at: datetime) -> None:
        """Store what an instance said of its queue, None if it did not answer; newest wins."""

    def begin_admission(self, fleet: str, *, at: datetime) -> bool:
        """Become the one that admits jobs of a fleet.

        False if somebody else is at it: he is told to look once more before he ends.
        """

    def end_admission(self, fleet: str) -> bool:
        """Stop being the one that admits; False if there is a reason to look once more first."""

    def start_draining(self, fleet: str, key: str) -> bool:
        """Give an instance no more jobs; False if it has one, or takes none already."""

    def stop_draining(self, fleet: str, key: str) -> None:
        """Let an instance take jobs again; no effect if it is not known."""

    def record_stall(self, fleet: str, key: str, at: datetime) -> None:
        """Note that the instance's queue has stalled; a prompt that succeeds there undoes it."""

    def begin_warm_up(self, fleet: str, key: str, *, at: datetime) -> bool:
        """Become the one that has an instance warmed up; False if it is warm or somebody did."""

    def end_warm_up(self, fleet: str, key: str, *, at: datetime, fault: str = "") -> None:
        """The instance may take jobs; ``fault`` says what was wrong with its warm-up."""

    def abandon_warm_up(self, fleet: str, key: str, *, fault: str = "") -> None:
        """Let another try begin; a ``fault`` of the instance's own is counted."""

    def load_scaler(self, fleet: str) -> ScalerState:
        """What the scaler remembers; a new fleet's memory is empty."""

    def save_scaler(self, fleet: str, state: ScalerState, *, last_tick: datetime | None) -> bool:
        """Store the scaler's memory; False if another tick than ``last_tick`` was stored last."""

    def add_decision(self, fleet: str, decision: ScalingDecision, *, outcome: str) -> None:
        """Keep a decision with its inputs and what became of it, for 30 days."""


class InstancePool(Protocol):
    """The Auto Scaling groups."""

    def describe(self, group_name: str) -> Group:
        """The group as it is now."""

    def set_desired(self, group_name: str, desired: int) -> None:
        """Ask for a desired capacity; raises ScalingRefusedError if it is not accepted."""

    def is_refreshing(self, group_name: str) -> bool:
        """Whether Auto Scaling is replacing the group's instances one after the other."""

    def report_unhealthy(self, instance_id: str) -> None:
        """Have an instance replaced, whatever runs on it; no effect if it is gone."""

    def set_protection(
        self, group_name: str, instance_ids: Sequence[str], *, is_protected: bool
    ) -> None:
        """Keep instances from scale-in, or no longer; raises ScalingRefusedError."""


class InstanceProbe(Protocol):
    """Asks instances how many prompts they have."""

    def count_prompts(self, addresses: Sequence[str]) -> Mapping[str, int | None]:
        """Prompts pending and running by address; None for an instance that did not answer."""


class InstanceWarmer(Protocol):
    """Warms instances up that were launched."""

    def warm_up(self, fleet: str, key: str) -> None:
        """Ask for an instance's warm-up, once it was begun in the fleet table.

        It may be lost: then another one may begin later.
        """


class PromptWatch(Protocol):
    """Waits for news of one prompt. News is only a hint; ``ComfyUI.find`` says the truth."""

    @property
    def progress(self) -> Progress | None:
        """What was last heard of the running prompt, None if nothing was."""

    def wait(self, seconds: float) -> None:
        """Return when something happened, at the latest after so many seconds."""


class ComfyUI(Protocol):
    """One instance's ComfyUI. Every call may raise InstanceError; none affects other prompts."""

    def count_prompts(self) -> int:
        """Prompts pending and running, all stages' together."""

    def upload(self, name: str, content: MediaStream) -> str:
        """Upload an input file; returns the name under which a graph finds it.

        Raises InputTooLargeError.
        """

    def submit(self, prompt_id: str, graph: Mapping[str, object]) -> None:
        """Queue a prompt under its own id, once, however often this is called.

        Raises PromptRefusedError if it is invalid as a whole or in part; then nothing of it runs.
        """

    def find(self, prompt_id: str) -> Prompt:
        """Where a prompt stands: /queue first, then /history, so that none slips between."""

    def drop_copies(self, prompt_id: str) -> None:
        """If the prompt is queued more than once, leave one; a running one stays."""

    def watch(self, prompt_id: str) -> AbstractContextManager[PromptWatch]:
        """Wait for news of a prompt; never raises, since without news there is still waiting."""

    def open_output(self, file: OutputFile) -> AbstractContextManager[BinaryIO]:
        """Stream an output file; raises OutputMissingError if it is not there."""

    def cancel(self, prompt_id: str, *, seconds: float) -> bool:
        """Drop this prompt if it waits, interrupt it if it runs, until it is neither.

        False if it still is queued after so many seconds: a node that hangs cannot be interrupted.
        """

    def withdraw(self, prompt_id: str) -> bool:
        """Take a waiting prompt out of the queue; False if it runs or has ended, and so stays."""

    def forget(self, prompt_id: str) -> None:
        """Delete an ended prompt from the history."""


class ComfyUIConnector(Protocol):
    """Gives the ComfyUI of an instance."""

    def connect(self, address: str) -> ComfyUI:
        """The ComfyUI on a private address; no call is made yet."""


class MediaStore(Protocol):
    """The S3 objects that jobs read and write."""

    def open_input(self, source: MediaSource) -> AbstractContextManager[MediaStream]:
        """Stream an input. Raises InputNotFoundError, InputForbiddenError."""

    def put_result(self, key: str, content: BinaryIO, *, content_type: str) -> None:
        """Store a result; raises OutputTooLargeError, OutputUploadError."""

    def copy_result(self, key: str, *, to_bucket: str, to_key: str) -> None:
        """Copy a stored result into another bucket; raises HandOffFailedError."""


class ResultStore(Protocol):
    """The results in their bucket, for those who ask for them."""

    def sign(self, key: str, *, lifetime: timedelta) -> str:
        """A URL that gives the file to whoever has it, for so long; the file need not exist."""

    def open_result(self, key: str) -> AbstractContextManager[MediaStream]:
        """Stream a result; raises OutputMissingError."""

    def list_keys(self, prefix: str) -> Sequence[str]:
        """Keys of the results whose keys begin so, the newest first."""


class ConversionQueues(Protocol):
    """The queues of those who convert finished videos further."""

    def send(self, queue_arn: str, messages: Sequence[str]) -> None:
        """Send messages, each at least once; raises HandOffFailedError."""


class ImageConverter(Protocol):
    """Changes the format of pictures."""

    def convert(
        self, content: BinaryIO, conversion: Conversion
    ) -> AbstractContextManager[BinaryIO]:
        """A picture in another format. Raises OutputInvalidError, OutputTooLargeError."""


class ReplyTopic(Protocol):
    """The topic on which the backend waits."""

    def publish(self, reply: str) -> None:
        """Send one reply."""


class JobRunner(Protocol):
    """Starts executions of the state machine."""

    def start(self, job_id: str, run: int) -> bool:
        """Start a job's run; a repeat while it runs has no effect. False if it has ended.

        Raises ExecutionsThrottledError.
        """

    def is_running(self, job_id: str, run: int) -> bool:
        """Whether the execution of a job's run was started and has not ended."""


class JobStopper(Protocol):
    """Gives up jobs that need no run any more."""

    def stop(self, job_id: str, run: int) -> None:
        """Close a job's run as an operator's decision, with its answer, unless it is closed."""


class Admission(Protocol):
    """Tells admission that a fleet may have room or work."""

    def kick(self, fleet: str) -> None:
        """Ask for admission soon; it may be lost, the minute tick comes anyway."""


class PromptCanceller(Protocol):
    """Reaches the instances of prompts that nobody waits for."""

    def cancel_abandoned(self, job_id: str) -> None:
        """Ask for the end of a job's abandoned prompts; if it is lost, the sweep asks again."""
