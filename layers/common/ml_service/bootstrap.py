"""The composition root: a function's settings and adapters, made into its service, once."""

from functools import cache, partial
from pathlib import Path

from ml_service.adapters.autoscaling import AutoScalingInstancePool
from ml_service.adapters.aws_clients import AwsClients
from ml_service.adapters.clock import SystemClock
from ml_service.adapters.comfyui import HttpComfyUIConnector
from ml_service.adapters.dynamodb import DynamoDBFleetStore, DynamoDBJobStore
from ml_service.adapters.lambda_functions import (
    LambdaAdmission,
    LambdaInstanceProbe,
    LambdaInstanceWarmer,
    LambdaJobStopper,
    LambdaPromptCanceller,
)
from ml_service.adapters.s3 import S3MediaStore, S3ResultStore
from ml_service.adapters.sns import SnsReplyTopic
from ml_service.adapters.sqs import SqsConversionQueues, SqsJobQueue, SqsRefusedMessages
from ml_service.adapters.stepfunctions import StepFunctionsJobRunner
from ml_service.adapters.workflow_files import load_catalog, load_warm_up
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.services.accept_job import AcceptJob
from ml_service.services.admit_jobs import AdmitJobs
from ml_service.services.ask_warm_up import AskWarmUp
from ml_service.services.await_prompt import AwaitPrompt
from ml_service.services.cancel_job import CancelJob
from ml_service.services.cancel_prompt import CancelPrompt
from ml_service.services.choose_instance import ChooseInstance
from ml_service.services.collect_outputs import CollectOutputs
from ml_service.services.count_jobs import CountJobs
from ml_service.services.dispatch_jobs import DispatchJobs
from ml_service.services.drop_jobs import DropJobs
from ml_service.services.find_results import FindResults
from ml_service.services.finish_job import FinishJob
from ml_service.services.hand_off_video import HandOffVideo
from ml_service.services.jobs_api import JobsApi
from ml_service.services.list_fleets import ListFleets
from ml_service.services.list_jobs import ListJobs
from ml_service.services.observe_instances import ObserveInstances
from ml_service.services.read_job import ReadJob
from ml_service.services.read_output import ReadOutput
from ml_service.services.refresh_registry import RefreshRegistry
from ml_service.services.remove_instances import RemoveInstances
from ml_service.services.scale_fleets import ScaleFleets
from ml_service.services.submit_prompt import SubmitPrompt
from ml_service.services.sweep_jobs import SweepJobs
from ml_service.services.warm_instance import WarmInstance
from ml_service.settings import (
    AdmitJobsSettings,
    AwaitPromptSettings,
    CancelPromptSettings,
    ChooseInstanceSettings,
    CollectOutputsSettings,
    DispatchJobsSettings,
    FinishJobSettings,
    JobsApiSettings,
    ResultApiSettings,
    ScaleFleetsSettings,
    Settings,
    SubmitPromptSettings,
    SweepJobsSettings,
    WarmInstanceSettings,
    load_settings,
)

_aws = AwsClients()


@cache
def make_clock() -> SystemClock:
    """The clock of every function."""
    settings = load_settings(Settings)
    return SystemClock(rate=settings.clock_rate, origin=settings.clock_origin)


@cache
def make_dispatch_jobs() -> DispatchJobs:
    """The service of dispatch_jobs."""
    settings = load_settings(DispatchJobsSettings)
    return DispatchJobs(
        catalog=_load_catalog(settings.workflows_dir),
        jobs=_make_job_store(settings.job_table_name),
        task_queues={
            name: SqsJobQueue(_aws.sqs, fleet.task_queue_url)
            for name, fleet in settings.fleets.items()
        },
        refused_messages=SqsRefusedMessages(_aws.sqs, settings.input_dead_letter_queue_url),
        topic=SnsReplyTopic(_aws.sns, settings.reply_topic_arn),
        admission=_make_admission(settings.admit_jobs_function_name),
        input_buckets=settings.input_buckets,
        hand_off_buckets=settings.media_convert_buckets,
        hand_off_queue_arns=settings.media_convert_queue_arns,
    )


@cache
def make_admit_jobs() -> AdmitJobs:
    """The service of admit_jobs."""
    settings = load_settings(AdmitJobsSettings)
    store = _make_fleet_store(settings.fleet_table_name)
    return AdmitJobs(
        fleets=settings.fleets,
        task_queues={
            name: SqsJobQueue(_aws.sqs, fleet.task_queue_url)
            for name, fleet in settings.fleets.items()
        },
        jobs=_make_job_store(settings.job_table_name),
        store=store,
        registry=_make_registry(store, settings),
        runner=StepFunctionsJobRunner(_aws.stepfunctions, settings.state_machine_arn),
        admission=_make_admission(settings.admit_jobs_function_name),
        clock=make_clock(),
    )


@cache
def make_observe_instances() -> ObserveInstances:
    """The service of observe_instances."""
    return ObserveInstances(HttpComfyUIConnector())


@cache
def make_warm_instance() -> WarmInstance:
    """The service of warm_instance."""
    settings = load_settings(WarmInstanceSettings)
    return WarmInstance(
        stage=settings.stage,
        load_warm_up=partial(load_warm_up, Path(settings.workflows_dir)),
        store=_make_fleet_store(settings.fleet_table_name),
        connector=HttpComfyUIConnector(),
        clock=make_clock(),
    )


@cache
def make_choose_instance() -> ChooseInstance:
    """The service of choose_instance."""
    settings = load_settings(ChooseInstanceSettings)
    return ChooseInstance(
        fleets=settings.fleets,
        jobs=_make_job_store(settings.job_table_name),
        store=_make_fleet_store(settings.fleet_table_name),
        canceller=_make_canceller(settings.cancel_prompt_function_name),
    )


@cache
def make_submit_prompt() -> SubmitPrompt:
    """The service of submit_prompt."""
    settings = load_settings(SubmitPromptSettings)
    return SubmitPrompt(
        stage=settings.stage,
        catalog=_load_catalog(settings.workflows_dir),
        jobs=_make_job_store(settings.job_table_name),
        store=_make_fleet_store(settings.fleet_table_name),
        media=S3MediaStore(_aws.s3),
        connector=HttpComfyUIConnector(),
        clock=make_clock(),
    )


@cache
def make_await_prompt() -> AwaitPrompt:
    """The service of await_prompt."""
    settings = load_settings(AwaitPromptSettings)
    return AwaitPrompt(
        fleets=settings.fleets,
        jobs=_make_job_store(settings.job_table_name),
        store=_make_fleet_store(settings.fleet_table_name),
        connector=HttpComfyUIConnector(),
        clock=make_clock(),
    )


@cache
def make_collect_outputs() -> CollectOutputs:
    """The service of collect_outputs."""
    # Here, so that the other functions do not load Pillow when they start.
    from ml_service.adapters.pillow_images import PillowImageConverter

    settings = load_settings(CollectOutputsSettings)
    return CollectOutputs(
        jobs=_make_job_store(settings.job_table_name),
        media=S3MediaStore(_aws.s3, result_bucket=settings.result_bucket_name),
        connector=HttpComfyUIConnector(),
        converter=PillowImageConverter(),
        clock=make_clock(),
    )


@cache
def make_finish_job() -> FinishJob:
    """The service of finish_job."""
    return _make_finish_job(load_settings(FinishJobSettings))


@cache
def make_cancel_prompt() -> CancelPrompt:
    """The service of cancel_prompt."""
    settings = load_settings(CancelPromptSettings)
    return CancelPrompt(
        jobs=_make_job_store(settings.job_table_name),
        store=_make_fleet_store(settings.fleet_table_name),
        connector=HttpComfyUIConnector(),
    )


@cache
def make_sweep_jobs() -> SweepJobs:
    """The service of sweep_jobs."""
    settings = load_settings(SweepJobsSettings)
    return SweepJobs(
        fleets=settings.fleets,
        jobs=_make_job_store(settings.job_table_name),
        store=_make_fleet_store(settings.fleet_table_name),
        runner=StepFunctionsJobRunner(_aws.stepfunctions, settings.state_machine_arn),
        finish=_make_finish_job(settings),
        canceller=_make_canceller(settings.cancel_prompt_function_name),
    )


@cache
def make_count_jobs() -> CountJobs:
    """What sweep_jobs counts after its sweep."""
    settings = load_settings(SweepJobsSettings)
    return CountJobs(
        fleets=settings.fleets.keys(),
        jobs=_make_job_store(settings.job_table_name),
        store=_make_fleet_store(settings.fleet_table_name),
    )


@cache
def make_scale_fleets() -> ScaleFleets:
    """The service of scale_fleets."""
    settings = load_settings(ScaleFleetsSettings)
    store = _make_fleet_store(settings.fleet_table_name)
    registry = _make_registry(store, settings)
    return ScaleFleets(
        fleets=settings.fleets,
        task_queues={
            name: SqsJobQueue(_aws.sqs, fleet.task_queue_url)
            for name, fleet in settings.fleets.items()
        },
        store=store,
        pool=registry.pool,
        registry=registry,
        remover=RemoveInstances(store, registry.pool, registry.probe, make_clock()),
        clock=make_clock(),
        scaling_enabled=settings.scaling_enabled,
        reports_unhealthy=settings.report_unhealthy,
    )


@cache
def make_jobs_api() -> JobsApi:
    """The services of jobs_api."""
    from ml_service.adapters.pillow_images import PillowImageConverter

    settings = load_settings(JobsApiSettings)
    catalog = _load_catalog(settings.workflows_dir)
    jobs = _make_job_store(settings.job_table_name)
    store = _make_fleet_store(settings.fleet_table_name)
    results = S3ResultStore(_aws.s3, settings.result_bucket_name)
    task_queues = {
        name: SqsJobQueue(_aws.sqs, fleet.task_queue_url) for name, fleet in settings.fleets.items()
    }
    canceller = CancelJob(jobs, LambdaJobStopper(_aws.functions, settings.finish_job_function_name))
    reader = ReadJob(catalog, jobs, store, results)
    return JobsApi(
        stage=settings.stage,
        catalog=catalog,
        clock=make_clock(),
        acceptor=AcceptJob(
            catalog=catalog,
            jobs=jobs,
            task_queues=task_queues,
            admission=_make_admission(settings.admit_jobs_function_name),
            input_buckets=settings.input_buckets,
        ),
        reader=reader,
        lister=ListJobs(jobs),
        canceller=canceller,
        dropper=DropJobs(jobs, canceller),
        outputs=ReadOutput(reader, results, PillowImageConverter(), settings.jpeg_quality),
        fleets=ListFleets(settings.fleets, task_queues, jobs, store),
        warm_ups=AskWarmUp(
            store, LambdaInstanceWarmer(_aws.functions, settings.warm_instance_function_name)
        ),
        debug_header=settings.debug_header,
    )


@cache
def make_find_results() -> FindResults:
    """The service of result_api."""
    settings = load_settings(ResultApiSettings)
    bucket = settings.result_bucket_name
    return FindResults(
        _load_catalog(settings.workflows_dir), S3ResultStore(_aws.s3, bucket), bucket
    )


def _load_catalog(workflows_dir: str) -> WorkflowCatalog:
    return load_catalog(Path(workflows_dir))


def _make_job_store(table_name: str) -> DynamoDBJobStore:
    return DynamoDBJobStore(_aws.dynamodb.Table(table_name))


def _make_fleet_store(table_name: str) -> DynamoDBFleetStore:
    return DynamoDBFleetStore(_aws.dynamodb.Table(table_name))


def _make_admission(function_name: str) -> LambdaAdmission:
    return LambdaAdmission(_aws.functions, function_name)


def _make_finish_job(settings: FinishJobSettings) -> FinishJob:
    jobs = _make_job_store(settings.job_table_name)
    return FinishJob(
        catalog=_load_catalog(settings.workflows_dir),
        jobs=jobs,
        store=_make_fleet_store(settings.fleet_table_name),
        topic=SnsReplyTopic(_aws.sns, settings.reply_topic_arn),
        admission=_make_admission(settings.admit_jobs_function_name),
        canceller=_make_canceller(settings.cancel_prompt_function_name),
        hand_off=HandOffVideo(
            jobs=jobs,
            media=S3MediaStore(_aws.s3, result_bucket=settings.result_bucket_name),
            queues=SqsConversionQueues(_aws.sqs),
        ),
        result_bucket=settings.result_bucket_name,
    )


def _make_canceller(function_name: str) -> LambdaPromptCanceller:
    return LambdaPromptCanceller(_aws.functions, function_name)


def _make_registry(
    store: DynamoDBFleetStore, settings: AdmitJobsSettings | ScaleFleetsSettings
) -> RefreshRegistry:
    return RefreshRegistry(
        store=store,
        pool=AutoScalingInstancePool(_aws.autoscaling, _aws.ec2),
        probe=LambdaInstanceProbe(_aws.functions, settings.observe_instances_function_name),
        warmer=LambdaInstanceWarmer(_aws.functions, settings.warm_instance_function_name),
    )
