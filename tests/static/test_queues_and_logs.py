"""Nothing is lost without a trace: dead-letter queues, log groups, retention, encryption."""

from collections.abc import Mapping
from typing import Any

import pytest

FOURTEEN_DAYS = 14 * 24 * 3600


@pytest.fixture(scope="module")
def queues(resources: Mapping[str, Any]) -> dict[str, Any]:
    return _of_type(resources, "AWS::SQS::Queue")


def test_each_queue_has_its_dead_letter_queue(queues: Mapping[str, Any]) -> None:
    """Each has its own, named after it: from a shared one nobody knows where to send back."""
    dead_letter_queues = {name for name in queues if name.endswith("DeadLetterQueue")}
    for name in queues.keys() - dead_letter_queues:
        expected = name.removesuffix("Queue") + "DeadLetterQueue"
        assert expected in dead_letter_queues
        assert queues[name]["RedrivePolicy"] == {
            "deadLetterTargetArn": {"Fn::GetAtt": [expected, "Arn"]},
            "maxReceiveCount": 5,
        }
    assert len(queues) == 2 * len(dead_letter_queues)


def test_every_queue_keeps_messages_for_14_days_and_encrypts_them(
    queues: Mapping[str, Any],
) -> None:
    """A message keeps its age on its way to a dead-letter queue: it may not keep it shorter."""
    for queue in queues.values():
        assert queue["MessageRetentionPeriod"] == FOURTEEN_DAYS
        assert queue["SqsManagedSseEnabled"] is True


def test_input_queue_hides_a_batch_six_times_as_long_as_its_function_runs(
    template: Mapping[str, Any], functions: Mapping[str, Any], queues: Mapping[str, Any]
) -> None:
    """AWS's rule for event source mappings; with less, a throttled batch comes twice."""
    timeout = functions["dispatch_jobs"].get("Timeout", template["Globals"]["Function"]["Timeout"])

    assert queues["InputQueue"]["VisibilityTimeout"] == 6 * timeout


def test_fault_09_task_queues_hide_a_message_longer_than_admission_runs(
    template: Mapping[str, Any], functions: Mapping[str, Any], queues: Mapping[str, Any]
) -> None:
    """admit_jobs deletes what it received before anybody else can see it again."""
    timeout = functions["admit_jobs"].get("Timeout", template["Globals"]["Function"]["Timeout"])

    for name in ("LipSyncTaskQueue", "PulidTaskQueue", "MakeupTaskQueue"):
        assert queues[name]["VisibilityTimeout"] == 60 > timeout


def test_input_queue_takes_no_message_that_a_record_could_not_hold(
    queues: Mapping[str, Any],
) -> None:
    """An item of DynamoDB holds 400 KB; SQS would take 1 MiB."""
    assert queues["InputQueue"]["MaximumMessageSize"] == 262_144


def test_every_queue_bucket_and_topic_refuses_plain_http(resources: Mapping[str, Any]) -> None:
    """Messages, results and replies hold people's pictures."""
    guarded: set[str] = set()
    for kind, target in (
        ("AWS::SQS::QueuePolicy", "Queues"),
        ("AWS::SNS::TopicPolicy", "Topics"),
        ("AWS::S3::BucketPolicy", "Bucket"),
    ):
        for policy in _of_type(resources, kind).values():
            refusal = policy["PolicyDocument"]["Statement"][0]
            assert refusal["Effect"] == "Deny"
            assert refusal["Principal"] == "*"
            assert refusal["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            targets = policy[target] if isinstance(policy[target], list) else [policy[target]]
            guarded |= {reference["Ref"] for reference in targets}

    kinds = ("AWS::SQS::Queue", "AWS::SNS::Topic", "AWS::S3::Bucket")
    assert guarded == {n for n, resource in resources.items() if resource["Type"] in kinds}


def test_every_table_refuses_plain_http(resources: Mapping[str, Any]) -> None:
    """Its indexes, too; the policy names them, since a table cannot refer to itself."""
    for table in _of_type(resources, "AWS::DynamoDB::Table").values():
        (refusal,) = table["ResourcePolicy"]["PolicyDocument"]["Statement"]
        assert (refusal["Effect"], refusal["Principal"]) == ("Deny", "*")
        assert refusal["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        named = (
            refusal["Resource"] if isinstance(refusal["Resource"], list) else [refusal["Resource"]]
        )
        arn = (
            "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/"
            f"{table['TableName']['Fn::Sub']}"
        )
        indexes = [f"{arn}/index/*"] if "GlobalSecondaryIndexes" in table else []
        assert [resource["Fn::Sub"] for resource in named] == [arn, *indexes]


def test_each_function_and_state_machine_writes_to_its_own_log_group(
    resources: Mapping[str, Any],
) -> None:
    """A log group that AWS makes by itself keeps its lines for ever."""
    log_groups = _of_type(resources, "AWS::Logs::LogGroup")
    used = set()
    for name, properties in _of_type(resources, "AWS::Serverless::Function").items():
        expected = name.removesuffix("Function") + "LogGroup"
        assert properties["LoggingConfig"] == {"LogGroup": {"Ref": expected}}
        physical = properties["FunctionName"]["Fn::Sub"]
        assert log_groups[expected]["LogGroupName"] == {"Fn::Sub": f"/aws/lambda/{physical}"}
        used.add(expected)
    for properties in _of_type(resources, "AWS::Serverless::StateMachine").values():
        (destination,) = properties["Logging"]["Destinations"]
        used.add(destination["CloudWatchLogsLogGroup"]["LogGroupArn"]["Fn::GetAtt"][0])

    assert used == log_groups.keys()
    assert all(
        group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in log_groups.values()
    )


def test_the_state_machine_logs_no_execution_data(resources: Mapping[str, Any]) -> None:
    """Inputs and outputs of steps stay in the history, where fewer people look."""
    for properties in _of_type(resources, "AWS::Serverless::StateMachine").values():
        assert properties["Logging"]["IncludeExecutionData"] is False


def test_tables_and_bucket_are_encrypted_and_the_bucket_is_closed(
    resources: Mapping[str, Any],
) -> None:
    """Both tables can be restored to a point in time; nothing in the bucket can become public."""
    for table in _of_type(resources, "AWS::DynamoDB::Table").values():
        assert table["SSESpecification"] == {"SSEEnabled": True}
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    for bucket in _of_type(resources, "AWS::S3::Bucket").values():
        assert "BucketEncryption" in bucket
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}


def _of_type(resources: Mapping[str, Any], resource_type: str) -> dict[str, Any]:
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == resource_type
    }
