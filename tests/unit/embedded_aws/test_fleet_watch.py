"""The watch over Auto Scaling groups in local mode."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from local.aws.clients import AwsClients
from local.aws.fleet_watch import FleetWatch
from local.aws.virtual_clock import VirtualClock

GROUP = "group"


class Account:
    """An account whose group can be read, or not."""

    def __init__(self) -> None:
        self.instances: list[str] = []
        self.trouble: Exception | None = None
        self.looks_in_trouble = 0

    def describe_auto_scaling_groups(self, **_: object) -> dict[str, Any]:
        if self.trouble is not None:
            self.looks_in_trouble += 1
            raise self.trouble
        instances = [
            {"InstanceId": i, "AvailabilityZone": "us-east-1a", "HealthStatus": "Healthy"}
            for i in self.instances
        ]
        group = {
            "AutoScalingGroupName": GROUP,
            "AutoScalingGroupARN": "arn",
            "Instances": instances,
        }
        return {"AutoScalingGroups": [group]}

    def describe_instances(self, InstanceIds: list[str]) -> dict[str, Any]:  # noqa: N803
        instances = [{"InstanceId": i, "PrivateIpAddress": "127.0.0.1"} for i in InstanceIds]
        return {"Reservations": [{"Instances": instances}]}


class Servers:
    """Both the choice of a server and the server itself: notes what is up."""

    boot_seconds = 0.0

    def __init__(self) -> None:
        self.started: list[str] = []

    def take_server(self, instance_id: str) -> "Servers":
        self.started.append(instance_id)
        return self

    def give_back(self, instance_id: str) -> None:
        self.started.remove(instance_id)

    async def start(self, host: str, port: int) -> None: ...

    async def stop(self) -> None: ...


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_groups_are_followed_on_after_a_look_that_failed():
    account, servers = Account(), Servers()
    clients = SimpleNamespace(autoscaling=account, ec2=account, region="us-east-1")
    events: list[str] = []
    watch = FleetWatch(
        {GROUP: servers},
        cast(AwsClients, clients),
        VirtualClock.starting_now(1.0),
        lambda source, kind, resources, detail: events.append(kind),
    )

    async def follow() -> None:
        await watch.start()
        account.trouble = KeyError("an answer of another form")
        await until(lambda: account.looks_in_trouble > 1)
        account.trouble = None
        account.instances = ["i-1"]
        await until(lambda: servers.started == ["i-1"])
        account.instances = []
        await until(lambda: not servers.started)
        await watch.stop()

    asyncio.run(follow())
    assert events == ["EC2 Instance Launch Successful", "EC2 Instance Terminate Successful"]
