"""Auto Scaling groups, with what EC2 knows of their instances."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from ml_service.domain.errors import MlServiceError, ScalingRefusedError
from ml_service.domain.fleets import Group, GroupMember

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef
    from types_boto3_autoscaling.type_defs import InstanceTypeDef as GroupInstance
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeDef as EC2Instance


PAUSE_TAG = "ml-service:scaling-paused"
"""A group that has this tag with the value true is observed and left alone."""
_PROTECTION_LIMIT = 50  # instances that one call may name
_REFRESH_ENDS = frozenset(
    {"Successful", "Failed", "Cancelled", "RollbackFailed", "RollbackSuccessful"}
)


class GroupNotFoundError(MlServiceError):
    """When there is no Auto Scaling group of the configured name."""


class AutoScalingInstancePool:
    """Describes groups, asks them for a desired capacity, and protects their instances."""

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
            obstacles=_find_obstacles(group),
            is_paused=any(
                tag["Key"] == PAUSE_TAG and tag.get("Value", "").lower() == "true"
                for tag in group.get("Tags", [])
            ),
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

    def report_unhealthy(self, instance_id: str) -> None:
        """Set an instance's health, on which its group acts within a minute or two."""
        try:
            # No grace period: who reports has waited long enough for what has never answered.
            self._autoscaling.set_instance_health(
                InstanceId=instance_id, HealthStatus="Unhealthy", ShouldRespectGracePeriod=False
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise  # that one means that the instance is in no group any more

    def set_protection(
        self, group_name: str, instance_ids: Sequence[str], *, is_protected: bool
    ) -> None:
        """Protect instances from scale-in, or end it; raises ScalingRefusedError."""
        for start in range(0, len(instance_ids), _PROTECTION_LIMIT):
            self._set_protection(
                group_name, instance_ids[start : start + _PROTECTION_LIMIT], is_protected
            )

    def _set_protection(
        self, group_name: str, instance_ids: Sequence[str], is_protected: bool
    ) -> None:
        try:
            self._autoscaling.set_instance_protection(
                AutoScalingGroupName=group_name,
                InstanceIds=list(instance_ids),
                ProtectedFromScaleIn=is_protected,
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise ScalingRefusedError(f"SetInstanceProtection: {code}") from error

    def is_refreshing(self, group_name: str) -> bool:
        """Whether an instance refresh goes on."""
        answer = self._autoscaling.describe_instance_refreshes(
            AutoScalingGroupName=group_name, MaxRecords=1
        )
        # The newest comes first, and only one goes on at a time.
        refreshes = answer.get("InstanceRefreshes", [])
        return bool(refreshes) and refreshes[0]["Status"] not in _REFRESH_ENDS

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
                is_protected=members[instance["InstanceId"]].get("ProtectedFromScaleIn", False),
            )
            for instance in described
        ]


def _find_obstacles(group: "AutoScalingGroupTypeDef") -> Sequence[str]:
    """Say what in a group's own description speaks against shrinking it."""
    suspended = {process["ProcessName"] for process in group.get("SuspendedProcesses", [])}
    obstacles = [
        f"The process {name} is suspended." for name in ("Launch", "Terminate") if name in suspended
    ]
    pool = group.get("WarmPoolConfiguration")
    if pool is not None and not pool.get("InstanceReusePolicy", {}).get("ReuseOnScaleIn", False):
        obstacles.append("The warm pool takes no instance back: it would be terminated for good.")
    return obstacles
