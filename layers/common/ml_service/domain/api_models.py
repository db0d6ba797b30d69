"""What the jobs API takes and answers, as OpenAPI describes it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ml_service.domain.jobs import Failure, JobState
from ml_service.domain.manifests import MAX_SEED, Input, OutputRole
from ml_service.domain.messages import JOB_ID_PATTERN, MAX_DEADLINE_SECONDS


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class _Request(_Frozen):
    model_config = ConfigDict(extra="forbid")

    job_id: Annotated[str, Field(pattern=JOB_ID_PATTERN)] | None = None
    """Left out, the service makes one. A repeat of the same request under it is the same job."""
    deadline_seconds: Annotated[int, Field(ge=1, le=MAX_DEADLINE_SECONDS, strict=True)] | None = (
        None
    )
    """A job without a result so long after its receipt has expired."""


class WorkflowRequest(_Request):
    """A job that names its workflow; GET /workflows tells its inputs."""

    workflow: str
    inputs: Mapping[str, object] = Field(default_factory=dict)
    """By name; a file as {"bucket": ..., "key": ...}. ``seed`` fixes the random numbers."""


class PromptRequest(_Request):
    """A picture from two texts."""

    positive_prompt: str
    negative_prompt: str | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)] | None = None
    prompt_file: str | None = None
    """One of the names that some workflow goes by."""


class Problem(_Frozen):
    """Why a request was not fulfilled."""

    code: str
    """Stable, for programs."""
    message: str
    """One sentence that says what to do."""


class AcceptedJob(_Frozen):
    """A job that was accepted, now or by an earlier request with the same key."""

    job_id: str
    status: JobState


class JobLine(_Frozen):
    """A job in the list."""

    job_id: str
    status: JobState
    workflow: str
    fleet: str
    received_at: datetime
    closed_at: datetime | None


class JobPage(_Frozen):
    """A part of the list of jobs, the latest first."""

    jobs: tuple[JobLine, ...]
    cursor: str | None
    """Asks for the next part; null at the end."""


class JobOutput(_Frozen):
    """A file of a job's result."""

    role: OutputRole | None
    """What it is to the backend; null if it is none of that."""
    name: str
    content_type: str
    url: str
    """Gives the file to anybody who has it, until ``expires_at``."""
    expires_at: datetime


class JobEvent(_Frozen):
    """A step in a job's life."""

    status: JobState
    at: datetime


class JobView(_Frozen):
    """A job as it stands now."""

    job_id: str
    status: JobState
    workflow: str
    fleet: str
    """Both are empty for a message that was refused."""
    progress: float | None
    """Share of the prompt that is done, from 0 to 1; null while nothing is known of it."""
    position: int | None
    """Jobs of this stage that wait before it; null once it does not wait."""
    estimated_seconds: float | None
    """Until its end, roughly; null if nobody can say."""
    attempts: int
    """Placements on an instance so far."""
    run: int
    """1, and one more each time that an operator let it run again."""
    instance_id: str | None
    timeline: tuple[JobEvent, ...]
    """Of its present run."""
    deadline: datetime | None
    failure: Failure | None
    outputs: tuple[JobOutput, ...]


class WorkflowView(_Frozen):
    """A workflow and what it takes."""

    workflow: str
    fleet: str
    subjects: tuple[str, ...]
    prompt_files: tuple[str, ...]
    inputs: Mapping[str, Input]
    kind: Literal["image", "audio", "video"]
    expected_seconds: float


class WorkflowList(_Frozen):
    """Every workflow of the stage."""

    workflows: tuple[WorkflowView, ...]


class FleetView(_Frozen):
    """A fleet as the last look at it was."""

    fleet: str
    waiting: int
    """Jobs in its task queue, about."""
    instances: int
    ready_instances: int
    slots: int
    """Of this stage, on the ready instances."""
    free_slots: int


class FleetList(_Frozen):
    """Every fleet of the stage."""

    fleets: tuple[FleetView, ...]


class QueuedJob(_Frozen):
    """A job of this stage on an instance."""

    job_id: str
    status: JobState
    workflow: str
    files: tuple[str, ...]
    """Names of its input files on the instance."""


class InstanceView(_Frozen):
    """An instance, with this stage's jobs on it."""

    instance_id: str
    is_ready: bool
    is_warm: bool
    prompts: int | None
    """All stages' in its queue at the last look; null if it did not answer."""
    jobs: tuple[QueuedJob, ...]


class InstanceList(_Frozen):
    """The instances of a fleet."""

    instances: tuple[InstanceView, ...]


class WarmUpAnswer(_Frozen):
    """What came of asking for an instance's warm-up."""

    instance_id: str
    has_begun: bool
    """False if its warm-up is over, or at work already."""


class DroppedJobs(_Frozen):
    """Jobs that an operator has dropped."""

    job_ids: tuple[str, ...]
    is_complete: bool
    """False if more are left: ask again."""


class Health(_Frozen):
    """That the stage answers."""

    status: Literal["ok"]
    stage: str
