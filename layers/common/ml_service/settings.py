"""The only reader of the environment: one settings class per function, one field per variable."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    ValidationError,
    model_validator,
)

from ml_service.domain.errors import MlServiceError
from ml_service.domain.fleets import Fleet

Stage = Literal["dev", "prod"]
QueueArn = Annotated[str, Field(pattern=r"^arn:[^:]+:sqs:[^:]+:[^:]+:[^:]+$")]


class SettingsError(MlServiceError):
    """When the environment of a function lacks a variable or holds an unusable one."""


def _split(value: object) -> object:
    return frozenset(filter(None, value.split(","))) if isinstance(value, str) else value


class Settings(BaseModel):
    """What every function reads. A field ``job_table_name`` is the variable JOB_TABLE_NAME."""

    model_config = ConfigDict(frozen=True)

    function: ClassVar[str] = ""
    """The folder below functions/ whose settings these are."""

    stage: Stage
    clock_rate: float = Field(default=1.0, gt=0)
    """Local mode only: how much faster than real time the clock runs."""
    clock_origin: float = 0.0
    """Local mode only: the epoch second from which on it does."""

    @classmethod
    def variables(cls) -> frozenset[str]:
        """Names of the environment variables that a deployed function must have."""
        return frozenset(
            name.upper() for name, field in cls.model_fields.items() if field.is_required()
        )


class DispatchJobsSettings(Settings):
    """dispatch_jobs: checks messages and forwards them."""

    function = "dispatch_jobs"
    job_table_name: str
    fleets: Json[dict[str, Fleet]]
    workflows_dir: str
    reply_topic_arn: str
    input_buckets: Annotated[frozenset[str], BeforeValidator(_split)]
    media_convert_buckets: Annotated[frozenset[str], BeforeValidator(_split)]
    media_convert_queue_arns: Annotated[frozenset[QueueArn], BeforeValidator(_split)]
    input_dead_letter_queue_url: str
    admit_jobs_function_name: str


class AdmitJobsSettings(Settings):
    """admit_jobs: pulls jobs into free slots."""

    function = "admit_jobs"
    job_table_name: str
    fleet_table_name: str
    fleets: Json[dict[str, Fleet]]
    state_machine_arn: str
    admit_jobs_function_name: str
    observe_instances_function_name: str
    warm_instance_function_name: str


class ObserveInstancesSettings(Settings):
    """observe_instances: asks instances for their queue lengths."""

    function = "observe_instances"


class WarmInstanceSettings(Settings):
    """warm_instance: warms launched instances up."""

    function = "warm_instance"
    fleet_table_name: str
    workflows_dir: str


class ChooseInstanceSettings(Settings):
    """choose_instance: keeps or takes a slot."""

    function = "choose_instance"
    job_table_name: str
    fleet_table_name: str
    cancel_prompt_function_name: str
    fleets: Json[dict[str, Fleet]]


class SubmitPromptSettings(Settings):
    """submit_prompt: uploads inputs and posts the prompt."""

    function = "submit_prompt"
    job_table_name: str
    fleet_table_name: str
    workflows_dir: str


class AwaitPromptSettings(Settings):
    """await_prompt: waits for the prompt's end."""

    function = "await_prompt"
    job_table_name: str
    fleet_table_name: str
    fleets: Json[dict[str, Fleet]]


class CollectOutputsSettings(Settings):
    """collect_outputs: streams the output files into S3."""

    function = "collect_outputs"
    job_table_name: str
    result_bucket_name: str


class FinishJobSettings(Settings):
    """finish_job: gives the one final answer."""

    function = "finish_job"
    job_table_name: str
    fleet_table_name: str
    reply_topic_arn: str
    result_bucket_name: str
    workflows_dir: str
    admit_jobs_function_name: str
    cancel_prompt_function_name: str


class CancelPromptSettings(Settings):
    """cancel_prompt: ends abandoned prompts."""

    function = "cancel_prompt"
    job_table_name: str
    fleet_table_name: str


class SweepJobsSettings(FinishJobSettings):
    """sweep_jobs: mends what was left undone, and so finishes jobs too."""

    function = "sweep_jobs"
    fleets: Json[dict[str, Fleet]]
    state_machine_arn: str


class JobsApiSettings(Settings):
    """jobs_api: takes, shows and cancels jobs over HTTP."""

    function = "jobs_api"
    job_table_name: str
    fleet_table_name: str
    fleets: Json[dict[str, Fleet]]
    workflows_dir: str
    result_bucket_name: str
    input_buckets: Annotated[frozenset[str], BeforeValidator(_split)]
    admit_jobs_function_name: str
    finish_job_function_name: str
    warm_instance_function_name: str
    jpeg_quality: int = Field(ge=0, le=95)
    debug_header: bool


class ResultApiSettings(Settings):
    """result_api: leads the backend to results by what it knows of its jobs."""

    function = "result_api"
    workflows_dir: str
    result_bucket_name: str


class ScaleFleetsSettings(Settings):
    """scale_fleets: observes, decides and acts, every minute."""

    function = "scale_fleets"
    fleet_table_name: str
    fleets: Json[dict[str, Fleet]]
    observe_instances_function_name: str
    warm_instance_function_name: str
    scaling_enabled: bool
    report_unhealthy: bool

    @model_validator(mode="after")
    def _check_slots(self) -> Self:
        """A stage that scales needs slots enough for its rule; another one only has its quota."""
        for name, fleet in self.fleets.items():
            policy = fleet.make_policy()
            least = policy.immediate_factor * policy.threshold + 2
            few = fleet.slots_per_instance < least
            if self.scaling_enabled and few and not policy.counts_backlog:
                raise ValueError(
                    f"{name} has {fleet.slots_per_instance} slots per instance: its queue could "
                    f"never be so long that it grows at once; at least {least}"
                )
        return self


AnySettings = TypeVar("AnySettings", bound=Settings)


def load_settings(
    settings_class: type[AnySettings], environment: Mapping[str, str] = os.environ
) -> AnySettings:
    """Read one function's settings; raises SettingsError naming every variable that is wrong."""
    values: dict[str, Any] = {
        name: environment[name.upper()]
        for name in settings_class.model_fields
        if name.upper() in environment
    }
    try:
        return settings_class.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{str((*fault['loc'], 'settings')[0]).upper()}: {fault['msg']}"
            for fault in error.errors()
        )
        raise SettingsError(f"Environment of {settings_class.function}: {faults}") from None
