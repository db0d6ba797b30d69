"""Auto Scaling groups, with what EC2 knows of their instances."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from ml_service.domain.errors import MlServiceError, ScalingRefusedError
from ml_service.domain.fleets import Group, GroupMember

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_autoscaling.type_defs import InstanceTypeDef as GroupInstance
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeDef as EC2Instance


class GroupNotFoundError(MlServiceError):
    """When there is no Auto Scaling group of the configured name."""


class AutoScalingInstancePool:
    """Describes groups and asks them for a desired capacity."""

    def __init__(self, autoscaling: "AutoScalingClient", ec2: "EC2Client") -> None:
        self._autoscaling = autoscaling
        self._ec2 = ec2

    def describe(self, group_name: str) -> Group:
        """The group and its members, without those of the warm pool."""
        answer = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group_name])
        if not answer["AutoScalingGroups"]:
            raise GroupNotFoundError(f"There is no Auto Scaling group {group_name}.")
        group = answer["AutoScalingGroups"][0]
        # A warm pool's instances are listed with the others, as Warmed:Stopped and the like.
        members = {
            i["InstanceId"]: i
            for i in group.get("Instances", [])
            if not i["LifecycleState"].startswith("Warmed:")
        }
        return Group(
            desired=group["DesiredCapacity"],
            minimum=group["MinSize"],
            maximum=group["MaxSize"],
            members=self._describe_members(members),
        )

    def set_desired(self, group_name: str, desired: int) -> None:
        """Ask for a desired capacity; raises ScalingRefusedError."""
        try:
            self._autoscaling.set_desired_capacity(
                AutoScalingGroupName=group_name, DesiredCapacity=desired, HonorCooldown=False
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise ScalingRefusedError(f"SetDesiredCapacity {desired}: {code}") from error

    def _describe_members(self, members: Mapping[str, "GroupInstance"]) -> Sequence[GroupMember]:
        if not members:
            return []
        described: list[EC2Instance] = []
        # A filter, not InstanceIds: those fail as a whole if one instance is gone already.
        pages = self._ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "instance-id", "Values": list(members)}]
        )
        for page in pages:
            for reservation in page["Reservations"]:
                described += reservation["Instances"]
        return [
            GroupMember(
                instance_id=instance["InstanceId"],
                launched_at=instance["LaunchTime"],
                address=instance.get("PrivateIpAddress", ""),
                in_service=members[instance["InstanceId"]]["LifecycleState"] == "InService"
                and instance["State"]["Name"] == "running",
            )
            for instance in described
        ]
