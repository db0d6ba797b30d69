"""What AutoScalingInstancePool makes of AWS's own answers, on moto and where moto has none."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from ml_service.adapters.autoscaling import PAUSE_TAG, AutoScalingInstancePool
from ml_service.domain.errors import ScalingRefusedError

GROUP = "group-pulid"


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[Any, Any]]:
    """Clients of Auto Scaling and EC2; they take longer to make than any test does."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with mock_aws():
            yield boto3.client("autoscaling"), boto3.client("ec2")


@pytest.fixture
def autoscaling(clients: tuple[Any, Any]) -> Iterator[Any]:
    client, _ = clients
    client.create_launch_configuration(
        LaunchConfigurationName="comfyui", ImageId="ami-1", InstanceType="g5.xlarge"
    )
    client.create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        LaunchConfigurationName="comfyui",
        MinSize=1,
        MaxSize=3,
        DesiredCapacity=2,
        AvailabilityZones=["us-east-1a"],
    )
    yield client
    client.delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    client.delete_launch_configuration(LaunchConfigurationName="comfyui")


@pytest.fixture
def pool(clients: tuple[Any, Any], autoscaling: Any) -> AutoScalingInstancePool:
    return AutoScalingInstancePool(autoscaling, clients[1])


def test_a_usual_group_may_shrink(pool: AutoScalingInstancePool):
    group = pool.describe(GROUP)
    assert (group.desired, group.minimum, group.maximum) == (2, 1, 3)
    assert group.obstacles == []
    assert not group.is_paused
    assert [member.is_protected for member in group.members] == [False, False]


@pytest.mark.parametrize("state", ["Standby", "stopped"])
def test_running_is_in_service_in_the_group_and_running_in_ec2(
    clients: tuple[Any, Any], autoscaling: Any, pool: AutoScalingInstancePool, state: str
):
    first, second = pool.describe(GROUP).members
    assert first.in_service
    if state == "Standby":
        autoscaling.enter_standby(
            AutoScalingGroupName=GROUP,
            InstanceIds=[first.instance_id],
            ShouldDecrementDesiredCapacity=False,
        )
    else:
        clients[1].stop_instances(InstanceIds=[first.instance_id])
    in_service = {m.instance_id: m.in_service for m in pool.describe(GROUP).members}
    assert not in_service[first.instance_id]
    assert in_service[second.instance_id]


def test_the_groups_own_cooldown_is_not_relied_on(autoscaling: Any, pool: AutoScalingInstancePool):
    call = {"AutoScalingGroupName": GROUP, "DesiredCapacity": 3, "HonorCooldown": False}
    with Stubber(autoscaling) as aws:
        aws.add_response("set_desired_capacity", {}, call)
        pool.set_desired(GROUP, 3)
        aws.assert_no_pending_responses()


def test_only_the_unprotected_instance_goes(pool: AutoScalingInstancePool):
    first, second = pool.describe(GROUP).members
    pool.set_protection(GROUP, [first.instance_id], is_protected=True)
    pool.set_desired(GROUP, 1)
    (left,) = pool.describe(GROUP).members
    assert (left.instance_id, left.is_protected) == (first.instance_id, True)
    pool.set_protection(GROUP, [first.instance_id], is_protected=False)
    assert not pool.describe(GROUP).members[0].is_protected
    assert second.instance_id != left.instance_id


def test_more_instances_than_one_call_may_name_are_protected_in_several(
    autoscaling: Any, pool: AutoScalingInstancePool
):
    ids = [f"i-{number:017}" for number in range(120)]
    with Stubber(autoscaling) as aws:
        for start, end in ((0, 50), (50, 100), (100, 120)):
            aws.add_response(
                "set_instance_protection",
                {},
                {
                    "AutoScalingGroupName": GROUP,
                    "InstanceIds": ids[start:end],
                    "ProtectedFromScaleIn": True,
                },
            )
        pool.set_protection(GROUP, ids, is_protected=True)
        aws.assert_no_pending_responses()


def test_a_protection_that_is_refused_is_told(autoscaling: Any, pool: AutoScalingInstancePool):
    with Stubber(autoscaling) as aws:
        aws.add_client_error("set_instance_protection", "ResourceContention")
        with pytest.raises(ScalingRefusedError, match="ResourceContention"):
            pool.set_protection(GROUP, ["i-00000000000000001"], is_protected=True)


def test_an_instance_is_reported_unhealthy_and_one_that_is_gone_is_no_error(
    autoscaling: Any, pool: AutoScalingInstancePool
):
    first, _ = pool.describe(GROUP).members
    pool.report_unhealthy(first.instance_id)
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    health = {i["InstanceId"]: i["HealthStatus"] for i in group["Instances"]}
    assert health.pop(first.instance_id) == "Unhealthy"
    assert set(health.values()) == {"Healthy"}
    with Stubber(autoscaling) as aws:
        aws.add_client_error("set_instance_health", "ValidationError")
        pool.report_unhealthy(first.instance_id)
        aws.add_client_error("set_instance_health", "AccessDenied")
        with pytest.raises(ClientError, match="AccessDenied"):
            pool.report_unhealthy(first.instance_id)


@pytest.mark.parametrize(
    ("processes", "obstacles"),
    [
        (["Terminate"], ["The process Terminate is suspended."]),
        (["Launch"], ["The process Launch is suspended."]),
        (["AZRebalance"], []),
    ],
)
def test_suspended_processes_are_obstacles(
    autoscaling: Any, pool: AutoScalingInstancePool, processes: list[str], obstacles: list[str]
):
    autoscaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=processes)
    assert pool.describe(GROUP).obstacles == obstacles


@pytest.mark.parametrize(("reuses", "count"), [(True, 0), (False, 1)])
def test_a_warm_pool_that_takes_nothing_back_is_an_obstacle(
    autoscaling: Any, pool: AutoScalingInstancePool, reuses: bool, count: int
):
    autoscaling.put_warm_pool(
        AutoScalingGroupName=GROUP,
        PoolState="Stopped",
        InstanceReusePolicy={"ReuseOnScaleIn": reuses},
    )
    assert len(pool.describe(GROUP).obstacles) == count


@pytest.mark.parametrize(("value", "paused"), [("true", True), ("True", True), ("false", False)])
def test_a_tag_pauses_the_group(
    autoscaling: Any, pool: AutoScalingInstancePool, value: str, paused: bool
):
    autoscaling.create_or_update_tags(
        Tags=[
            {
                "ResourceId": GROUP,
                "ResourceType": "auto-scaling-group",
                "Key": PAUSE_TAG,
                "Value": value,
                "PropagateAtLaunch": False,
            }
        ]
    )
    assert pool.describe(GROUP).is_paused is paused


@pytest.mark.parametrize(
    ("statuses", "refreshing"),
    [
        ([], False),
        (["Pending"], True),
        (["InProgress"], True),
        (["Baking"], True),
        (["RollbackInProgress"], True),
        (["Successful"], False),
        (["Cancelled"], False),
        (["RollbackSuccessful"], False),
    ],
)
def test_the_newest_instance_refresh_tells(
    autoscaling: Any, pool: AutoScalingInstancePool, statuses: list[str], refreshing: bool
):
    refreshes = [{"InstanceRefreshId": "1", "Status": status} for status in statuses]
    with Stubber(autoscaling) as aws:
        aws.add_response("describe_instance_refreshes", {"InstanceRefreshes": refreshes})
        assert pool.is_refreshing(GROUP) is refreshing
