"""Puts servers behind the instances of Auto Scaling groups, as booting and terminating would."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from local.aws.clients import AwsClients
from local.aws.event_rules import ACCOUNT_ID
from local.aws.loopback_subnet import COMFYUI_PORT
from local.aws.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from types_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.2

PublishEvent = Callable[[str, str, Sequence[str], Mapping[str, Any]], None]


class InstanceServer(Protocol):
    """What runs on an instance."""

    async def start(self, host: str, port: int) -> None:
        """Listen; raises OSError."""

    async def stop(self) -> None:
        """Stop listening and cut what is under way."""


class ServerChoice(Protocol):
    """Decides what runs on the instances of one group, and when a new one is up."""

    boot_seconds: float  # Virtual; the instances that are there from the start are up at once.

    def take_server(self, instance_id: str) -> InstanceServer:
        """Give a server that is not started yet."""

    def give_back(self, instance_id: str) -> None:
        """Learn that the instance and its server are gone."""


@dataclass
class _Instance:
    group_name: str
    zone: str
    task: asyncio.Task[None]
    server: InstanceServer | None = None


class FleetWatch:
    """Follows Auto Scaling groups: starts and stops servers, and tells of it as AWS does."""

    def __init__(
        self,
        groups: Mapping[str, ServerChoice],
        clients: AwsClients,
        clock: VirtualClock,
        publish: PublishEvent,
    ) -> None:
        """Take what runs on the instances of each group (by its name)."""
        self._groups = groups
        self._clients = clients
        self._clock = clock
        self._publish = publish
        self._instances: dict[str, _Instance] = {}
        self._loop_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait until the servers of all present instances are up, then follow the groups.

        Raises OSError where an instance's address cannot be bound.
        """
        await self._look(is_first=True)
        await asyncio.gather(*(instance.task for instance in self._instances.values()))
        self._loop_task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Stop following, and all servers."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        await asyncio.gather(*(self._stop_server(key) for key in list(self._instances)))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._look(is_first=False)
            except Exception:  # noqa: BLE001  (whatever it was, the groups go on changing)
                _log.exception("A look at the Auto Scaling groups failed")

    async def _look(self, *, is_first: bool) -> None:
        groups = await asyncio.to_thread(self._read_groups)
        present = {
            instance["InstanceId"]: (group, instance["AvailabilityZone"])
            for group in groups
            for instance in group["Instances"]
        }
        new = [instance_id for instance_id in present if instance_id not in self._instances]
        addresses = await asyncio.to_thread(self._read_addresses, new) if new else {}
        for instance_id in new:
            group, zone = present[instance_id]
            name = group["AutoScalingGroupName"]
            choice = self._groups[name]
            boot_seconds = 0.0 if is_first else self._clock.real_seconds(choice.boot_seconds)
            boot = self._boot(instance_id, choice, addresses[instance_id], boot_seconds)
            task = asyncio.get_running_loop().create_task(boot)
            self._instances[instance_id] = _Instance(name, zone, task)
            if not is_first:
                # Of the others AWS has told before the application was deployed.
                task.add_done_callback(_log_failed_boot)
                self._tell("Launch", instance_id, group, zone)
        group_of = {group["AutoScalingGroupName"]: group for group in groups}
        for instance_id in [key for key in self._instances if key not in present]:
            instance = self._instances[instance_id]
            await self._stop_server(instance_id)
            if instance.group_name in group_of:
                group = group_of[instance.group_name]
                self._tell("Terminate", instance_id, group, instance.zone)

    async def _boot(
        self, instance_id: str, choice: ServerChoice, address: str, boot_seconds: float
    ) -> None:
        await asyncio.sleep(boot_seconds)
        server = choice.take_server(instance_id)
        self._instances[instance_id].server = server
        await server.start(address, COMFYUI_PORT)

    async def _stop_server(self, instance_id: str) -> None:
        instance = self._instances.pop(instance_id)
        instance.task.cancel()
        await asyncio.gather(instance.task, return_exceptions=True)
        if instance.server is not None:
            await instance.server.stop()
            self._groups[instance.group_name].give_back(instance_id)

    def _read_groups(self) -> "list[AutoScalingGroupTypeDef]":
        answer = self._clients.autoscaling.describe_auto_scaling_groups(
            AutoScalingGroupNames=list(self._groups)
        )
        for group in answer["AutoScalingGroups"]:
            for instance in group["Instances"]:
                if instance["HealthStatus"] == "Unhealthy":
                    # As Auto Scaling does, which launches another; the next look sees both.
                    self._clients.autoscaling.terminate_instance_in_auto_scaling_group(
                        InstanceId=instance["InstanceId"], ShouldDecrementDesiredCapacity=False
                    )
        return answer["AutoScalingGroups"]

    def _read_addresses(self, instance_ids: list[str]) -> dict[str, str]:
        answer = self._clients.ec2.describe_instances(InstanceIds=instance_ids)
        return {
            instance["InstanceId"]: instance["PrivateIpAddress"]
            for reservation in answer["Reservations"]
            for instance in reservation["Instances"]
        }

    def _tell(
        self, change: str, instance_id: str, group: "AutoScalingGroupTypeDef", zone: str
    ) -> None:
        launched = change == "Launch"
        verb = "Launching a new" if launched else "Terminating"
        now = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds")
        region = self._clients.region
        self._publish(
            "aws.autoscaling",
            f"EC2 Instance {change} Successful",
            [
                group["AutoScalingGroupARN"],
                f"arn:aws:ec2:{region}:{ACCOUNT_ID}:instance/{instance_id}",
            ],
            {
                "StatusCode": "InProgress",
                "Description": f"{verb} EC2 instance: {instance_id}",
                "AutoScalingGroupName": group["AutoScalingGroupName"],
                "ActivityId": str(uuid.uuid4()),
                "Details": {
                    "Availability Zone": zone,
                    "Subnet ID": group.get("VPCZoneIdentifier", ""),
                },
                "RequestId": str(uuid.uuid4()),
                "StatusMessage": "",
                "StartTime": now.replace("+00:00", "Z"),
                "EndTime": now.replace("+00:00", "Z"),
                "EC2InstanceId": instance_id,
                "Cause": "The group's desired capacity was changed.",
                "Origin": "EC2" if launched else "AutoScalingGroup",
                "Destination": "AutoScalingGroup" if launched else "EC2",
            },
        )


def _log_failed_boot(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("The server of a new instance did not start: %s", error)
