"""The sample application runs on the embedded AWS as it would on AWS."""

import json
import time
import urllib.request
import uuid
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws.count_calls import CALLS_PATH
from local.aws.event_rules import ACCOUNT_ID
from local.aws.gateway import USAGE_PATH

from .conftest import BOOT_SECONDS, GROUP, SPEED, SampleAws, wait_for

pytestmark = pytest.mark.timeout(60)


def test_an_order_passes_queue_function_state_machine_topic_and_queue(sample: SampleAws) -> None:
    name = sample.order(failures=2, rest_seconds=10)
    result = sample.result_of(name)
    assert result["work"]["attempts"] == 3
    assert result["layer"] == "shared"


def test_a_catch_gets_the_handlers_error_name_and_text(sample: SampleAws) -> None:
    result = sample.result_of(sample.order(hopeless=True))
    assert result["error"]["Error"] == "HopelessError"
    assert "cannot be done" in json.loads(result["error"]["Cause"])["errorMessage"]
    assert json.loads(result["error"]["Cause"])["stackTrace"]


def test_a_poison_message_ends_in_the_dead_letter_queue_and_spares_its_neighbours(
    sample: SampleAws,
) -> None:
    poison = sample.order("poison")
    good = sample.order()
    assert sample.result_of(good)

    def find_dead_letter() -> bool:
        url = sample.stack.physical_ids["OrderDeadLetterQueue"]
        answer = sample.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
        bodies = [json.loads(message["Body"]) for message in answer.get("Messages", [])]
        return any(body["name"] == poison for body in bodies)

    wait_for(find_dead_letter)


def test_a_message_that_the_filter_leaves_out_is_deleted(sample: SampleAws) -> None:
    url = sample.stack.outputs["OrderQueueUrl"]
    sample.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"nameless": uuid.uuid4().hex}))

    def is_empty() -> bool:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = sample.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return all(answer["Attributes"][name] == "0" for name in names)

    wait_for(is_empty)


def test_a_failed_execution_brings_its_status_event_to_the_rule(sample: SampleAws) -> None:
    name = sample.order(report=0)
    event = wait_for(lambda: _status_event(sample, name))
    assert event["source"] == "aws.states"
    assert event["resources"] == [event["detail"]["executionArn"]]
    detail = event["detail"]
    assert detail["status"] == "FAILED"
    assert detail["stateMachineArn"] == sample.state_machine_arn
    assert (detail["error"], detail["cause"]) == ("NoWorkError", "nothing was done")
    assert json.loads(detail["input"])["name"] == name
    assert detail["output"] is None
    assert detail["startDate"] <= detail["stopDate"]


def test_an_aborted_execution_brings_its_status_event_to_the_rule(sample: SampleAws) -> None:
    name = f"aborted-{uuid.uuid4()}"
    arn = sample.states.start_execution(
        stateMachineArn=sample.state_machine_arn,
        name=name,
        input=json.dumps({"name": name, "rest_seconds": 10_000}),
    )["executionArn"]

    def is_resting() -> bool:
        history = sample.states.get_execution_history(executionArn=arn)["events"]
        return any(event["type"] == "WaitStateEntered" for event in history)

    wait_for(is_resting)
    sample.states.stop_execution(executionArn=arn)
    assert wait_for(lambda: _status_event(sample, name))["detail"]["status"] == "ABORTED"


def test_a_succeeded_execution_matches_no_rule(sample: SampleAws) -> None:
    name = sample.order()
    sample.result_of(name)
    assert _status_event(sample, name) is None


def test_the_minute_rule_ticks_every_virtual_minute(sample: SampleAws) -> None:
    ticks = wait_for(lambda: (seen := sample.events("Scheduled Event"))[2:] and seen)
    times = [datetime.fromisoformat(tick["time"]) for tick in ticks]
    gaps = {(later - earlier).total_seconds() for earlier, later in pairwise(times)}
    assert gaps == {60.0}
    assert all(":rule/" in tick["resources"][0] for tick in ticks)
    assert ticks[0]["detail"] == {}


def test_a_group_that_grows_and_shrinks_starts_and_stops_servers(sample: SampleAws) -> None:
    first = _instance_ids(sample)
    assert len(first) == 1
    server = sample.servers.by_instance[first[0]]
    assert server.started[0][1].startswith("127.0.")
    assert server.started[0][2] == 8188

    asked, asked_at = time.monotonic(), sample.running.clock.now()
    sample.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=2)
    (new,) = set(_instance_ids(sample)) - set(first)
    # Its age is judged by the stage's clock.
    described = sample.running.client("ec2").describe_instances(InstanceIds=[new])
    launched_at = described["Reservations"][0]["Instances"][0]["LaunchTime"].timestamp()
    assert int(asked_at) <= launched_at <= sample.running.clock.now()
    server = wait_for(lambda: sample.servers.by_instance.get(new))
    wait_for(lambda: server.started)
    assert server.started[0][0] - asked >= BOOT_SECONDS / SPEED
    event = wait_for(lambda: _instance_event(sample, "Launch", new))
    assert event["detail"]["AutoScalingGroupName"] == GROUP
    assert event["detail"]["Origin"] == "EC2"
    assert len(event["resources"]) == 2

    sample.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    (gone,) = {*first, new} - set(_instance_ids(sample))
    wait_for(lambda: sample.servers.by_instance[gone].stopped)
    assert wait_for(lambda: _instance_event(sample, "Terminate", gone))
    assert sample.servers.given_back == [gone]


@pytest.mark.parametrize(
    ("desired", "words"),
    [
        (4, "New SetDesiredCapacity value 4 is above max value 3 for the AutoScalingGroup."),
        (0, "New SetDesiredCapacity value 0 is below min value 1 for the AutoScalingGroup."),
    ],
)
def test_desired_capacity_out_of_bounds_is_refused_as_aws_does(
    sample: SampleAws, desired: int, words: str
) -> None:
    with pytest.raises(ClientError) as refusal:
        sample.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=desired)
    assert refusal.value.response["Error"]["Code"] == "ValidationError"
    assert refusal.value.response["Error"]["Message"] == words


def test_no_instance_refresh_is_ever_going_on(sample: SampleAws) -> None:
    answer = sample.autoscaling.describe_instance_refreshes(AutoScalingGroupName=GROUP)
    assert answer["InstanceRefreshes"] == []


def test_an_update_with_a_desired_capacity_out_of_bounds_is_refused(sample: SampleAws) -> None:
    with pytest.raises(ClientError, match="must be between the specified min size:1 and max"):
        sample.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, DesiredCapacity=9)


def test_what_moto_has_no_resource_type_for_is_created_by_api(sample: SampleAws) -> None:
    pool = sample.autoscaling.describe_warm_pool(AutoScalingGroupName=GROUP)
    assert pool["WarmPoolConfiguration"]["PoolState"] == "Stopped"


def test_the_stack_can_be_described(sample: SampleAws) -> None:
    answer = sample.running.client("cloudformation").describe_stack_resources(StackName="sample")
    types = {resource["ResourceType"] for resource in answer["StackResources"]}
    assert {"AWS::SQS::Queue", "AWS::Lambda::Function", "AWS::Events::Rule"} <= types


def test_a_functions_environment_is_the_templates_and_nothing_of_the_users(
    sample: SampleAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/of/the/user")
    monkeypatch.setenv("SECRET_OF_THE_USER", "1")
    environment = _invoke(sample, "test-misbehave", {"do": "environment"})
    assert environment["STAGE"] == "test"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "test-misbehave"
    assert environment["AWS_ENDPOINT_URL_LAMBDA"] == sample.running.endpoint
    assert environment["AWS_ENDPOINT_URL"] != sample.running.endpoint
    assert float(environment["CLOCK_RATE"]) == SPEED
    assert not {"AWS_CA_BUNDLE", "SECRET_OF_THE_USER", "AWS_PROFILE"} & environment.keys()
    (accept,) = [f for f in sample.stack.functions if f.name == "test-accept-orders"]
    assert accept.environment["ORDER_QUEUE_URL"] == sample.stack.outputs["OrderQueueUrl"]
    assert accept.environment["DATA_DIR"] == "/data/here"


def test_a_handlers_error_comes_back_as_lambda_says_it(sample: SampleAws) -> None:
    answer = sample.functions.invoke(FunctionName="test-misbehave", Payload=b'{"do": "raise"}')
    assert answer["FunctionError"] == "Unhandled"
    error = json.loads(answer["Payload"].read())
    assert (error["errorType"], error["errorMessage"]) == ("OddError", "as asked")


@pytest.mark.parametrize(
    "name",
    [
        "test-misbehave",
        f"arn:aws:lambda:us-east-1:{ACCOUNT_ID}:function:test-misbehave",
        f"{ACCOUNT_ID}:function:test-misbehave",
        "test-misbehave:$LATEST",
    ],
)
def test_a_function_answers_to_every_form_of_its_name(sample: SampleAws, name: str) -> None:
    assert _invoke(sample, name, {"a": "ä"}) == {"a": "ä"}


def test_an_unknown_function_is_not_found(sample: SampleAws) -> None:
    with pytest.raises(ClientError) as refusal:
        sample.functions.invoke(FunctionName="no-such-function")
    assert refusal.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_payload_that_is_no_json_is_refused(sample: SampleAws) -> None:
    with pytest.raises(ClientError) as refusal:
        sample.functions.invoke(FunctionName="test-misbehave", Payload=b"{")
    assert refusal.value.response["Error"]["Code"] == "InvalidRequestContentException"


def test_an_asynchronous_call_is_accepted_at_once_and_done_later(sample: SampleAws) -> None:
    mark = uuid.uuid4().hex
    answer = sample.functions.invoke(
        FunctionName="test-record-events",
        InvocationType="Event",
        Payload=json.dumps({"detail-type": mark, "time": "now"}),
    )
    assert answer["StatusCode"] == 202
    wait_for(lambda: sample.events(mark))


def test_what_functions_use_is_counted_and_what_others_use_is_not(sample: SampleAws) -> None:
    def read(path: str) -> Any:
        with urllib.request.urlopen(sample.running.endpoint + path, timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    before, calls = read(USAGE_PATH)["test-record-events"], read(CALLS_PATH)
    _invoke(sample, "test-record-events", {"detail-type": "counted", "time": "now"})
    after = read(USAGE_PATH)["test-record-events"]

    assert after["calls"] > before["calls"]
    assert after["seconds"] > before["seconds"]
    assert read(CALLS_PATH)["dynamodb PutItem"] > calls.get("dynamodb PutItem", 0)
    # The tests' own, and the pollers'.
    assert "cloudformation POST" not in calls
    assert not any(name.startswith("sqs ") for name in calls)


def test_objects_of_any_size_and_name_pass_the_gateway(sample: SampleAws) -> None:
    s3 = sample.running.client("s3")
    s3.create_bucket(Bucket="some-bucket")
    content = bytes(range(256)) * 12_000
    key = "a folder/ä+b%20c.bin"
    s3.put_object(Bucket="some-bucket", Key=key, Body=content, ContentType="image/png")
    answer = s3.get_object(Bucket="some-bucket", Key=key)
    assert answer["Body"].read() == content
    assert answer["ContentType"] == "image/png"
    assert s3.head_object(Bucket="some-bucket", Key=key)["ContentLength"] == len(content)
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "some-bucket", "Key": key})
    with urllib.request.urlopen(url, timeout=10) as download:  # noqa: S310  (our own http URL)
        assert download.read() == content


def test_queue_urls_lead_back_to_the_gateway(sample: SampleAws) -> None:
    url = sample.sqs.get_queue_url(QueueName="test-orders")["QueueUrl"]
    assert url == sample.stack.outputs["OrderQueueUrl"]
    assert url.startswith(sample.running.endpoint)


def test_a_burst_of_orders_is_done_one_result_each(sample: SampleAws) -> None:
    names = [sample.order(rest_seconds=1) for _ in range(30)]
    for name in names:
        assert sample.result_of(name, seconds=30)["work"]["attempts"] == 1


def _invoke(sample: SampleAws, name: str, event: dict[str, Any]) -> Any:
    answer = sample.functions.invoke(FunctionName=name, Payload=json.dumps(event))
    assert "FunctionError" not in answer
    return json.loads(answer["Payload"].read())


def _status_event(sample: SampleAws, execution_name: str) -> dict[str, Any] | None:
    events = sample.events("Step Functions Execution Status Change")
    return next((event for event in events if event["detail"]["name"] == execution_name), None)


def _instance_event(sample: SampleAws, change: str, instance_id: str) -> dict[str, Any] | None:
    events = sample.events(f"EC2 Instance {change} Successful")
    return next((e for e in events if e["detail"]["EC2InstanceId"] == instance_id), None)


def _instance_ids(sample: SampleAws) -> list[str]:
    answer = sample.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
    return [instance["InstanceId"] for instance in answer["AutoScalingGroups"][0]["Instances"]]


def test_an_event_source_mapping_is_shown_and_switched(sample: SampleAws) -> None:
    """What it does meanwhile is seen in test_alarms_ring.py."""
    functions = sample.functions
    mappings = functions.list_event_source_mappings(FunctionName="test-accept-orders")
    (mapping,) = mappings["EventSourceMappings"]
    assert mapping["EventSourceArn"].endswith(":test-orders")
    assert (mapping["State"], mapping["BatchSize"]) == ("Enabled", 10)
    others = functions.list_event_source_mappings(FunctionName="test-misbehave")
    assert others["EventSourceMappings"] == []

    switched = functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    assert switched["State"] in ("Disabling", "Disabled")
    switched = functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
    assert switched["State"] == "Enabled"
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.update_event_source_mapping(UUID=str(uuid.uuid4()), Enabled=False)
    with pytest.raises(functions.exceptions.InvalidParameterValueException):
        functions.update_event_source_mapping(UUID=mapping["UUID"], BatchSize=5)
