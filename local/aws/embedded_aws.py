"""Composes the embedded AWS: start it, deploy templates on it, use it with any SDK, stop it."""

import asyncio
import importlib
import os
import random
import shutil
import tempfile
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from aiohttp import web

from local.aws.alarm_watch import AlarmWatch
from local.aws.clients import ACCESS_KEY, SECRET_KEY, AwsClients
from local.aws.event_rules import EventRules
from local.aws.event_sources import QueuePoller
from local.aws.fleet_watch import FleetWatch, ServerChoice
from local.aws.gateway import EXECUTION_REPORTS_PATH, Gateway
from local.aws.lambda_runtime import LambdaRuntime, RuntimeClient
from local.aws.loopback_subnet import claim_subnet
from local.aws.mapping_routes import MappingRoutes
from local.aws.moto_server import MotoServer
from local.aws.stack import DeployedStack, StackSpec, deploy_stack
from local.aws.virtual_clock import VirtualClock

DEFAULT_REGION: Final = "us-east-1"
_VPC_CIDR: Final = "127.0.0.0/16"
_EXECUTION_STATUS_CHANGE: Final = "Step Functions Execution Status Change"

T = TypeVar("T")


@dataclass(frozen=True)
class AwsOptions:
    """How an embedded AWS runs: port 0 takes a free one, speed is virtual seconds per second.

    ``pages`` is shown to browsers on the same port, below PAGES_PATH. ``url_callers`` are the
    access keys that may use functions' URLs of AuthType AWS_IAM, with their secrets; None: anybody.
    """

    port: int = 0
    speed: float = 1.0
    region: str = DEFAULT_REGION
    runtime_client: RuntimeClient | None = None
    show_function_logs: bool = False
    pages: web.Application | None = None
    url_callers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Network:
    """A VPC and a subnet whose addresses this machine answers."""

    vpc_id: str
    subnet_id: str


class EmbeddedAws:
    """An AWS account on one local port.

    Made by ``start``. Then ``deploy`` each template, then ``start_events``, which lets queues feed
    functions and rules fire; at last ``stop``.
    """

    def __init__(
        self,
        clock: VirtualClock,
        gateway: Gateway,
        moto: MotoServer,
        runtime: LambdaRuntime,
        cleanup: AsyncExitStack,
        *,
        mappings: MappingRoutes,
        run_folder: Path,
        has_logs: bool,
    ) -> None:
        """Take the running parts and how to end them."""
        self.clock = clock
        self.endpoint = gateway.endpoint
        # They speak to moto directly: nothing here needs the gateway.
        self.clients = moto.clients
        self._moto = moto
        self._runtime = runtime
        self._rules = EventRules(self.clients, runtime, clock)
        self.alarms = AlarmWatch(self.clients, clock, run_folder)
        self._mappings = mappings
        self._has_logs = has_logs
        self._stacks: list[DeployedStack] = []
        self._cleanup = cleanup

    @classmethod
    async def start(cls, options: AwsOptions, run_folder: Path) -> "EmbeddedAws":
        """Bring up an empty account; raises EmbeddedAwsError, and then leaves nothing running.

        The run folder takes logs and temporary files; its owner removes it.
        """
        async with AsyncExitStack() as cleanup:
            clock = VirtualClock.starting_now(options.speed)
            mappings = MappingRoutes(options.region)
            gateway = await Gateway.start(
                options.port,
                options.pages,
                routes=mappings.list_routes(),
                url_callers=options.url_callers,
            )
            cleanup.push_async_callback(gateway.stop)
            moto, _ = await asyncio.gather(
                MotoServer.start(
                    gateway=gateway.endpoint,
                    report_url=gateway.endpoint + EXECUTION_REPORTS_PATH,
                    clock=clock,
                    region=options.region,
                    run_folder=run_folder,
                ),
                asyncio.to_thread(_import_what_takes_long),
            )
            # Ends the long polls too, whose threads would hold up the end of this process.
            cleanup.push_async_callback(moto.stop)
            runtime = LambdaRuntime(
                clock=clock,
                run_folder=run_folder,
                environment=_function_environment(clock, options.region, gateway, moto),
                client=options.runtime_client,
                show_logs=options.show_function_logs,
            )
            cleanup.push_async_callback(runtime.stop)
            aws = cls(
                clock,
                gateway,
                moto,
                runtime,
                cleanup.pop_all(),
                mappings=mappings,
                run_folder=run_folder,
                has_logs=not options.show_function_logs,
            )
            gateway.connect(
                moto=moto.clients.endpoint,
                runtime=runtime,
                autoscaling=moto.clients.autoscaling,
                report=aws.take_execution_report,
                take_url_answer=aws.alarms.take_url_answer,
            )
            return aws

    async def create_network(self) -> Network:
        """Make a subnet for instances on loopback addresses; raises LoopbackAddressError."""
        subnet = claim_subnet(random.Random())
        self._cleanup.callback(subnet.release)

        def create() -> Network:
            ec2 = self.clients.ec2
            vpc_id = ec2.create_vpc(CidrBlock=_VPC_CIDR)["Vpc"]["VpcId"]
            created = ec2.create_subnet(VpcId=vpc_id, CidrBlock=subnet.cidr)
            return Network(vpc_id, created["Subnet"]["SubnetId"])

        return await asyncio.to_thread(create)

    async def deploy(self, spec: StackSpec) -> DeployedStack:
        """Create a template's resources and make its functions known; raises TemplateError."""
        stack = await asyncio.to_thread(
            deploy_stack, spec, self.clients, self._moto.resource_types, self.endpoint
        )
        for function in stack.functions:
            self._runtime.add_function(function)
        self._stacks.append(stack)
        return stack

    async def watch_fleets(self, groups: Mapping[str, ServerChoice]) -> None:
        """Put servers behind the instances of these groups, and keep them there.

        Returns when the present instances' servers are up; raises OSError where one cannot listen.
        """
        watch = FleetWatch(groups, self.clients, self.clock, self.publish_event)
        self._cleanup.push_async_callback(watch.stop)
        await watch.start()

    async def start_events(self) -> None:
        """Let the queues of all deployed stacks feed their functions, and rules fire."""
        for stack in self._stacks:
            for mapping in stack.event_source_mappings:
                poller = QueuePoller(mapping, self.clients, self._runtime)
                self._cleanup.push_async_callback(poller.stop)
                poller.start()
                self._mappings.add(str(uuid.uuid4()), poller)
        self._cleanup.push_async_callback(self._rules.stop)
        await self._rules.start()
        if self._has_logs:  # else nothing is measured that could be read
            self._cleanup.push_async_callback(self.alarms.stop)
            self.alarms.start()

    def warm_up(self) -> None:
        """Start a process of every function in the background: in use they would be there."""
        self._runtime.warm_up()

    def publish_event(
        self, source: str, detail_type: str, resources: Sequence[str], detail: Mapping[str, Any]
    ) -> None:
        """Emit an event of an AWS service to the rules of the default bus."""
        self._rules.publish(source, detail_type, resources, detail)

    def run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something of the owner's until this account stops, which cancels it."""
        task = asyncio.get_running_loop().create_task(work)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._cleanup.push_async_callback(end)

    async def take_execution_report(self, detail: Mapping[str, Any]) -> None:
        """Emit the event of an execution that has ended."""
        self.publish_event("aws.states", _EXECUTION_STATUS_CHANGE, [detail["executionArn"]], detail)

    async def stop(self) -> None:
        """End everything that was started, in well under five seconds."""
        await self._cleanup.aclose()


@dataclass(frozen=True)
class RunningAws(Generic[T]):
    """An embedded AWS that runs in a thread of its own; ``deployed`` is what was deployed on it."""

    endpoint: str
    region: str
    run_folder: Path
    clock: VirtualClock
    clients: AwsClients  # On the gateway, as a user's are.
    deployed: T

    def client(self, service: str) -> Any:
        """Make a boto3 client of any service."""
        return self.clients.client(service)


@contextmanager
def running_embedded_aws(
    deploy: Callable[[EmbeddedAws], Awaitable[T]],
    options: AwsOptions | None = None,
    *,
    start_seconds: float = 90,
) -> Iterator[RunningAws[T]]:
    """Run an embedded AWS while a test runs; ``deploy`` fills it before its events start."""
    options = options or AwsOptions()
    run_folder = Path(tempfile.mkdtemp(prefix="embedded-aws-"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="embedded-aws")
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(start_seconds)

    async def fill(aws: EmbeddedAws) -> T:
        deployed = await deploy(aws)
        await aws.start_events()
        return deployed

    try:
        aws: EmbeddedAws = run(EmbeddedAws.start(options, run_folder))
        try:
            yield RunningAws(
                endpoint=aws.endpoint,
                region=options.region,
                run_folder=run_folder,
                clock=aws.clock,
                clients=AwsClients(aws.endpoint, options.region),
                deployed=run(fill(aws)),
            )
        finally:
            run(aws.stop())
    finally:
        run(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        shutil.rmtree(run_folder)


def _import_what_takes_long() -> None:
    """Spend the time in which moto starts on another core: deploying needs these two seconds."""
    importlib.import_module("moto.events.models")
    importlib.import_module("samtranslator.translator.translator")


def _function_environment(
    clock: VirtualClock, region: str, gateway: Gateway, moto: MotoServer
) -> dict[str, str]:
    """Give what every function finds in its environment, as in AWS or as on no other machine."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": moto.clients.endpoint,
        # These need what only the gateway does; all the rest is faster without it.
        "AWS_ENDPOINT_URL_AUTO_SCALING": gateway.endpoint,
        "AWS_ENDPOINT_URL_LAMBDA": gateway.endpoint,
        "AWS_ENDPOINT_URL_SFN": gateway.endpoint,
        "CLOCK_ORIGIN": repr(clock.origin),
        "CLOCK_RATE": repr(clock.rate),
    }
