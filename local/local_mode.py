"""Local mode: the whole of ml-service on this machine, without an AWS account, Docker or a GPU.

It deploys template.yaml and fleets/template.yaml on the embedded AWS and lets a ComfyUI server run
behind every instance that the Auto Scaling groups launch.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from local.aws.embedded_aws import AwsOptions, EmbeddedAws, Network
from local.aws.errors import EmbeddedAwsError
from local.aws.fleet_watch import InstanceServer, ServerChoice
from local.aws.gateway import BALANCERS_PATH, PAGES_PATH
from local.aws.loopback_subnet import COMFYUI_PORT
from local.aws.stack import DeployedStack, StackSpec
from local.aws.tcp_proxy import TcpProxy
from local.comfyui.faults import Fault, FaultBoard
from local.comfyui.model_files import USUAL_MODELS, Models
from local.comfyui.profiles import PROFILE_0_12, Profile
from local.comfyui.prompt_durations import (
    Duration,
    FixedDuration,
    PromptDurations,
    read_graphs,
)
from local.comfyui.simulated_server import ComfyUiSimulator
from local.comfyui.simulator_settings import SimulatorSettings
from local.console.pages import Console
from local.local_deployment import LocalDeployment
from local.local_names import INPUT_BUCKET, REPLY_QUEUE
from local.project import PROJECT, WORKFLOWS
from local.replace_file import replace_file
from local.run_marker import COUNTED_JOBS, RunMarker, describe_loss, find_marker_path
from ml_service.adapters.dynamodb import DynamoDBJobStore
from ml_service.domain.errors import WorkflowError

_log = logging.getLogger(__name__)

FLEETS: Final = ("lip-sync", "pulid", "makeup")

_PARENT_LOOK_SECONDS: Final = 0.5
# Counting what would be lost takes two calls.
_MARK_SECONDS: Final = 3.0
# A stop takes less than a second; a program that hangs is ended by force before five are over.
_STOP_SECONDS: Final = 4.0
_LAST_SECONDS: Final = 0.5
# moto has this image from the start; nothing is ever booted from it.
_IMAGE_ID: Final = "ami-12c6146b"


@dataclass(frozen=True)
class LocalOptions:
    """What a user can choose.

    ``speed`` is virtual seconds per second; ``boot_seconds`` and ``prompt_seconds`` say how long a
    simulated instance boots (virtual) and how long one prompt takes at least (real). ``comfyui``
    names real servers of a fleet as ``host:port``: they stand in for its simulated ones. The
    ``faults`` of a fleet are shared by all its simulated servers. A workflow of ``durations`` takes
    the seconds drawn there (dice: ``seed``) instead of ``prompt_seconds``.
    """

    port: int = 4566
    speed: float = 1.0
    ready_file: Path | None = None
    comfyui: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stage: str = "prod"
    prompt_seconds: float = 1.0
    boot_seconds: float = 240.0
    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    durations: Mapping[str, Duration] = field(default_factory=dict)
    seed: int | None = None
    profile: Profile = PROFILE_0_12
    models: Models = field(default_factory=lambda: USUAL_MODELS)
    allow_unknown_nodes: bool = True
    log_level: str = "WARNING"


def run_local(options: LocalOptions) -> int:
    """Run local mode until a signal or the end of the parent; give the exit status.

    The signals are SIGINT, SIGTERM and SIGHUP. After them the caller's process ends in any case.
    """
    # A profile, Region or endpoint of the user's own has no meaning here, and could end it.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # Only our own: every request of boto3's clients would be logged too.
    logging.getLogger("local").setLevel(options.log_level.upper())
    with tempfile.TemporaryDirectory(prefix="ml-service-") as run_folder:
        try:
            status = asyncio.run(_serve(options, Path(run_folder)))
        except EmbeddedAwsError as error:
            sys.stderr.write(f"ml-service local: {error}\n")
            return 1
    # All is cleaned up; threads that wait for an answer of what has ended hold nobody up.
    last = threading.Timer(_LAST_SECONDS, os._exit, (status,))
    last.daemon = True
    last.start()
    return status


async def deploy_ml_service(
    aws: EmbeddedAws, options: LocalOptions, run_folder: Path
) -> LocalDeployment:
    """Deploy the application and its fleets on an embedded AWS; raises EmbeddedAwsError."""
    network = await aws.create_network()
    await asyncio.to_thread(aws.clients.s3.create_bucket, Bucket=INPUT_BUCKET)
    application = await deploy_stage(aws, options.stage, network)
    fleets = await aws.deploy(
        StackSpec(
            name="ml-service-fleets",
            template_path=PROJECT / "fleets" / "template.yaml",
            parameters={
                "VpcId": network.vpc_id,
                "SubnetIds": network.subnet_id,
                "FunctionsSecurityGroupId": application.outputs["FunctionsSecurityGroupId"],
                **{f"{_camel_case(fleet)}ImageId": _IMAGE_ID for fleet in FLEETS},
            },
        )
    )
    group_names = {
        fleet: fleets.physical_ids[f"{_camel_case(fleet)}AutoScalingGroup"] for fleet in FLEETS
    }
    choices = {
        group_names[fleet]: await _choose_servers(
            aws, fleet, group_names[fleet], options, run_folder
        )
        for fleet in FLEETS
    }
    try:
        await aws.watch_fleets(choices)
    except OSError as error:
        raise EmbeddedAwsError(f"no server can run on an instance's address: {error}") from error
    reply_queue_url = await asyncio.to_thread(
        _subscribe_reply_queue, aws, application.outputs["ReplyTopicArn"]
    )
    return _describe(aws, options, application, reply_queue_url)


async def deploy_stage(aws: EmbeddedAws, stage: str, network: Network) -> DeployedStack:
    """Deploy the application of one stage; the fleets may be there already, or come later."""
    return await aws.deploy(
        StackSpec(
            name=f"{stage}-ml-service",
            template_path=PROJECT / "template.yaml",
            parameters={
                "Stage": stage,
                "VpcId": network.vpc_id,
                "PrivateSubnetIds": network.subnet_id,
                "InputBuckets": INPUT_BUCKET,
            },
            environment_overrides={"WORKFLOWS_DIR": str(WORKFLOWS)},
        )
    )


class SimulatedServers:
    """A simulated ComfyUI for every instance of a fleet."""

    def __init__(self, folder: Path, *, boot_seconds: float, settings: SimulatorSettings) -> None:
        """Take the folder for the servers' files, and what they have in common."""
        self.boot_seconds = boot_seconds
        self._folder = folder
        self._settings = settings

    def take_server(self, instance_id: str) -> InstanceServer:
        """Give the server of a new instance, with an empty disk."""
        return ComfyUiSimulator(self._folder / instance_id, self._settings)

    def give_back(self, instance_id: str) -> None:
        """Leave the files: the run folder goes as a whole."""


class RealServers:
    """Real ComfyUI servers, each behind one instance at a time; they are up already."""

    boot_seconds = 0.0

    def __init__(self, addresses: Sequence[str]) -> None:
        """Take the servers as ``host:port``."""
        self._free = deque(addresses)
        self._taken: dict[str, str] = {}

    def take_server(self, instance_id: str) -> InstanceServer:
        """Give a way to a server that no other instance has."""
        address = self._taken[instance_id] = self._free.popleft()
        host, _, port = address.rpartition(":")
        return TcpProxy(host.strip("[]"), int(port))

    def give_back(self, instance_id: str) -> None:
        """Free the server of an instance that is gone."""
        self._free.append(self._taken.pop(instance_id))


async def _choose_servers(
    aws: EmbeddedAws, fleet: str, group_name: str, options: LocalOptions, run_folder: Path
) -> ServerChoice:
    addresses = options.comfyui.get(fleet, ())
    if not addresses:
        return SimulatedServers(
            run_folder / "comfyui" / fleet,
            boot_seconds=options.boot_seconds,
            settings=choose_settings(fleet, options),
        )
    await asyncio.to_thread(
        aws.clients.autoscaling.update_auto_scaling_group,
        AutoScalingGroupName=group_name,
        MaxSize=len(addresses),
    )
    return RealServers(addresses)


def choose_settings(fleet: str, options: LocalOptions) -> SimulatorSettings:
    """Give what the simulated servers of a fleet have in common."""
    durations = PromptDurations(
        FixedDuration(options.prompt_seconds),
        options.durations,
        graphs=read_graphs(WORKFLOWS / fleet),
        seed=options.seed,
    )
    return SimulatorSettings(
        profile=options.profile,
        durations=durations,
        faults=FaultBoard.of(options.faults.get(fleet, ())),
        models=options.models,
        spares_first_prompt=True,
        allow_unknown_nodes=options.allow_unknown_nodes,
    )


def _subscribe_reply_queue(aws: EmbeddedAws, topic_arn: str) -> str:
    """Make the queue that stands for the backend's."""
    sqs = aws.clients.sqs
    sqs.create_queue(QueueName=REPLY_QUEUE, Attributes={"MessageRetentionPeriod": "1209600"})
    url = f"{aws.endpoint}/{topic_arn.split(':')[4]}/{REPLY_QUEUE}"
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    aws.clients.sns.subscribe(
        TopicArn=topic_arn,
        Protocol="sqs",
        Endpoint=attributes["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    return url


def _describe(
    aws: EmbeddedAws,
    options: LocalOptions,
    application: DeployedStack,
    reply_queue_url: str,
) -> LocalDeployment:
    return LocalDeployment(
        endpoint=aws.endpoint,
        region=aws.clients.region,
        stage=options.stage,
        input_queue_url=application.outputs["InputQueueUrl"],
        reply_queue_url=reply_queue_url,
        input_bucket=INPUT_BUCKET,
        result_bucket=application.outputs["ResultBucketName"],
        job_table=application.outputs["JobTableName"],
        fleet_table=application.outputs["FleetTableName"],
        state_machine_arn=application.outputs["RunJobStateMachineArn"],
        jobs_api_url=application.outputs["JobsApiUrl"],
        result_api_url=(
            f"{aws.endpoint}{BALANCERS_PATH}{application.physical_ids['ResultApiFunction']}"
        ),
        fleets=_read_fleets(application),
    )


def _read_fleets(application: DeployedStack) -> dict[str, dict[str, Any]]:
    """Give the fleets as the functions know them, with thresholds and slots."""
    variables = next(f.environment for f in application.functions if "FLEETS" in f.environment)
    fleets: dict[str, dict[str, Any]] = json.loads(variables["FLEETS"])
    return fleets


async def _serve(options: LocalOptions, run_folder: Path) -> int:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end.set)
    parent_watch = loop.create_task(_watch_parent(end))
    marker = RunMarker(find_marker_path(options.port), run_folder) if options.port else None
    serving = loop.create_task(_bring_up(options, run_folder, marker))
    ending = loop.create_task(end.wait())
    try:
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            await ending
        return 0
    finally:
        loop.call_later(_STOP_SECONDS, os._exit, 1)
        parent_watch.cancel()
        ending.cancel()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError, EmbeddedAwsError):
            aws = await serving
            if options.ready_file is not None:
                # A file that stays would tell that this account is still there.
                options.ready_file.unlink(missing_ok=True)
            await aws.stop()
        if marker is not None:
            marker.end()


async def _bring_up(
    options: LocalOptions, run_folder: Path, marker: RunMarker | None
) -> EmbeddedAws:
    try:
        console = Console(WORKFLOWS)
    except WorkflowError as error:
        raise EmbeddedAwsError(str(error)) from error
    aws_options = AwsOptions(
        port=options.port,
        speed=options.speed,
        show_function_logs=options.log_level.upper() == "DEBUG",
        pages=console.application,
    )
    aws = await EmbeddedAws.start(aws_options, run_folder)
    try:
        # Only now is it sure that nobody else has the port, and with it the mark.
        lost = marker.begin() if marker is not None else None
        if lost is not None:
            sys.stdout.write(describe_loss(lost, options.port))
        deployment = await deploy_ml_service(aws, options, run_folder)
        console.connect(deployment, aws.clients)
        await aws.start_events()
        aws.warm_up()
        if marker is not None:
            aws.run_beside(_keep_mark(marker, aws, deployment))
        if options.ready_file is not None:
            content = json.dumps(asdict(deployment), indent=2) + "\n"
            replace_file(options.ready_file, content)
        sys.stdout.write(_summarize(deployment, options))
        sys.stdout.flush()
    except BaseException:
        await aws.stop()
        raise
    return aws


async def _watch_parent(end: asyncio.Event) -> None:
    """End with the parent: who started local mode in a script that was killed wants it gone."""
    parent_id = os.getppid()
    while os.getppid() == parent_id:
        await asyncio.sleep(_PARENT_LOOK_SECONDS)
    end.set()


async def _keep_mark(marker: RunMarker, aws: EmbeddedAws, deployment: LocalDeployment) -> None:
    jobs = DynamoDBJobStore(aws.clients.table(deployment.job_table))

    def update() -> None:
        far = datetime.now(UTC) + timedelta(days=365)
        attributes = aws.clients.sqs.get_queue_attributes(
            QueueUrl=deployment.input_queue_url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        marker.update(
            open_jobs=len(jobs.list_due(far, limit=COUNTED_JOBS)),
            waiting_messages=sum(map(int, attributes.values())),
        )

    while True:
        await asyncio.sleep(_MARK_SECONDS)
        try:
            await asyncio.to_thread(update)
        except (BotoCoreError, ClientError, OSError) as error:
            _log.warning("The mark of this run is out of date: %s", error)


def _summarize(deployment: LocalDeployment, options: LocalOptions) -> str:
    behind = {
        fleet: "real ComfyUI servers" if options.comfyui.get(fleet) else "simulated ComfyUI servers"
        for fleet in FLEETS
    }
    fleets = "".join(
        f"  {fleet:<13}{kind}, port {COMFYUI_PORT}\n" for fleet, kind in behind.items()
    )
    return (
        f"ml-service ({deployment.stage}) is up at {deployment.endpoint}, "
        f"{options.speed:g} times as fast as the clock.\n"
        f"  send to      {deployment.input_queue_url}\n"
        f"  replies in   {deployment.reply_queue_url}\n"
        f"  inputs in    s3://{deployment.input_bucket}\n"
        f"  results in   s3://{deployment.result_bucket}\n"
        f"  jobs API     {deployment.jobs_api_url}\n"
        f"  result API   {deployment.result_api_url}\n"
        f"  console      {deployment.endpoint}{PAGES_PATH}\n"
        f"{fleets}"
        f"Any SDK can use it: --endpoint-url {deployment.endpoint} --region {deployment.region}, "
        "with any credentials. Ctrl-C ends it.\n"
    )


def _camel_case(fleet: str) -> str:
    return "".join(part.capitalize() for part in fleet.split("-"))
