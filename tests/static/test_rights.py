"""Each function is called with its role's rights alone: none is missing, and none is left over."""

import importlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.aws.http_events import make_balancer_event
from ml_service import bootstrap
from ml_service.adapters.autoscaling import AutoScalingInstancePool
from ml_service.adapters.aws_clients import AwsClients
from ml_service.adapters.clock import SystemClock
from ml_service.adapters.dynamodb import DynamoDBFleetStore, DynamoDBJobStore
from ml_service.domain.fleets import GroupMember
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.prompts import Prompt, PromptState
from ml_service.domain.results import OutputFile
from ml_service.services import admit_jobs as admission
from tests.api_world import make_event
from tests.emitted_metrics import Context
from tests.fakes import InMemoryComfyUI, InMemoryConnector
from tests.makers import PROJECT, make_body, make_hand_off, make_job, make_payload
from tests.static.deploy_template import ACCOUNT, REGION, Deployment, deployed_template
from tests.static.rights import Guard, GuardedSession

CONVERSIONS = "convert-here"
RATE = 200.0
"""The clock's: a removal's half minute takes a sixth of a second."""
# Needed though no call shows it.
LAMBDAS_OWN = {"logs:CreateLogStream", "logs:PutLogEvents"}
QUEUE_READERS_OWN = {"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"}
UNSEEN = {
    "dispatch_jobs": LAMBDAS_OWN | QUEUE_READERS_OWN,
    # GetObject needs it, to tell an absent object from a forbidden one.
    "submit_prompt": LAMBDAS_OWN | {"s3:ListBucket"},
    # Lambda itself calls the destination.
    "warm_instance": LAMBDAS_OWN | {"lambda:InvokeFunction"},
    "jobs_api": LAMBDAS_OWN | {"s3:ListBucket"},
}


class Stage:
    """The prod stage, on moto in this process."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.guarded, self.clients = GuardedSession(), AwsClients()
        session = boto3.Session(region_name=REGION)
        tables = session.resource("dynamodb")
        self.jobs = DynamoDBJobStore(tables.Table(deployment.names["JobTable"]))
        self.store = DynamoDBFleetStore(tables.Table(deployment.names["FleetTable"]))
        self.sqs = session.client("sqs")
        self.s3 = session.client("s3")
        self.autoscaling = session.client("autoscaling")
        self.comfyui = InMemoryComfyUI()
        self.origin = time.time()
        self.clock = SystemClock(rate=RATE, origin=self.origin)
        for bucket in ("inputs", "videos"):
            self.s3.create_bucket(Bucket=bucket)
        self.s3.put_object(Bucket="inputs", Key="photos/face.png", Body=_PICTURE)
        self.s3.put_object(Bucket="inputs", Key="photos/lips.png", Body=_PICTURE)
        self.sqs.create_queue(QueueName=CONVERSIONS)
        self._launch_fleets(session)

    def _launch_fleets(self, session: Any) -> None:
        self.ec2 = session.client("ec2")
        self.ec2.create_launch_template(
            LaunchTemplateName="comfyui",
            LaunchTemplateData={"ImageId": "ami-12c6146b", "InstanceType": "t3.micro"},
        )
        for fleet, desired in (("lip-sync", 2), ("pulid", 1), ("makeup", 1)):
            self.autoscaling.create_auto_scaling_group(
                AutoScalingGroupName=f"comfyui-{fleet}-task-instance-autoscaling-group",
                LaunchTemplate={"LaunchTemplateName": "comfyui"},
                MinSize=1,
                MaxSize=3,
                DesiredCapacity=desired,
                AvailabilityZones=[f"{REGION}a"],
            )

    def list_addresses(self, fleet: str) -> list[str]:
        """Of the instances of a fleet's group."""
        pages = self.ec2.describe_instances(
            Filters=[
                {
                    "Name": "tag:aws:autoscaling:groupName",
                    "Values": [f"comfyui-{fleet}-task-instance-autoscaling-group"],
                }
            ]
        )
        return [i["PrivateIpAddress"] for r in pages["Reservations"] for i in r["Instances"]]

    def call(self, function: str, event: Mapping[str, Any], guard: Guard) -> Any:
        """Call a handler as its role."""
        names = self.deployment
        variables = {
            **names.environments[f"prod-ml-service-{function.replace('_', '-')}"],
            "WORKFLOWS_DIR": str(PROJECT / "workflows"),
            "CLOCK_RATE": str(RATE),
            "CLOCK_ORIGIN": repr(self.origin),
        }
        self.guarded.guard = guard
        guard.statements = names.statements["".join(map(str.title, function.split("_"))) + "Role"]
        app = importlib.import_module(f"functions.{function}.app")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**variables, "AWS_DEFAULT_REGION": REGION}.items():
                patch.setenv(name, value)
            patch.setattr(boto3, "DEFAULT_SESSION", self.guarded)
            patch.setattr(bootstrap, "_aws", self.clients)
            patch.setattr(bootstrap, "HttpComfyUIConnector", lambda: _Everywhere(self.comfyui))
            _forget_services()
            try:
                return app.handler(event, Context())
            finally:
                _forget_services()

    def now(self) -> datetime:
        return self.clock.now()

    def add_instance(self, fleet: str, name: str, *, seconds_ago: float = 0) -> GroupMember:
        at = self.now() - timedelta(seconds=seconds_ago)
        member = GroupMember(name, at, "10.9.9.9", in_service=True)
        self.store.put_instance(fleet, member, reading=0, at=at)
        self.store.end_warm_up(fleet, member.key, at=at)
        return member

    def warm_fleet(self, fleet: str) -> None:
        """The instances of a fleet's group have been there for an hour, and are warm."""
        pool = AutoScalingInstancePool(self.autoscaling, self.ec2)
        an_hour_ago = self.now() - timedelta(hours=1)
        for member in pool.describe(f"comfyui-{fleet}-task-instance-autoscaling-group").members:
            self.store.put_instance(fleet, member, reading=0, at=an_hour_ago)
            self.store.end_warm_up(fleet, member.key, at=an_hour_ago)

    def add_job(self, job: Job) -> Job:
        self.jobs.add(job)
        return job

    def make_job(self, workflow: str = "flux-prompt", **changes: Any) -> Job:
        now = self.now()
        changes = {"received_at": now, "deadline": now + timedelta(hours=9), **changes}
        return make_job(workflow, **changes)

    def make_admitted(self, workflow: str = "flux-prompt", **changes: Any) -> Job:
        job = self.make_job(workflow, **changes)
        member = self.add_instance(job.fleet, f"i-{job.job_id}")
        self.store.take_slot(job.fleet, member.key, job.job_id, slots=9, at=self.now())
        return job.admit(
            instance=member.key, instance_id=member.instance_id, address="10.9.9.9", at=self.now()
        )

    def make_submitted(self, workflow: str = "flux-prompt", **changes: Any) -> Job:
        return self.make_admitted(workflow, **changes).submit(prompt_id="p", at=self.now())


class _Everywhere(InMemoryConnector):
    def __init__(self, comfyui: InMemoryComfyUI) -> None:
        self.comfyui = comfyui

    def connect(self, address: str) -> InMemoryComfyUI:
        return self.comfyui


def _forget_services() -> None:
    for name, maker in vars(bootstrap).items():
        if name.startswith("make_"):
            maker.cache_clear()


_PICTURE = (PROJECT / "docs" / "console.png").read_bytes()


@pytest.fixture(scope="module")
def stage(transformed: Mapping[str, Any]) -> Iterator[Stage]:
    with deployed_template(
        transformed,
        "prod",
        InputBuckets="inputs",
        MediaConvertBuckets="videos",
        MediaConvertQueueArns=f"arn:aws:sqs:{REGION}:{ACCOUNT}:{CONVERSIONS}",
        PulidScaling='{"counts_backlog":true,"moves_waiting":true}',
    ) as deployment:
        yield Stage(deployment)


@pytest.fixture
def guard() -> Guard:
    return Guard()


def check(stage: Stage, function: str, guard: Guard) -> None:
    """Nothing was refused, and everything that is granted was needed."""
    granted = {action for statement in guard.statements for action in _as_list(statement["Action"])}

    assert guard.refused == []
    assert granted - guard.used == UNSEEN.get(function, LAMBDAS_OWN)


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_dispatch_jobs(stage: Stage, guard: Guard):
    """A job, the same again, a refusal that is answered, and one of which nobody can be told."""
    payload = make_payload()
    bodies = [
        make_body(MessageId="dispatched"),
        make_body(MessageId="dispatched"),
        make_body(MessageId="wrong", payload={**payload, "GroupId": "x"}),
        "not json",
    ]
    records = [
        {"messageId": f"m-{n}", "body": body, "messageAttributes": {}}
        for n, body in enumerate(bodies)
    ]
    assert stage.call("dispatch_jobs", {"Records": records}, guard) == {"batchItemFailures": []}
    check(stage, "dispatch_jobs", guard)


def test_admit_jobs(stage: Stage, guard: Guard, monkeypatch: pytest.MonkeyPatch):
    """One starts, one is throttled and another put back; a lost instance goes; time runs out."""
    url = json.loads(_environment(stage, "admit-jobs")["FLEETS"])["makeup"]["task_queue_url"]
    for n in range(3):
        job = stage.add_job(stage.make_job("photo-make-up-lips-thumbnails", job_id=f"waits-{n}"))
        stage.sqs.send_message(QueueUrl=url, MessageBody=make_body(MessageId=job.job_id))
    stage.add_instance("makeup", "i-gone", seconds_ago=3600)
    stage.warm_fleet("makeup")
    guard.faults["states:StartExecution"] = "ExecutionLimitExceeded"
    stage.call("admit_jobs", {"fleet": "makeup"}, guard)
    monkeypatch.setattr(admission, "ADMISSION_SECONDS", -1.0)
    stage.call("admit_jobs", {"fleet": "makeup"}, guard)
    check(stage, "admit_jobs", guard)


def test_observe_instances(stage: Stage, guard: Guard):
    assert stage.call("observe_instances", {"addresses": ["10.9.9.9"]}, guard)
    check(stage, "observe_instances", guard)


class QuickComfyUI(InMemoryComfyUI):
    """Every prompt has succeeded once it is posted."""

    def submit(self, prompt_id: str, graph: Mapping[str, object]) -> None:
        super().submit(prompt_id, graph)
        self.prompts[prompt_id] = Prompt(PromptState.SUCCEEDED)


def test_warm_instance(stage: Stage, guard: Guard, monkeypatch: pytest.MonkeyPatch):
    member = GroupMember("i-cold", stage.now(), "10.9.9.9", in_service=True)
    stage.store.put_instance("makeup", member, reading=0, at=stage.now())
    monkeypatch.setattr(stage, "comfyui", QuickComfyUI())
    answer = stage.call("warm_instance", {"fleet": "makeup", "instance": member.key}, guard)
    assert answer == {"status": "WARMED"}
    check(stage, "warm_instance", guard)


def test_choose_instance(stage: Stage, guard: Guard):
    """A job that has lost its instance gets another."""
    job = stage.add_job(stage.make_submitted(job_id="lost"))
    stage.add_instance("pulid", "i-another")
    stage.call("choose_instance", {"job_id": job.job_id}, guard)
    check(stage, "choose_instance", guard)


def test_submit_prompt(stage: Stage, guard: Guard):
    """Of a job with pictures."""
    job = stage.add_job(stage.make_admitted("photo-make-up-lips-thumbnails", job_id="submits"))
    stage.call("submit_prompt", {"job_id": job.job_id}, guard)
    check(stage, "submit_prompt", guard)


def test_await_prompt(stage: Stage, guard: Guard):
    """One waits and moves to a shorter queue; another runs, and then it is done."""
    job = stage.add_job(stage.make_submitted(job_id="waits"))
    stage.add_instance("pulid", "i-idle")
    stage.comfyui.prompts["p"] = Prompt(PromptState.PENDING, position=9, head="o")
    assert stage.call("await_prompt", {"job_id": job.job_id}, guard)["status"] == "LOST"
    assert stage.jobs.get("waits").state is JobState.ADMITTED
    job = stage.add_job(stage.make_submitted(job_id="runs"))
    stage.comfyui.prompts["p"] = Prompt(PromptState.RUNNING, head="p")
    done = Prompt(
        PromptState.SUCCEEDED, outputs={"9": {"images": [{"filename": "a.png", "type": "output"}]}}
    )
    stage.comfyui.news.append(lambda: stage.comfyui.prompts.update(p=done))
    stage.call("await_prompt", {"job_id": job.job_id}, guard)
    check(stage, "await_prompt", guard)


def test_collect_outputs(stage: Stage, guard: Guard):
    """A file of several parts, of which one does not come through the first time."""
    submitted = stage.make_submitted(job_id="collects")
    job = stage.add_job(submitted.list_outputs((OutputFile(filename="big.bin"),)))
    stage.comfyui.files["big.bin"] = bytes(6 * 1024 * 1024)
    guard.faults["s3:UploadPart"] = "InternalError"
    stage.call("collect_outputs", {"job_id": job.job_id}, guard)
    assert guard.faults == {}
    check(stage, "collect_outputs", guard)


def make_finished(stage: Stage, job_id: str) -> Job:
    """A job whose video is stored and has to be handed on."""
    hand_off = make_hand_off().model_copy(
        update={
            "bucket": "videos",
            "key": "7/9/video.mp4",
            "queue_arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{CONVERSIONS}",
        }
    )
    bucket = stage.deployment.names["ResultBucket"]
    job = stage.make_submitted("latent-sync", job_id=job_id, hand_off=hand_off)
    prefix = job.inputs.output_prefix if job.inputs else ""
    key = f"comfyui-results/{prefix}_00001_.mp4"
    stage.s3.put_object(Bucket=bucket, Key=key, Body=b"video")
    return job.collect((key,))


def test_finish_job(stage: Stage, guard: Guard):
    """With a hand-off, and a prompt that may still run."""
    job = stage.add_job(make_finished(stage, "finishes"))
    stage.call("finish_job", {"job_id": job.job_id, "run": 1}, guard)
    check(stage, "finish_job", guard)


def test_cancel_prompt(stage: Stage, guard: Guard):
    job = stage.make_submitted(job_id="cancelled")
    two_minutes_ago = stage.now() - timedelta(minutes=2)
    stage.add_job(job.close(JobState.CANCELLED, reply="{}", at=two_minutes_ago))
    stage.call("cancel_prompt", {"job_id": job.job_id}, guard)
    check(stage, "cancel_prompt", guard)


def test_sweep_jobs(stage: Stage, guard: Guard):
    """Everything that can have been left undone."""
    long_ago = {"received_at": datetime(2026, 1, 1, tzinfo=UTC)}
    admitted = stage.make_admitted(job_id="not-started", **long_ago)
    stage.add_job(admitted.model_copy(update={"admitted_at": stage.now() - timedelta(hours=1)}))
    overdue = make_finished(stage, "overdue")
    stage.add_job(overdue.model_copy(update={"run_deadline": stage.now() - timedelta(hours=1)}))
    member = stage.add_instance("pulid", "i-leaked")
    stage.store.take_slot("pulid", member.key, "nobody", slots=9, at=stage.now())
    stage.call("sweep_jobs", {}, guard)
    assert stage.jobs.get("overdue").state is JobState.SUCCEEDED
    check(stage, "sweep_jobs", guard)


def test_scale_fleets(stage: Stage, guard: Guard):
    """makeup grows, lip-sync shrinks, pulid's instance is silent, and a lost instance goes."""
    stage.add_instance("lip-sync", "i-gone", seconds_ago=60)
    for fleet in ("lip-sync", "pulid", "makeup"):
        stage.warm_fleet(fleet)
    start = stage.now().replace(second=0, microsecond=0)
    guard.readings = {
        **dict.fromkeys(stage.list_addresses("makeup"), 11),
        **dict.fromkeys(stage.list_addresses("pulid")),
    }
    for minute in range(4):
        tick = start + timedelta(minutes=minute)
        stage.call("scale_fleets", {"time": tick.isoformat()}, guard)
    desired = {
        group["AutoScalingGroupName"].split("-task")[0]: group["DesiredCapacity"]
        for group in stage.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    }
    assert desired == {"comfyui-lip-sync": 1, "comfyui-pulid": 1, "comfyui-makeup": 2}
    check(stage, "scale_fleets", guard)


def test_jobs_api(stage: Stage, guard: Guard):
    """A job is sent, sent again, listed, shown, cancelled; a picture is converted; fleets shown."""
    bucket, key = stage.deployment.names["ResultBucket"], "comfyui-results/kite.png"
    stage.s3.put_object(Bucket=bucket, Key=key, Body=_PICTURE)
    collected = stage.make_submitted(job_id="drawn").collect((key,))
    stage.add_job(collected.close(JobState.SUCCEEDED, reply="{}", at=stage.now()))
    stage.add_instance("makeup", "i-cold")
    sent = '{"positive_prompt": "a red kite", "job_id": "sent"}'
    statuses = [
        stage.call("jobs_api", make_event(method, url, body, headers), guard)["statusCode"]
        for method, url, body, headers in (
            ("POST", "/jobs", sent, {}),
            ("POST", "/jobs", sent, {}),
            ("GET", "/jobs?limit=1", None, {}),
            ("GET", "/jobs/sent", None, {}),
            ("GET", "/jobs/drawn/output", None, {"Accept": "image/webp"}),
            ("GET", "/fleets", None, {}),
            ("POST", "/fleets/makeup/instances/i-cold/warm-up", None, {}),
            # finish_job, which would close it, is not called here.
            ("DELETE", "/jobs/sent", None, {}),
        )
    ]
    assert statuses == [202, 202, 200, 200, 200, 200, 202, 409]
    check(stage, "jobs_api", guard)


def test_result_api(stage: Stage, guard: Guard):
    asked = json.dumps({"GroupId": 1, "PhotoWorkflow": "flux-prompt", "PartialName": "x"})
    event = make_balancer_event(
        method="POST",
        path="/api/comfyui/photo-result",
        query="",
        headers={},
        body=asked.encode(),
    )
    answer = stage.call("result_api", event, guard)
    assert json.loads(answer["body"])["key"] == "not_found"
    check(stage, "result_api", guard)


def _environment(stage: Stage, function: str) -> Mapping[str, str]:
    return stage.deployment.environments[f"prod-ml-service-{function}"]


def test_a_call_that_the_role_does_not_allow_is_refused(stage: Stage, guard: Guard):
    """The guard of this file sees actions and resources."""
    job = stage.add_job(make_finished(stage, "refused"))
    with pytest.MonkeyPatch.context() as patch:
        roles = {**stage.deployment.statements, "FinishJobRole": _without_publish(stage)}
        patch.setattr(stage, "deployment", replace(stage.deployment, statements=roles))
        with pytest.raises(ClientError, match="AccessDenied"):
            stage.call("finish_job", {"job_id": job.job_id, "run": 1}, guard)
    assert guard.refused == [("sns:Publish", stage.deployment.names["ReplyTopic"])]


def _without_publish(stage: Stage) -> list[Any]:
    return [
        {**s, "Resource": f"{s['Resource']}-of-another"} if s["Action"] == "sns:Publish" else s
        for s in stage.deployment.statements["FinishJobRole"]
    ]
