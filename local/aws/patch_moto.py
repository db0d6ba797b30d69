"""The changes that local mode makes to moto 5.2.5, all of them and only here.

They touch private parts of moto, so moto is pinned and each change has a canary test. Runs inside
the moto process.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, wraps
from types import SimpleNamespace
from typing import Any

import requests
from botocore.config import Config
from botocore.session import Session
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup
from moto.cloudformation.models import Stack
from moto.core import responses as core_responses
from moto.dynamodb.models import DynamoDBBackend
from moto.ec2.models import instances as ec2_instances
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.sqs import models as sqs_models
from moto.sqs.models import Message, Queue, SQSBackend
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.timestamp import Timestamp
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import (
    WaitFunction,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.backend.execution import (
    BaseExecutionWorkerCommunication,
    Execution,
)

from local.aws.virtual_clock import VirtualClock

# An execution's task may hold a connection for a quarter of an hour; so many may at once.
_TASK_CONNECTIONS = 1000
_TASK_READ_SECONDS = 3600
_REPORT_SECONDS = 10


def reuse_task_clients(endpoint: str) -> None:
    """Let all tasks of all executions share one boto3 client per service, talking to ``endpoint``.

    moto makes a new client for every task, which costs more than the rest of a transition.
    """
    lock = threading.Lock()
    clients: dict[tuple[str, str], Any] = {}

    def client_for(region: str, service: str, state_credentials: object = None) -> Any:
        del state_credentials  # There is one account here.
        with lock:
            if (region, service) not in clients:
                clients[region, service] = Session().create_client(
                    service,
                    region_name=region,
                    endpoint_url=endpoint,
                    aws_access_key_id="local",
                    aws_secret_access_key="local",  # noqa: S106  (moto asks for none)
                    config=Config(
                        parameter_validation=False,
                        retries={"total_max_attempts": 1},
                        read_timeout=_TASK_READ_SECONDS,
                        max_pool_connections=_TASK_CONNECTIONS,
                    ),
                )
            return clients[region, service]

    stock = boto_client.boto_client_for
    for module in list(sys.modules.values()):
        # Each kind of task has imported the function by name.
        if getattr(module, "boto_client_for", None) is stock:
            module.boto_client_for = client_for  # type: ignore[attr-defined]


def reuse_parsed_definitions() -> None:
    """Parse each state machine definition once, not once per execution and once per check.

    The parsed program keeps no state of an execution; counters live in the execution's environment.
    """
    AmazonStateLanguageParser.parse = staticmethod(  # type: ignore[method-assign]
        lru_cache(maxsize=64)(AmazonStateLanguageParser.parse)
    )


def read_json_templates_as_json() -> None:
    """Parse a stack's template as JSON if it is that; as YAML ours takes a quarter of a second."""
    parse = Stack.parse_template

    def parse_template(template: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(template)
        except ValueError:
            content = parse(template)
        return content

    Stack.parse_template = staticmethod(parse_template)  # type: ignore[method-assign]


def scale_waits(clock: VirtualClock) -> None:
    """Make Wait states and retries take virtual time, exact to the millisecond.

    moto counts waited time in whole seconds, so a wait below one second would begin again for ever.
    """

    def wait_interval(_: WaitFunction, env: Any, wait_seconds: float) -> None:
        end = time.monotonic() + clock.real_seconds(max(wait_seconds, 0))
        while env.is_running() and (left := end - time.monotonic()) > 0:
            env.program_state_event.wait(left)

    seconds_until = Timestamp._get_wait_seconds

    def virtual_seconds_until(self: Timestamp, env: Any) -> int:
        return seconds_until(self, env) - int(clock.now() - time.time())

    WaitFunction._wait_interval = wait_interval  # type: ignore[method-assign, assignment]
    Timestamp._get_wait_seconds = virtual_seconds_until  # type: ignore[method-assign]
    # The retrier's own name for the module time: it uses nothing of it but sleep.
    scaled_time = SimpleNamespace(sleep=lambda seconds: time.sleep(clock.real_seconds(seconds)))
    vars(retrier_decl)["time"] = scaled_time


def keep_stops() -> None:
    """Let an execution that was stopped end as ABORTED, whatever else happens to it then.

    moto skips what a stop comes in the middle of, fails for want of what that would have given,
    and takes the failure for the end.
    """
    set_error = Environment.set_error

    def set_error_unless_stopped(self: Environment, error: Any) -> None:
        with self._state_mutex:
            if not isinstance(self.program_state(), ProgramStopped):
                set_error(self, error)

    Environment.set_error = set_error_unless_stopped  # type: ignore[method-assign]


def report_ended_executions(url: str) -> None:
    """Post every execution's final status to ``url``, which is what EventBridge would be told."""
    record_end = BaseExecutionWorkerCommunication.terminated
    session = requests.Session()
    session.trust_env = False  # It would look for proxies and passwords at every call.

    def terminated(self: BaseExecutionWorkerCommunication) -> None:
        record_end(self)
        session.post(url, json=_describe_end(self.execution), timeout=_REPORT_SECONDS)

    BaseExecutionWorkerCommunication.terminated = terminated  # type: ignore[method-assign]


def keep_queues_whole() -> None:
    """Let one thread at a time change a queue.

    moto deletes a message by replacing the list of messages with a shorter copy, and what another
    thread has sent in between is lost.
    """

    def guard(method: Any, queue_of: Callable[..., Queue]) -> Any:
        @wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            # The lock of moto's own senders, which a receiver that waits lets go.
            with queue_of(*args, **kwargs)._messages_lock:
                return method(*args, **kwargs)

        return guarded

    def named(backend: SQSBackend, queue_name: str, *_: object, **__: object) -> Queue:
        return backend.get_queue(queue_name)

    for name in ("receive_message", "change_message_visibility", "purge_queue"):
        setattr(SQSBackend, name, guard(getattr(SQSBackend, name), named))
    Queue.delete_message = guard(  # type: ignore[method-assign]
        Queue.delete_message, lambda queue, *_: queue
    )


def keep_conditions_true() -> None:
    """Let one thread at a time work on DynamoDB.

    moto looks at a write's condition and then writes, and another thread may write in between. An
    update of a new item first stores its key alone, and a reader may see it so.
    """
    lock = threading.RLock()

    def guard(method: Any) -> Any:
        @wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return method(*args, **kwargs)

        return guarded

    writes = ("put_item", "update_item", "delete_item", "transact_write_items")
    for name in (*writes, "get_item", "query", "scan"):
        setattr(DynamoDBBackend, name, guard(getattr(DynamoDBBackend, name)))


def find_services_once() -> None:
    """Remember which service answers a host, and which actions a service has.

    moto lists its own folders and inspects a class again for every request: a third of its work.
    """
    DomainDispatcherApplication.get_backend_for_host = lru_cache(  # type: ignore[method-assign]
        maxsize=256
    )(DomainDispatcherApplication.get_backend_for_host)
    responses = vars(core_responses)
    names = "method_names_from_class"
    responses[names] = lru_cache(maxsize=256)(responses[names])


def hasten_queues() -> None:
    """Let sending and receiving cost the same however many messages wait.

    For each message that it hands out, moto computes all attributes of the queue, and so counts
    all its messages three times; and it reads the clock through a calendar for each of them.
    """

    def is_retained(self: SQSBackend, queue_name: str, message: Message) -> bool:
        retention_seconds: int = self.get_queue(queue_name).message_retention_period  # type: ignore[attr-defined]
        return retention_seconds + (message.sent_timestamp or 0) / 1000 > time.time()

    SQSBackend.is_message_valid_based_on_retention_period = is_retained  # type: ignore[method-assign]
    # The module only ever asks these for the present time.
    vars(sqs_models)["unix_time"] = time.time
    vars(sqs_models)["unix_time_millis"] = lambda: time.time() * 1000


def tell_age_of_messages() -> None:
    """Let a queue tell the age of its oldest message in seconds, which SQS tells CloudWatch only.

    Received messages count until they are deleted, as they do there.
    """

    def age(self: Queue) -> int:
        sent = [message.sent_timestamp or 0 for message in self._messages]
        return int(time.time() - min(sent) / 1000) if sent else 0

    Queue.BASE_ATTRIBUTES = [*Queue.BASE_ATTRIBUTES, "ApproximateAgeOfOldestMessage"]
    Queue.approximate_age_of_oldest_message = property(age)  # type: ignore[attr-defined]


def launch_in_virtual_time(clock: VirtualClock) -> None:
    """Let an instance's launch time be of the clock that its age is judged by.

    Where that clock runs fast, a new instance would seem to have been there for long.
    """
    # What else the module tells by it is for people alone.
    vars(ec2_instances)["utcnow"] = lambda: datetime.fromtimestamp(clock.now(), UTC).replace(
        tzinfo=None
    )


def let_launches_fail() -> None:
    """Let a group be short of instances while its launch template is gone.

    It tries again whenever somebody looks at it. moto would fail the call that has changed the
    group, and never try again.
    """
    lock = threading.RLock()
    set_desired = FakeAutoScalingGroup.set_desired_capacity
    launch = FakeAutoScalingGroup.replace_autoscaling_group_instances
    describe = AutoScalingBackend.describe_auto_scaling_groups
    short: set[FakeAutoScalingGroup] = set()

    def try_to_launch(
        self: FakeAutoScalingGroup, count_needed: int, propagated_tags: dict[str, str]
    ) -> None:
        template, ec2 = self.ec2_launch_template, self.autoscaling_backend.ec2_backend
        with lock:
            if template is not None and template.id not in ec2.launch_templates:
                short.add(self)
                return
            short.discard(self)
            launch(self, count_needed, propagated_tags)

    def set_desired_alone(self: FakeAutoScalingGroup, new_capacity: int | None) -> None:
        with lock:
            set_desired(self, new_capacity)

    def describe_and_try_again(self: AutoScalingBackend, *args: Any, **kwargs: Any) -> Any:
        with lock:
            for group in self.autoscaling_groups.values():
                if group in short:
                    set_desired(group, group.desired_capacity)
        return describe(self, *args, **kwargs)

    FakeAutoScalingGroup.replace_autoscaling_group_instances = try_to_launch  # type: ignore[method-assign]
    FakeAutoScalingGroup.set_desired_capacity = set_desired_alone  # type: ignore[method-assign]
    AutoScalingBackend.describe_auto_scaling_groups = (  # type: ignore[method-assign]
        describe_and_try_again
    )


def _describe_end(execution: Execution) -> dict[str, Any]:
    """Give the ``detail`` of a "Step Functions Execution Status Change" event, times in ms."""
    if execution.stop_date is None:
        raise ValueError(f"execution {execution.name} has ended at no time")
    succeeded = execution.status == "SUCCEEDED"
    return {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine.arn,
        "name": execution.name,
        "status": execution.status,
        "startDate": round(execution.start_date.timestamp() * 1000),
        "stopDate": round(execution.stop_date.timestamp() * 1000),
        "input": json.dumps(execution.input_data),
        "output": json.dumps(execution.output) if succeeded else None,
        "stateMachineVersionArn": None,
        "stateMachineAliasArn": None,
        "redriveCount": 0,
        "redriveDate": None,
        "redriveStatus": "NOT_REDRIVABLE" if succeeded else "REDRIVABLE",
        "redriveStatusReason": "Execution is SUCCEEDED and cannot be redriven"
        if succeeded
        else None,
        "error": execution.error,
        "cause": execution.cause,
        "inputDetails": {"included": True},
        "outputDetails": {"included": True} if succeeded else None,
    }
