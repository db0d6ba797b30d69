"""One embedded AWS with the sample application, for all tests of this folder."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local.aws.embedded_aws import AwsOptions, EmbeddedAws, RunningAws, running_embedded_aws
from local.aws.stack import DeployedStack, StackSpec

SAMPLE_APP = Path(__file__).parent / "sample_app"
SPEED = 20.0
BOOT_SECONDS = 20.0  # Virtual: one real second.
GROUP = "sample-group"


@dataclass
class RecordedServer:
    """Stands for a ComfyUI server: only remembers whether it runs, and since when."""

    started: list[tuple[float, str, int]] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)

    async def start(self, host: str, port: int) -> None:
        self.started.append((time.monotonic(), host, port))

    async def stop(self) -> None:
        self.stopped.append(time.monotonic())


class RecordedServers:
    boot_seconds = BOOT_SECONDS

    def __init__(self) -> None:
        self.by_instance: dict[str, RecordedServer] = {}
        self.given_back: list[str] = []

    def take_server(self, instance_id: str) -> RecordedServer:
        return self.by_instance.setdefault(instance_id, RecordedServer())

    def give_back(self, instance_id: str) -> None:
        self.given_back.append(instance_id)


class SampleAws:
    """The running sample application, with what the tests ask of it."""

    def __init__(self, running: RunningAws[DeployedStack], servers: RecordedServers) -> None:
        self.running = running
        self.stack = running.deployed
        self.servers = servers
        self.sqs = running.client("sqs")
        self.states = running.client("stepfunctions")
        self.dynamodb = running.client("dynamodb")
        self.autoscaling = running.client("autoscaling")
        self.functions = running.client("lambda")
        self._results: dict[str, dict[str, Any]] = {}

    @property
    def state_machine_arn(self) -> str:
        return self.stack.outputs["StateMachineArn"]

    def order(self, prefix: str = "order", **wishes: Any) -> str:
        """Send an order, give its unique name."""
        name = f"{prefix}-{uuid.uuid4()}"
        self.sqs.send_message(
            QueueUrl=self.stack.outputs["OrderQueueUrl"],
            MessageBody=json.dumps({"name": name, **wishes}),
        )
        return name

    def result_of(self, name: str, seconds: float = 20) -> dict[str, Any]:
        """Wait for the message that the state machine published for an order."""
        return wait_for(lambda: self._find_result(name), seconds)

    def _find_result(self, name: str) -> dict[str, Any] | None:
        if name not in self._results:
            url = self.stack.outputs["ResultQueueUrl"]
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            results = [json.loads(message["Body"]) for message in answer.get("Messages", [])]
            self._results |= {result["name"]: result for result in results}
        return self._results.get(name)

    def events(self, detail_type: str) -> list[dict[str, Any]]:
        """Give the events of a kind that rules have brought to the recording function."""
        items = self.dynamodb.scan(TableName="test-events", ConsistentRead=True)["Items"]
        events = [json.loads(item["event"]["S"]) for item in items]
        return sorted(
            (event for event in events if event["detail-type"] == detail_type),
            key=lambda event: str(event["time"]),
        )


def wait_for(look: Callable[[], Any], seconds: float = 20) -> Any:
    """Look again and again until there is something to see."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"nothing came within {seconds} s"
        time.sleep(0.1)
    return seen


@pytest.fixture(scope="package")
def sample() -> Iterator[SampleAws]:
    servers = RecordedServers()

    async def deploy(aws: EmbeddedAws) -> DeployedStack:
        network = await aws.create_network()
        stack = await aws.deploy(
            StackSpec(
                name="sample",
                template_path=SAMPLE_APP / "template.yaml",
                parameters={"Stage": "test", "SubnetIds": network.subnet_id},
                environment_overrides={"DATA_DIR": "/data/here"},
            )
        )
        await aws.watch_fleets({GROUP: servers})
        return stack

    with running_embedded_aws(deploy, AwsOptions(speed=SPEED)) as running:
        yield SampleAws(running, servers)
