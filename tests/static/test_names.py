"""Names that others rely on: the backend, the operators, the other template."""

from typing import Any

from tests.static.deploy_template import ACCOUNT, REGION, Deployment

FLEETS = ("lip-sync", "pulid", "makeup")
LOGICAL_PREFIXES = {"lip-sync": "LipSync", "pulid": "Pulid", "makeup": "Makeup"}


def _queue_url(name: str) -> str:
    return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}"


def test_queues_have_the_names_of_the_backends_contract(deployment: Deployment) -> None:
    """The backend's own configuration holds the input queue's name; operators know the others."""
    stage, names = deployment.stage, deployment.names

    assert names["InputQueue"] == _queue_url(f"{stage}-ml-service-input-queue")
    assert names["InputDeadLetterQueue"] == _queue_url(f"{stage}-ml-service-input-queue-deadletter")
    for fleet, prefix in LOGICAL_PREFIXES.items():
        queue = f"{stage}-ml-service-comfyui-{fleet}-task-queue"
        assert names[f"{prefix}TaskQueue"] == _queue_url(queue)
        assert names[f"{prefix}TaskDeadLetterQueue"] == _queue_url(f"{queue}-deadletter")


def test_prods_reply_topic_has_no_stage_in_its_name(deployments: dict[str, Deployment]) -> None:
    """The backend's subscription names the topic, and prod's has always been the bare name."""
    topics = {stage: d.names["ReplyTopic"].split(":")[-1] for stage, d in deployments.items()}

    assert topics == {"prod": "comfyui-message", "dev": "comfyui-message-dev"}


def test_functions_are_named_after_their_folders(
    deployment: Deployment, functions: dict[str, Any]
) -> None:
    """One vocabulary: folder, logical id and physical name are the same words."""
    for folder in functions:
        logical_id = "".join(word.title() for word in folder.split("_")) + "Function"
        kebab = folder.replace("_", "-")
        assert deployment.names[logical_id] == f"{deployment.stage}-ml-service-{kebab}"


def test_tables_bucket_and_state_machine_have_their_names(deployment: Deployment) -> None:
    """Operators and local mode find them by these."""
    stage, names = deployment.stage, deployment.names

    assert names["JobTable"] == f"{stage}-ml-service-jobs"
    assert names["FleetTable"] == f"{stage}-ml-service-fleets"
    assert names["ResultBucket"] == f"{stage}-ml-service-results-{ACCOUNT}"
    assert names["RunJobStateMachine"].endswith(f":stateMachine:{stage}-ml-service-run-job")


def test_both_templates_name_the_same_groups(
    template: dict[str, Any], fleets_template: dict[str, Any]
) -> None:
    """The service looks for exactly the groups that the fleets' template makes."""
    for fleet, prefix in LOGICAL_PREFIXES.items():
        expected = f"comfyui-{fleet}-task-instance-autoscaling-group"
        assert template["Parameters"][f"{prefix}GroupName"]["Default"] == expected
        assert fleets_template["Parameters"][f"{prefix}GroupName"]["Default"] == expected
        group = fleets_template["Resources"][f"{prefix}AutoScalingGroup"]["Properties"]
        assert group["AutoScalingGroupName"] == {"Ref": f"{prefix}GroupName"}


def test_outputs_lead_to_the_resources_of_their_name(deployment: Deployment) -> None:
    """What a user copies out of the stack is the thing it claims to be."""
    names = deployment.names

    assert deployment.outputs == {
        "InputQueueUrl": names["InputQueue"],
        "ReplyTopicArn": names["ReplyTopic"],
        "ResultBucketName": names["ResultBucket"],
        "JobTableName": names["JobTable"],
        "FleetTableName": names["FleetTable"],
        "RunJobStateMachineArn": names["RunJobStateMachine"],
        "AlarmTopicArn": names["AlarmTopic"],
        "FunctionsSecurityGroupId": names["FunctionsSecurityGroup"],
    }


def test_dashboard_shows_only_what_is_deployed(deployment: Deployment) -> None:
    """A metric with a wrong name is an empty graph that nobody notices."""
    known = {name.split("/")[-1] for name in deployment.names.values()}
    known |= {name.split(":")[-1] for name in deployment.names.values()}
    known |= set(deployment.names.values())
    known |= {f"comfyui-{fleet}-task-instance-autoscaling-group" for fleet in FLEETS}
    metrics = [
        metric
        for widget in deployment.dashboard["widgets"]
        for metric in widget["properties"].get("metrics", ())
        if isinstance(metric[0], str)
    ]

    aws_metrics = [metric for metric in metrics if metric[0].startswith("AWS/")]
    assert aws_metrics
    assert [metric for metric in aws_metrics if metric[3] not in known] == []
    own_namespaces = {metric[0] for metric in metrics} - {m[0] for m in aws_metrics}
    variables = deployment.environments[f"{deployment.stage}-ml-service-scale-fleets"]
    assert own_namespaces == {variables["POWERTOOLS_METRICS_NAMESPACE"]}
