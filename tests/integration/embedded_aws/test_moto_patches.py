"""Canaries: each patch to moto's private parts still does what it is for."""

import json
import subprocess
import sys
import textwrap
import time
import uuid
from typing import Any

import pytest

from .conftest import SPEED, SampleAws, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def patched() -> dict[str, Any]:
    """Apply the patches in a process of its own, since they would stay in this one."""
    script = """
        import json, sys, time
        import moto.stepfunctions.parser.models
        from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
        from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
        from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
            state_task_service_sqs as sqs_task,
        )
        from local.aws import patch_moto
        patch_moto.reuse_task_clients("http://127.0.0.1:1")
        patch_moto.reuse_parsed_definitions()
        patch_moto.read_json_templates_as_json()
        from moto.cloudformation.models import Stack
        templates = [Stack.parse_template(text) for text in ('{"a": 1e3}', "a: !Ref b")]
        first = lambda_eval_utils.boto_client_for(region="us-east-1", service="lambda")
        second = lambda_eval_utils.boto_client_for(
            region="us-east-1", service="lambda", state_credentials=None
        )
        from moto.core import responses
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication
        from moto.sqs.models import Message, SQSBackend
        patch_moto.find_services_once()
        patch_moto.hasten_queues()
        patch_moto.tell_age_of_messages()
        names = responses.method_names_from_class
        dispatcher = DomainDispatcherApplication(lambda service: None)
        hosts = type(dispatcher).get_backend_for_host
        services = [dispatcher.get_backend_for_host(h) for h in ("dynamodb", "dynamodb")]
        sqs = SQSBackend("us-east-1", "123456789012")
        queue = sqs.create_queue("q")
        queue.message_retention_period = 60
        counted = 0
        def count(queue):
            global counted
            counted += 1
            return 0
        type(queue).approximate_number_of_messages = property(count)
        def is_retained(age):
            message = Message("id", "body")
            message.sent_timestamp = (time.time() - age) * 1000
            return sqs.is_message_valid_based_on_retention_period("q", message)
        def tell_age(*ages):
            for age in ages:
                message = Message("id", "body")
                message.sent_timestamp = (time.time() - age) * 1000
                queue._messages.append(message)
            return sqs.get_queue_attributes("q", ["ApproximateAgeOfOldestMessage"])
        retained = [is_retained(59), is_retained(61), counted]
        ages = [tell_age(), tell_age(5, 30)]
        definition = '{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}'
        parse = AmazonStateLanguageParser.parse
        print(json.dumps({
            "one client": first is second,
            "endpoint": first.meta.endpoint_url,
            "all tasks": sqs_task.boto_client_for is lambda_eval_utils.boto_client_for,
            "templates": templates,
            "one parse": parse(definition) is parse(definition),
            "one list of actions": names(SQSBackend) is names(SQSBackend),
            "services": [services, hosts.cache_info().hits],
            "ages": ages,
            "retained": retained,
        }))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        check=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_all_tasks_share_one_client_per_service(patched: dict[str, Any]) -> None:
    assert patched["one client"]
    assert patched["all tasks"]
    assert patched["endpoint"] == "http://127.0.0.1:1"


def test_a_template_is_read_as_json_where_it_is(patched: dict[str, Any]) -> None:
    """1e3 is a number in JSON and a text in YAML."""
    assert patched["templates"] == [{"a": 1000.0}, {"a": {"Ref": "b"}}]


def test_a_definition_is_parsed_once(patched: dict[str, Any]) -> None:
    assert patched["one parse"]


def test_a_service_and_its_actions_are_looked_up_once(patched: dict[str, Any]) -> None:
    assert patched["one list of actions"]
    assert patched["services"] == [["dynamodb", "dynamodb"], 1]


def test_a_message_expires_without_a_count_of_the_queue(patched: dict[str, Any]) -> None:
    assert patched["retained"] == [True, False, 0]


def test_a_queue_tells_the_age_of_its_oldest_message(patched: dict[str, Any]) -> None:
    ages = [int(attributes["ApproximateAgeOfOldestMessage"]) for attributes in patched["ages"]]
    assert ages == [0, pytest.approx(30, abs=1)]


def test_executions_that_share_a_parsed_definition_count_their_retries_apart(
    sample: SampleAws,
) -> None:
    names = [sample.order(failures=2) for _ in range(10)]
    assert {sample.result_of(name)["work"]["attempts"] for name in names} == {3}


@pytest.mark.parametrize("virtual_seconds", [1, 20])
def test_a_wait_state_takes_virtual_seconds(sample: SampleAws, virtual_seconds: int) -> None:
    wait = {"Type": "Wait", "Seconds": virtual_seconds, "End": True}
    assert _seconds(_run_state(sample, wait)) == pytest.approx(virtual_seconds / SPEED, abs=0.5)


def test_a_timestamp_is_waited_for_in_virtual_time(sample: SampleAws) -> None:
    until = time.gmtime(sample.running.clock.now() + 30)
    wait = {"Type": "Wait", "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", until), "End": True}
    assert _seconds(_run_state(sample, wait)) == pytest.approx(30 / SPEED, abs=0.8)


def test_retries_wait_in_virtual_time(sample: SampleAws) -> None:
    task = {
        "Type": "Task",
        "Resource": _arn(sample, "test-misbehave"),
        "Retry": [{"ErrorEquals": ["OddError"], "IntervalSeconds": 20, "MaxAttempts": 1}],
        "End": True,
    }
    execution = _run_state(sample, task, {"do": "raise"})
    assert execution["status"] == "FAILED"
    assert execution["error"] == "OddError"
    assert 20 / SPEED <= _seconds(execution) < 20 / SPEED + 4


def test_tasks_of_every_kind_reach_the_gateway(sample: SampleAws) -> None:
    invoke = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": _arn(sample, "test-misbehave"), "Payload.$": "$"},
        "OutputPath": "$.Payload",
        "End": True,
    }
    execution = _run_state(sample, invoke, {"hello": "there"})
    assert json.loads(execution["output"]) == {"hello": "there"}


def test_a_missing_function_is_an_error_that_a_catch_can_name(sample: SampleAws) -> None:
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": _arn(sample, "no-such-function")},
        "Catch": [{"ErrorEquals": ["Lambda.ResourceNotFoundException"], "Next": "Caught"}],
        "End": True,
    }
    execution = _run_state(sample, task, more={"Caught": {"Type": "Succeed"}})
    assert execution["status"] == "SUCCEEDED", (execution.get("error"), execution.get("cause"))


def _run_state(
    sample: SampleAws,
    state: dict[str, Any],
    event: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a state machine of one state (and those it leads to); give its description at the end."""
    name = f"canary-{uuid.uuid4().hex}"
    machine = sample.states.create_state_machine(
        name=name,
        roleArn="arn:aws:iam::123456789012:role/canary",
        definition=json.dumps({"StartAt": "Only", "States": {"Only": state, **(more or {})}}),
    )
    arn = sample.states.start_execution(
        stateMachineArn=machine["stateMachineArn"], name=name, input=json.dumps(event or {})
    )["executionArn"]

    def ended() -> dict[str, Any] | None:
        execution: dict[str, Any] = sample.states.describe_execution(executionArn=arn)
        return execution if execution["status"] != "RUNNING" else None

    answer: dict[str, Any] = wait_for(ended)
    return answer


def _seconds(execution: dict[str, Any]) -> float:
    assert execution["status"] in ("SUCCEEDED", "FAILED")
    span: float = (execution["stopDate"] - execution["startDate"]).total_seconds()
    return span


def _arn(sample: SampleAws, function_name: str) -> str:
    prefix = sample.stack.functions[0].arn.rpartition(":")[0]
    return f"{prefix}:{function_name}"


def _run_patched(patch: str, script: str) -> str:
    """Run a script against moto with one patch, the threads switching as often as they can."""
    setup = f"""
        import os, sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ[name] = "test"
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
        os.environ.pop("AWS_CA_BUNDLE", None)
        import boto3, moto.stepfunctions.parser.models
        from moto import mock_aws
        from local.aws import patch_moto
        patch_moto.{patch}()
        mock_aws().start()
        sys.setswitchinterval(1e-6)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(setup) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_message_is_lost_while_others_are_deleted() -> None:
    received = _run_patched(
        "keep_queues_whole",
        """
        from moto.sqs.models import sqs_backends
        sqs = boto3.client("sqs")
        sqs.create_queue(QueueName="q")
        backend = sqs_backends["123456789012"]["us-east-1"]
        received = set()

        def send(sender):
            for number in range(300):
                backend.send_message("q", f"{sender}-{number}")

        def receive():
            while len(received) < 900 and not over.is_set():
                for message in backend.receive_message("q", 10, 0, 30, []):
                    received.add(message.body)
                    backend.delete_message("q", message.receipt_handle)

        over = threading.Event()
        receivers = [threading.Thread(target=receive) for _ in range(2)]
        senders = [threading.Thread(target=send, args=(n,)) for n in range(3)]
        for thread in receivers + senders:
            thread.start()
        for thread in senders:
            thread.join()
        for thread in receivers:
            thread.join(timeout=10)
        over.set()
        print(len(received))
        """,
    )
    assert received == "900"


def test_of_many_writers_under_one_condition_one_writes() -> None:
    winners = _run_patched(
        "keep_conditions_true",
        """
        table = boto3.client("dynamodb")
        table.create_table(
            TableName="t", BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )

        # Its classes are made at the first look, and by each of several threads that look at once.
        refused = table.exceptions.ConditionalCheckFailedException

        def write(number):
            try:
                table.put_item(
                    TableName="t", Item={"id": {"S": str(number // 8)}},
                    ConditionExpression="attribute_not_exists(id)",
                )
            except refused:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            print(sum(pool.map(write, range(160))))
        """,
    )
    assert winners == "20"


def test_a_stopped_execution_is_aborted_whatever_the_stop_broke() -> None:
    state = _run_patched(
        "keep_stops",
        """
        from moto.core.config import default_user_config
        from moto.stepfunctions.parser.models import stepfunctions_parser_backends as backends
        default_user_config["stepfunctions"] = {"execute_state_machine": True}
        states = boto3.client("stepfunctions")
        machine = states.create_state_machine(
            name="m",
            roleArn="arn:aws:iam::123456789012:role/canary",
            definition='''{"StartAt": "A", "States":
                {"A": {"Type": "Wait", "Seconds": 60, "End": true}}}''',
        )["stateMachineArn"]
        arn = states.start_execution(stateMachineArn=machine, name="e", input="{}")["executionArn"]
        (running,) = backends["123456789012"]["us-east-1"].state_machines[0].executions
        while running.exec_worker.env is None:
            time.sleep(0.01)
        states.stop_execution(executionArn=arn)
        running.exec_worker.env.set_error({"error": "for want of what was skipped"})
        print(type(running.exec_worker.env.program_state()).__name__)
        """,
    )
    assert state == "ProgramStopped"


def test_a_group_whose_launch_template_is_gone_launches_when_it_is_back() -> None:
    counts = _run_patched(
        "let_launches_fail",
        """
        ec2, groups = boto3.client("ec2"), boto3.client("autoscaling")

        def make_template():
            data = {"ImageId": "ami-12c6146b", "InstanceType": "t3.micro"}
            answer = ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData=data)
            return {"LaunchTemplateId": answer["LaunchTemplate"]["LaunchTemplateId"]}

        def list_instances():
            (group,) = groups.describe_auto_scaling_groups()["AutoScalingGroups"]
            return [instance["InstanceId"] for instance in group["Instances"]]

        template, group = make_template(), {"AutoScalingGroupName": "g"}
        groups.create_auto_scaling_group(
            **group, LaunchTemplate=template, MinSize=1, MaxSize=3, DesiredCapacity=1,
            AvailabilityZones=["us-east-1a"],
        )
        (lost,) = list_instances()
        ec2.delete_launch_template(**template)
        groups.terminate_instance_in_auto_scaling_group(
            InstanceId=lost, ShouldDecrementDesiredCapacity=False
        )
        groups.set_desired_capacity(**group, DesiredCapacity=2)
        without = len(list_instances())
        groups.update_auto_scaling_group(**group, LaunchTemplate=make_template())
        print(without, len(list_instances()), len(list_instances()))
        """,
    )
    assert counts == "0 2 2"
