"""Every alarm of a stage rings when its trouble comes, and ends with it, on one local mode.

The trouble is made in the system: instances die, a launch template is deleted, a rule is disabled.
What takes long, as half an hour of waiting, is waited for together.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import requests

from local.aws.embedded_aws import AwsOptions, EmbeddedAws, RunningAws, running_embedded_aws
from local.backend import Backend, Reply
from local.find_backend import Target
from local.local_mode import FLEETS, LocalDeployment, LocalOptions, deploy_ml_service
from local.local_names import REPLY_QUEUE
from local.sample_jobs import SampleJob, make_color, prepare_sample_job
from local.triage import run_drop
from ml_service.domain.errors import JobNotFoundError
from tests.makers import CATALOG

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

SPEED = 20.0
MINUTE = 60 / SPEED
PATIENCE = 600.0
"""Real seconds for what takes two minutes where nothing else runs."""
WORKFLOWS = {"lip-sync": "sonic-text", "pulid": "flux-prompt", "makeup": "music-gen"}
PREFIX = "prod-ml-service-"


def of_each_fleet(*kinds: str) -> set[str]:
    return {f"{fleet}-{kind}" for fleet in FLEETS for kind in kinds}


GIVEN_UP = {"input-dead-letters", *of_each_fleet("dead-letters")}
BROKEN = of_each_fleet("instance-quarantined")
LOST = of_each_fleet("no-capacity", "launch-failing", "at-maximum", "long-wait")
REPLACED = of_each_fleet("instance-unhealthy")
UNMENDED = {"jobs-overdue", "replies-unpublished", "api-errors"}
STOPPED = {"input-queue-stuck", *of_each_fleet("scaler-silent")}
ELSEWHERE = {"warm-up-failed"}
"""It rings in test_run_job.py, by an instance whose GPU gives out while it is warmed up."""


class Operator(Backend):
    """Breaks a stage and mends it, and hears its alarms."""

    def __init__(self, aws: RunningAws[LocalDeployment]) -> None:
        super().__init__(asdict(aws.deployed))
        self.autoscaling = aws.client("autoscaling")
        self.cloudwatch = aws.client("cloudwatch")
        self.ec2 = aws.client("ec2")
        self.events = aws.client("events")
        self.sns = aws.client("sns")
        (topic,) = {a for alarm in self.list_alarms() for a in alarm["AlarmActions"]}
        self.alarm_queue_url = self.subscribe("who-is-on-call", topic)
        self.heard: list[tuple[str, str]] = []
        """Names and states of the alarms that rang or ended, in their order."""
        self.replies: dict[str, Reply] = {}

    def subscribe(self, queue: str, topic: str) -> str:
        """Let a queue have what a topic tells; gives the queue's URL."""
        url: str = self.sqs.create_queue(QueueName=queue)["QueueUrl"]
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        self.sns.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=answer["Attributes"]["QueueArn"],
            Attributes={"RawMessageDelivery": "true"},
        )
        return url

    def list_alarms(self) -> list[dict[str, Any]]:
        alarms: list[dict[str, Any]] = self.cloudwatch.describe_alarms()["MetricAlarms"]
        return alarms

    def listen(self) -> None:
        answer = self.sqs.receive_message(
            QueueUrl=self.alarm_queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1
        )
        for message in answer.get("Messages", ()):
            told = json.loads(message["Body"])
            self.heard.append((told["AlarmName"].removeprefix(PREFIX), told["NewStateValue"]))
            self.sqs.delete_message(
                QueueUrl=self.alarm_queue_url, ReceiptHandle=message["ReceiptHandle"]
            )

    def await_alarms(self, names: Collection[str], state: str) -> None:
        """Wait until these alarms are in a state, and have told it."""

        def are_told() -> bool:
            self.listen()
            latest = dict(self.heard)
            return all(latest.get(name) == state for name in names)

        self.await_true(are_told)
        states = {a["AlarmName"].removeprefix(PREFIX): a["StateValue"] for a in self.list_alarms()}
        assert {states[name] for name in names} == {state}

    def await_true(self, look: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not look():
            assert time.monotonic() < end, f"it did not come; heard: {self.heard}"
            time.sleep(0.2)

    def await_ready(self) -> None:
        def are_ready() -> bool:
            return all(any(i.is_ready for i in self.fleets.list_instances(f)) for f in FLEETS)

        self.await_true(are_ready)

    def post(self, fleet: str) -> SampleJob:
        workflow = CATALOG.workflow(WORKFLOWS[fleet])
        job = prepare_sample_job(self, workflow, make_color(FLEETS.index(fleet), len(FLEETS)))
        self.send(job.body)
        return job

    def post_with_deadline(self, seconds: int) -> str:
        """A job for pulid that nobody waits for any longer; gives its id when it is on record."""
        job_id = str(uuid.uuid4())
        inputs = {"positive_prompt": "a red kite"}
        message = {"workflow": "text-to-image", "job_id": job_id, "inputs": inputs}
        self.send(json.dumps({**message, "deadline_seconds": seconds}))
        self.await_true(lambda: self.is_on_record(job_id))
        return job_id

    def is_on_record(self, job_id: str) -> bool:
        try:
            self.jobs.get(job_id)
        except JobNotFoundError:
            return False
        return True

    def change_faults(self, method: str, **fault: object) -> None:
        """Add a fault to each instance (POST), or clear them all (DELETE)."""
        for fleet in FLEETS:
            for instance in self.fleets.list_instances(fleet):
                url = f"http://{instance.address}:8188/_simulator/faults"
                requests.request(method, url, json=fault, timeout=5).raise_for_status()

    def task_queue_url(self, fleet: str) -> str:
        url: str = self.ready["fleets"][fleet]["task_queue_url"]
        return url

    def set_visibility(self, fleet: str, seconds: float) -> None:
        self.sqs.set_queue_attributes(
            QueueUrl=self.task_queue_url(fleet), Attributes={"VisibilityTimeout": f"{seconds:.0f}"}
        )

    def delete_launch_template(self, fleet: str) -> dict[str, Any]:
        """What instances are launched by is gone; gives what makes it anew."""
        group = self.ready["fleets"][fleet]["group_name"]
        answer = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])
        template = answer["AutoScalingGroups"][0]["LaunchTemplate"]
        versions = self.ec2.describe_launch_template_versions(
            LaunchTemplateId=template["LaunchTemplateId"]
        )["LaunchTemplateVersions"]
        self.ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
        return {
            "LaunchTemplateName": template["LaunchTemplateName"],
            "LaunchTemplateData": versions[-1]["LaunchTemplateData"],
        }

    def restore_launch_template(self, fleet: str, described: dict[str, Any]) -> None:
        created = self.ec2.create_launch_template(**described)["LaunchTemplate"]
        self.autoscaling.update_auto_scaling_group(
            AutoScalingGroupName=self.ready["fleets"][fleet]["group_name"],
            LaunchTemplate={"LaunchTemplateId": created["LaunchTemplateId"], "Version": "1"},
        )

    def set_maximum(self, fleet: str, maximum: int) -> None:
        self.autoscaling.update_auto_scaling_group(
            AutoScalingGroupName=self.ready["fleets"][fleet]["group_name"], MaxSize=maximum
        )

    def delete_reply_topic(self) -> str:
        """The backend hears nothing any more; gives the topic's ARN."""
        (topic,) = {
            subscription["TopicArn"]
            for subscription in self.sns.list_subscriptions()["Subscriptions"]
            if subscription["Endpoint"].endswith(f":{REPLY_QUEUE}")
        }
        self.sns.delete_topic(TopicArn=topic)
        return str(topic)

    def restore_reply_topic(self, arn: str) -> None:
        created = self.sns.create_topic(Name=arn.rpartition(":")[2])["TopicArn"]
        assert created == arn
        self.subscribe(REPLY_QUEUE, arn)

    def receive_all(self, partial_names: Collection[str]) -> dict[str, Reply]:
        """The replies under these names."""

        def are_there() -> bool:
            for reply in self.receive_replies(wait_seconds=1):
                self.replies[reply.data["PartialName"]] = reply
            return self.replies.keys() >= set(partial_names)

        self.await_true(are_there)
        return {name: self.replies[name] for name in partial_names}

    def cut_record(self, job_id: str) -> str:
        """Leave nobody able to read a job's record; gives the record."""
        record = str(self.job_table.get_item(Key={"job_id": job_id})["Item"]["record"])
        self.write_record(job_id, record[:20])
        return record

    def write_record(self, job_id: str, record: str) -> None:
        self.job_table.update_item(
            Key={"job_id": job_id},
            UpdateExpression="SET #record = :record",
            ExpressionAttributeNames={"#record": "record"},
            ExpressionAttributeValues={":record": record},
        )

    def switch_mapping(self, *, enabled: bool) -> None:
        """Switch what feeds dispatch_jobs, and wait until it has happened."""
        name = f"{PREFIX}dispatch-jobs"
        (mapping,) = self.functions.list_event_source_mappings(FunctionName=name)[
            "EventSourceMappings"
        ]
        self.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)
        wanted = "Enabled" if enabled else "Disabled"

        def is_switched() -> bool:
            (now,) = self.functions.list_event_source_mappings(FunctionName=name)[
                "EventSourceMappings"
            ]
            return bool(now["State"] == wanted)

        self.await_true(is_switched)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder: Path = tmp_path_factory.mktemp("stage")
    options = LocalOptions(speed=SPEED, prompt_seconds=0.2, boot_seconds=0.0)

    async def deploy(aws: EmbeddedAws) -> LocalDeployment:
        return await deploy_ml_service(aws, options, folder)

    with running_embedded_aws(deploy, AwsOptions(speed=SPEED)) as running:
        operator = Operator(running)
        operator.await_ready()
        yield operator


def test_messages_that_are_given_up_ring_until_they_are_dropped(operator: Operator) -> None:
    """One that is no message, and on each task queue one that no job stands behind."""
    operator.send("no message, and from nobody")
    for fleet in FLEETS:
        # A queue here counts real seconds: this is the stage's minute.
        operator.set_visibility(fleet, MINUTE)
        operator.sqs.send_message(
            QueueUrl=operator.task_queue_url(fleet),
            MessageBody=json.dumps({"workflow": "text-to-image", "job_id": "no-job", "inputs": {}}),
        )
    operator.await_alarms(GIVEN_UP, "ALARM")
    for fleet in FLEETS:
        operator.set_visibility(fleet, 60)
    assert run_drop(Target(endpoint=operator.ready["endpoint"]), None, None) == 0
    operator.await_alarms(GIVEN_UP, "OK")


def test_instances_that_break_every_prompt_ring_until_they_are_trusted_again(
    operator: Operator,
) -> None:
    """Two jobs lose both of their attempts on each fleet's only instance: one fault too many."""
    operator.change_faults("POST", kind="black-hole")
    for fleet in FLEETS:
        for _ in range(2):
            operator.post(fleet)
    operator.await_alarms(BROKEN, "ALARM")
    operator.change_faults("DELETE")
    operator.await_alarms(BROKEN, "OK")


def test_lost_instances_jobs_and_replies_ring_until_they_are_back(operator: Operator) -> None:
    """Fleets at their maximum lose their only instance for good; topic and a record break, too."""
    operator.await_ready()
    operator.heard.clear()
    for fleet in FLEETS:
        operator.set_maximum(fleet, 1)
    templates = {fleet: operator.delete_launch_template(fleet) for fleet in FLEETS}
    operator.change_faults("POST", kind="exit", on="request")
    operator.await_true(lambda: not any(operator.fleets.list_instances(fleet) for fleet in FLEETS))
    operator.await_alarms(REPLACED, "OK")  # told only when they have rung
    waiting = [operator.post(fleet) for fleet in FLEETS]
    topic = operator.delete_reply_topic()
    unanswered = operator.post_with_deadline(60)
    unreadable = operator.post_with_deadline(300)
    record = operator.cut_record(unreadable)

    operator.await_alarms({"jobs-overdue", "replies-unpublished"}, "ALARM")
    for _ in range(3):
        answer = requests.get(f"{operator.ready['jobs_api_url']}jobs/{unreadable}", timeout=30)
        assert answer.status_code == 500
    operator.await_alarms(UNMENDED, "ALARM")
    operator.restore_reply_topic(topic)
    operator.write_record(unreadable, record)
    operator.await_alarms(UNMENDED, "OK")
    replies = operator.receive_all({unanswered, unreadable})
    assert all("did not start in time" in reply.data["Error"] for reply in replies.values())

    operator.await_alarms(LOST, "ALARM")
    for fleet, template in templates.items():
        operator.restore_launch_template(fleet, template)
    operator.await_alarms(LOST, "OK")
    replies = operator.receive_all({job.partial_name for job in waiting})
    assert all(reply.succeeded for reply in replies.values())
    for fleet in FLEETS:
        operator.set_maximum(fleet, 3)


def test_a_stage_that_stands_still_rings_until_it_goes_on(operator: Operator) -> None:
    """The minute rule is disabled, and so is what feeds dispatch_jobs."""
    (rule,) = [
        rule["Name"]
        for rule in operator.events.list_rules()["Rules"]
        if rule.get("ScheduleExpression") == "rate(1 minute)"
    ]
    operator.switch_mapping(enabled=False)
    operator.events.disable_rule(Name=rule)
    job = operator.post("pulid")
    operator.await_alarms(STOPPED | {"jobs-overdue"}, "ALARM")
    operator.switch_mapping(enabled=True)
    operator.events.enable_rule(Name=rule)
    operator.await_alarms(STOPPED | {"jobs-overdue"}, "OK")
    assert operator.receive_all({job.partial_name})[job.partial_name].succeeded


def test_no_alarm_is_left_out_and_none_rings_in_the_end(operator: Operator) -> None:
    alarms = {a["AlarmName"].removeprefix(PREFIX): a["StateValue"] for a in operator.list_alarms()}
    provoked = GIVEN_UP | BROKEN | LOST | REPLACED | UNMENDED | STOPPED
    assert alarms == dict.fromkeys(provoked | ELSEWHERE, "OK")
