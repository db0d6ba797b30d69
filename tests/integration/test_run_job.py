"""The real state machine with the real handlers, on the embedded AWS, at twenty times the speed."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from boto3.dynamodb.conditions import Key

from local.aws import gateway
from local.aws.alarm_rules import find_period, judge_alarm, list_metrics
from local.aws.embedded_aws import AwsOptions, EmbeddedAws, RunningAws, running_embedded_aws
from local.aws.metric_store import MetricStore
from local.backend import Backend, Reply
from local.find_backend import Target
from local.local_mode import LocalDeployment, LocalOptions, deploy_ml_service
from local.sample_media import make_audio, make_image, make_video
from local.triage import run_drop, run_redrive
from ml_service.adapters.clock import SystemClock
from ml_service.adapters.comfyui import HttpComfyUIConnector
from ml_service.adapters.dynamodb import read_items
from ml_service.domain.errors import JobNotFoundError
from ml_service.domain.fleets import Instance
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.prompts import PromptState
from ml_service.domain.replies import make_error_reply
from tests.contracts.comfyui_targets import make_picture
from tests.makers import make_job

SPEED = 20.0
MINUTE = timedelta(minutes=1)
MAKE_UP = "ComfyUiPhotoMakeUpLipsThumbnailsMessage"
LATENT_SYNC = "ComfyUiLatentSyncMessage"
FLUX = "ComfyUiFluxPromptMessage"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAws[LocalDeployment]]:
    folder: Path = tmp_path_factory.mktemp("stage")
    options = LocalOptions(speed=SPEED, prompt_seconds=2.0, boot_seconds=0.0)

    async def deploy(aws: EmbeddedAws) -> LocalDeployment:
        return await deploy_ml_service(aws, options, folder)

    with running_embedded_aws(deploy, AwsOptions(speed=SPEED)) as running:
        yield running


class Stage(Backend):
    """A backend that also looks behind the scenes."""

    def __init__(self, aws: RunningAws[LocalDeployment]) -> None:
        super().__init__(asdict(aws.deployed))
        self.sfn = aws.client("stepfunctions")
        self.cloudwatch = aws.client("cloudwatch")
        self.autoscaling = aws.client("autoscaling")
        self.clock = SystemClock(rate=aws.clock.rate, origin=aws.clock.origin)
        self.dynamodb = aws.client("dynamodb")
        self.functions = aws.client("lambda")
        self._replies: dict[str, Reply] = {}

    def post(self, subject: str, **members: Any) -> tuple[str, str]:
        """Send a message; returns job id and PartialName."""
        job_id, partial_name = str(uuid.uuid4()), str(uuid.uuid4())
        payload = {
            "S3Bucket": self.ready["input_bucket"],
            "GroupId": 1,
            "PartialName": partial_name,
            **members,
        }
        self.send(
            json.dumps({"Subject": subject, "MessageId": job_id, "Payload": json.dumps(payload)})
        )
        return job_id, partial_name

    def add_fault(self, address: str, **fault: object) -> None:
        url = f"http://{address}:8188/_simulator/faults"
        requests.post(url, json=fault, timeout=5).raise_for_status()

    def await_reply(self, partial_name: str) -> Reply:
        def look() -> Reply | None:
            for reply in self.receive_replies(wait_seconds=1):
                self._replies[reply.data["PartialName"]] = reply
            return self._replies.get(partial_name)

        return self.await_value(look)

    def await_ready(self, fleet: str) -> Instance:
        """An instance that takes jobs; the first tick has to find it."""

        def look() -> Instance | None:
            return next((i for i in self.fleets.list_instances(fleet) if i.is_ready), None)

        return self.await_value(look)

    def list_alarms(self) -> dict[str, dict[str, Any]]:
        alarms = self.cloudwatch.describe_alarms()["MetricAlarms"]
        return {alarm["AlarmName"]: alarm for alarm in alarms}

    def forget_reply(self, partial_name: str) -> None:
        """Another one is to come."""
        del self._replies[partial_name]

    def clear_faults(self, address: str) -> None:
        url = f"http://{address}:8188/_simulator/faults"
        requests.delete(url, timeout=5).raise_for_status()

    def tick(self, at: str) -> None:
        """Run the scaler with an event of that time."""
        answer = self.functions.invoke(
            FunctionName=f"{self.ready['stage']}-ml-service-scale-fleets",
            Payload=json.dumps({"time": at}),
        )
        assert "FunctionError" not in answer

    def read_decisions(self, fleet: str) -> list[dict[str, Any]]:
        """The scaler's decisions as they were stored, the oldest first."""
        return list(
            read_items(
                self.fleet_table.query,
                KeyConditionExpression=Key("pk").eq(fleet) & Key("sk").begins_with("DECISION#"),
            )
        )

    @contextmanager
    def drained(self, fleet: str) -> Iterator[None]:
        """No instance of a fleet takes jobs: what comes to its task queue stays there."""
        # Quarantined until the day after: the scaler mends what is only drained.
        tomorrow = (self.clock.now() + timedelta(days=1)).timestamp()
        value = {":at": {"N": str(round(tomorrow))}}
        self._update_instances(
            fleet, UpdateExpression="SET quarantined_at = :at", ExpressionAttributeValues=value
        )
        time.sleep(1.5)  # an admission that began before may still wait for a message
        yield
        self._update_instances(fleet, UpdateExpression="REMOVE quarantined_at")

    def forget_warm_up(self, fleet: str) -> None:
        """A fleet's instances are cold once more."""
        self._update_instances(fleet, UpdateExpression="REMOVE warmed_at")

    def await_alarm(self, kind: str, state: str) -> None:
        name = f"{self.ready['stage']}-ml-service-{kind}"
        self.await_value(lambda: self.list_alarms()[name]["StateValue"] == state or None)

    def _update_instances(self, fleet: str, **update: Any) -> None:
        for instance in self.fleets.list_instances(fleet):
            self.dynamodb.update_item(
                TableName=self.ready["fleet_table"],
                Key={"pk": {"S": fleet}, "sk": {"S": f"INSTANCE#{instance.key}"}},
                **update,
            )

    def dead_letter(self, fleet: str) -> str:
        """Receive a fleet's only message as often as it takes, and delete it never; its body."""
        url = self.ready["fleets"][fleet]["task_queue_url"]
        for _ in range(5):
            answer = self.sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, WaitTimeSeconds=5)
            body: str = answer["Messages"][0]["Body"]
        assert self.count_messages(f"{url}-deadletter") == 0
        # It moves with the receive after the last one that is allowed.
        assert "Messages" not in self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=0)
        assert self.count_messages(f"{url}-deadletter") == 1
        return body

    def redrive(self, fleet: str) -> None:
        """Redrive what is there, as soon as the execution of its job's last run has ended."""
        target = Target(endpoint=self.ready["endpoint"])
        self.await_value(lambda: True if run_redrive(target, fleet, None) == 0 else None)

    def await_job(self, job_id: str, is_there: Callable[[Job], bool]) -> Job:
        def look() -> Job | None:
            try:
                job = self.jobs.get(job_id)
            except JobNotFoundError:
                return None
            return job if is_there(job) else None

        return self.await_value(look)

    def await_value(self, look: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (value := look()) is not None:
                return value
            time.sleep(0.1)
        raise AssertionError("it did not come")

    def execution_arn(self, job_id: str) -> str:
        machine: str = self.ready["state_machine_arn"]
        return machine.replace(":stateMachine:", ":execution:") + f":{job_id}-1"

    def states(self, job_id: str) -> list[str]:
        history = self.sfn.get_execution_history(executionArn=self.execution_arn(job_id))
        return [
            event["stateEnteredEventDetails"]["name"]
            for event in history["events"]
            if "stateEnteredEventDetails" in event
        ]

    def await_execution(self, job_id: str) -> str:
        def look() -> str | None:
            status: str = self.sfn.describe_execution(executionArn=self.execution_arn(job_id))[
                "status"
            ]
            return None if status == "RUNNING" else status

        return str(self.await_value(look))


@pytest.fixture(scope="module")
def stage(aws: RunningAws[LocalDeployment]) -> Stage:
    stage = Stage(aws)
    stage.await_ready("pulid")
    return stage


def test_a_job_goes_through_every_step_in_order(stage: Stage):
    job_id, name = stage.post(FLUX, PromptText="a path through all states")
    assert stage.await_reply(name).succeeded
    assert stage.await_execution(job_id) == "SUCCEEDED"
    assert [state for state in stage.states(job_id) if state != "Await Prompt"] == [
        "Choose Instance",
        "Instance Chosen",
        "Submit Prompt",
        "Prompt Awaited",
        "Collect Outputs",
        "Finish Job",
    ]


def test_the_job_id_leads_through_every_hops_log(stage: Stage, aws: RunningAws[LocalDeployment]):
    """One search finds the whole way; the execution has the id in its name."""
    job_id, name = stage.post(FLUX, PromptText="one id for all")
    stage.await_reply(name)
    stage.await_execution(job_id)
    hops = "dispatch admit choose-instance submit-prompt await-prompt collect-outputs finish"

    def are_found() -> bool | None:
        found = {
            log.stem.removeprefix("prod-ml-service-").removesuffix("-job").removesuffix("-jobs")
            for log in aws.run_folder.glob("*.log")
            if job_id in log.read_text()
        }
        return found >= set(hops.split()) or None

    # An admission tells what it did when it has ended, which may be after the job.
    assert stage.await_value(are_found)


def test_nothing_but_ids_and_enums_travels_through_the_state_machine(stage: Stage):
    text = "words that no history may keep"
    job_id, name = stage.post(FLUX, PromptText=text)
    stage.await_reply(name)
    stage.await_execution(job_id)
    history = json.dumps(
        stage.sfn.get_execution_history(executionArn=stage.execution_arn(job_id)), default=str
    )
    assert job_id in history
    assert text not in history
    assert name not in history


def test_a_failing_node_ends_in_one_error_reply(stage: Stage):
    # The header of a picture, as far as its dimensions, and then nothing that could be decoded.
    stage.put_input("broken.png", make_image(color=(1, 2, 3))[:33] + b"no more of a picture")
    job_id, name = stage.post(MAKE_UP, InputS3Key="broken.png", SourceS3Keys=["broken.png"])
    reply = stage.await_reply(name)
    assert not reply.succeeded
    assert "(LoadImage) failed with PIL.UnidentifiedImageError" in reply.data["Error"]
    assert stage.await_execution(job_id) == "SUCCEEDED"
    job = stage.jobs.get(job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code) == (JobState.FAILED, "PROMPT_FAILED")


def test_fault_19_a_job_whose_instance_dies_runs_on_another(stage: Stage):
    job_id, name = stage.post(FLUX, PromptText="survives its instance")
    job = stage.await_job(job_id, lambda job: job.seen_running)
    stage.autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=job.instance_id, ShouldDecrementDesiredCapacity=False
    )
    assert stage.await_reply(name).succeeded
    after = stage.jobs.get(job_id)
    assert after.instance_id != job.instance_id
    assert (after.attempt, after.guilty_losses) == (2, 1)
    assert stage.states(job_id).count("Submit Prompt") == 2


def test_a_job_that_runs_out_of_memory_twice_is_given_up_with_the_reason(stage: Stage):
    instance = stage.await_ready("pulid")
    stage.add_fault(instance.address, kind="oom", times=2)
    job_id, name = stage.post(FLUX, PromptText="too large for any memory")
    assert "failed with torch.OutOfMemoryError." in stage.await_reply(name).data["Error"]
    job = stage.jobs.get(job_id)
    assert job.failure is not None
    assert (job.failure.code, job.attempt) == ("ATTEMPTS_EXHAUSTED", 2)


@pytest.mark.long
def test_a_job_that_runs_out_of_memory_once_succeeds_on_its_second_try(stage: Stage):
    instance = stage.await_ready("pulid")
    stage.add_fault(instance.address, kind="oom")
    _, name = stage.post(FLUX, PromptText="fits the second time")
    assert stage.await_reply(name).succeeded
    assert stage.await_ready("pulid").faults == 0


def test_fault_31_a_stopped_execution_still_gives_an_answer_and_its_prompt_ends(stage: Stage):
    job_id, name = stage.post(FLUX, PromptText="stopped by an operator")
    job = stage.await_job(job_id, lambda job: job.state is JobState.SUBMITTED)
    stage.sfn.stop_execution(executionArn=stage.execution_arn(job_id))
    reply = stage.await_reply(name)
    assert reply.data["Error"] == "The job was stopped by an operator."
    assert stage.jobs.get(job_id).state is JobState.CANCELLED
    stage.await_job(job_id, lambda job: not job.abandoned)
    assert job.prompt_id not in requests.get(f"http://{job.address}:8188/queue", timeout=5).text
    assert all(job_id not in i.jobs for i in stage.fleets.list_instances("pulid"))


def test_fault_10_an_admitted_job_without_an_execution_gets_it_from_the_sweep(stage: Stage):
    job = _make_queued_job()
    instance = stage.await_ready("pulid")
    stage.jobs.add(job)
    stage.fleets.take_slot("pulid", instance.key, job.job_id, slots=99, at=stage.clock.now())
    admitted = job.admit(
        instance=instance.key,
        instance_id=instance.instance_id,
        address=instance.address,
        at=stage.clock.now(),
    )
    stage.jobs.save(admitted)
    assert stage.await_reply(job.partial_name).succeeded


def test_fault_29_a_reply_that_was_stored_and_not_sent_is_sent_by_the_sweep(stage: Stage):
    job = _make_queued_job()
    reply = make_error_reply(
        job_id=job.job_id, partial_name=job.partial_name, sentence="Kept.", at=stage.clock.now()
    )
    stage.jobs.add(job)
    stage.jobs.save(job.close(JobState.CANCELLED, reply=reply, at=stage.clock.now()))
    assert stage.await_reply(job.partial_name).data["Error"] == "Kept."
    stage.await_job(job.job_id, lambda job: job.due_at is None)


def test_fault_32_a_slot_that_no_job_needs_is_returned_by_the_sweep(stage: Stage):
    instance = stage.await_ready("makeup")
    stage.fleets.take_slot("makeup", instance.key, "nobody", slots=99, at=stage.clock.now())

    def is_returned() -> bool | None:
        return all("nobody" not in i.jobs for i in stage.fleets.list_instances("makeup")) or None

    assert stage.await_value(is_returned)


def _make_queued_job() -> Job:
    """A record as dispatch writes it, of which no queue and no execution knows."""
    return make_job(
        job_id=str(uuid.uuid4()),
        partial_name=str(uuid.uuid4()),
        received_at=datetime.now(UTC),
        deadline=datetime.now(UTC) + timedelta(days=1),
    )


@pytest.mark.long
def test_fault_39_more_prompts_than_twice_the_threshold_launch_an_instance_once_they_may(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    group_name = stage.ready["fleets"]["lip-sync"]["group_name"]
    stage.put_input("clip.mp4", make_video(color=(9, 9, 9), seconds=0.5))
    stage.put_input("voice.mp3", make_audio(seconds=0.5))
    # A long prompt at first: the queue is as long at the tick after the refused call.
    stage.add_fault(stage.await_ready("lip-sync").address, kind="hang", seconds=9)
    names = [
        stage.post(LATENT_SYNC, VideoS3Key="clip.mp4", AudioS3Key="voice.mp3")[1] for _ in range(8)
    ]
    with monkeypatch.context() as busy_group:
        make_error = gateway._autoscaling_error
        busy_group.setitem(gateway._CAPACITY_RULES, "SetDesiredCapacity", lambda *_: "in progress")
        busy_group.setattr(
            gateway,
            "_autoscaling_error",
            lambda text: make_error(text, "ScalingActivityInProgress"),
        )
        stage.await_value(
            lambda: "REFUSED" in [d["outcome"] for d in stage.read_decisions("lip-sync")] or None
        )
        assert all(len(i.jobs) <= 10 for i in stage.fleets.list_instances("lip-sync"))

    def count_ready() -> int:
        return len([i for i in stage.fleets.list_instances("lip-sync") if i.is_ready])

    stage.await_value(lambda: count_ready() == 2 or None)
    groups = stage.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group_name])
    assert groups["AutoScalingGroups"][0]["DesiredCapacity"] == 2
    names += [stage.post(LATENT_SYNC, VideoS3Key="clip.mp4", AudioS3Key="voice.mp3")[1]]
    assert all(stage.await_reply(name).succeeded for name in names)
    instances = stage.fleets.list_instances("lip-sync")
    assert all(i.placed_at for i in instances), "\n".join(map(str, instances))


def test_fault_35_a_tick_that_comes_four_times_at_once_counts_once(stage: Stage):
    begun = _check_once(stage, lambda last: [last, last, last + MINUTE, last + MINUTE])
    _require_single_steps(stage, begun)


@pytest.mark.long
def test_fault_36_a_tick_by_a_clock_that_is_late_or_of_another_zone_changes_nothing(stage: Stage):
    summer = timezone(timedelta(hours=2))
    begun = _check_once(stage, lambda last: [last.astimezone(summer), last - 5 * MINUTE])
    _require_single_steps(stage, begun)


def _check_once(stage: Stage, choose: Callable[[datetime], list[datetime]]) -> datetime:
    """Send ticks besides the minute's own, twice; returns when that began."""
    stage.await_ready("makeup")
    begun = None
    for _ in range(2):
        last = stage.fleets.load_scaler("makeup").last_tick
        assert last is not None
        begun = begun or last
        times = [at.isoformat() for at in choose(last)]
        with ThreadPoolExecutor(len(times)) as threads:
            list(threads.map(stage.tick, times))
        stage.await_value(
            lambda last=last: stage.fleets.load_scaler("makeup").last_tick > last or None
        )
    return begun


def _require_single_steps(stage: Stage, begun: datetime) -> None:
    """Each minute has one decision at most, and each decision is one check of the idle streak."""
    decisions = [d for d in stage.read_decisions("makeup") if _read_tick(d) >= begun]
    assert len(decisions) >= 3
    for before, after in pairwise(decisions):
        minutes = [int(_read_tick(d).timestamp()) // 60 for d in (before, after)]
        assert minutes[0] < minutes[1]
        counts = [int(d["state"]["idle_checks"]) for d in (before, after)]
        assert counts[1] in (counts[0] + 1, 0, 1)
    assert decisions[-1]["desired"] == 1


def _read_tick(decision: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(decision["sk"].removeprefix("DECISION#"))


@pytest.mark.long
def test_fault_25_without_a_healthy_instance_a_job_stays_in_sqs_and_goes_on_by_itself(stage: Stage):
    stage.put_input("face.png", make_image(color=(9, 9, 9)))
    with stage.drained("makeup"):
        job_id, name = stage.post(MAKE_UP, InputS3Key="face.png", SourceS3Keys=["face.png"])
        stage.await_job(job_id, lambda job: job.state is JobState.QUEUED)
        time.sleep(3.5)  # a tick tries it
        assert stage.jobs.get(job_id).state is JobState.QUEUED
        assert stage.count_messages(stage.ready["fleets"]["makeup"]["task_queue_url"]) == 1
    assert stage.await_reply(name).succeeded
    assert stage.states(job_id)[0] == "Choose Instance"


def test_fault_37_a_cancel_leaves_the_other_stages_prompts_alone(stage: Stage):
    instance = stage.await_ready("pulid")
    comfyui = HttpComfyUIConnector().connect(instance.address)
    foreign = [str(uuid.uuid4()) for _ in range(2)]
    stage.add_fault(instance.address, kind="hang", seconds=10)  # the first, until ours is there
    for prompt_id in foreign:
        comfyui.submit(prompt_id, make_picture())
    job_id, name = stage.post(FLUX, PromptText="behind the others")
    job = stage.await_job(job_id, lambda job: job.state is JobState.SUBMITTED)
    stage.sfn.stop_execution(executionArn=stage.execution_arn(job_id))
    assert not stage.await_reply(name).succeeded
    stage.await_job(job_id, lambda job: not job.abandoned)
    assert comfyui.find(job.prompt_id).state is PromptState.UNKNOWN
    for prompt_id in foreign:
        prompt = comfyui.find(prompt_id)
        assert prompt.is_queued or prompt.state is PromptState.SUCCEEDED


@pytest.mark.long
def test_fault_24_an_instance_that_is_slow_for_two_ticks_stays(stage: Stage):
    instance = stage.await_ready("makeup")
    stage.add_fault(instance.address, kind="stall", seconds=4)
    stage.await_value(lambda: stage.fleets.list_instances("makeup")[0].reading is None or None)
    assert stage.await_ready("makeup").instance_id == instance.instance_id


@pytest.mark.long
def test_fault_23_an_instance_that_hangs_is_replaced_after_three_ticks(stage: Stage):
    instance = stage.await_ready("makeup")
    stage.add_fault(instance.address, kind="stall", seconds=60)
    began = time.monotonic()

    def find_other() -> Instance | None:
        ready = [i for i in stage.fleets.list_instances("makeup") if i.is_ready]
        return next((i for i in ready if i.instance_id != instance.instance_id), None)

    other = stage.await_value(find_other)
    # Three ticks are 6 s at least; the new instance is warm.
    assert time.monotonic() - began > 2 * 60 / SPEED
    assert other.warmed_at is not None
    assert stage.read_decisions("makeup")[-1]["desired"] == 1


@pytest.mark.long
def test_fault_22_a_black_hole_is_quarantined_and_the_jobs_succeed_elsewhere(stage: Stage):
    group_name = stage.ready["fleets"]["pulid"]["group_name"]
    hole = stage.await_ready("pulid")
    stage.autoscaling.set_desired_capacity(AutoScalingGroupName=group_name, DesiredCapacity=2)

    def count_ready() -> int:
        return sum(i.is_ready for i in stage.fleets.list_instances("pulid"))

    stage.await_value(lambda: count_ready() == 2 or None)
    stage.add_fault(hole.address, kind="black-hole")
    names = [stage.post(FLUX, PromptText=f"past the hole {n}")[1] for n in range(8)]

    def is_quarantined() -> bool | None:
        instances = stage.fleets.list_instances("pulid")
        return any(i.key == hole.key and i.quarantined_at for i in instances) or None

    stage.await_value(is_quarantined)
    assert all(stage.await_reply(name).succeeded for name in names)
    stage.clear_faults(hole.address)
    stage.autoscaling.set_desired_capacity(AutoScalingGroupName=group_name, DesiredCapacity=1)


def test_a_dead_letter_is_put_back_then_run_again_and_then_left_alone(
    stage: Stage, capsys: pytest.CaptureFixture[str]
):
    stage.put_input("late.png", b"this is no picture")
    with stage.drained("makeup"):
        job_id, name = stage.post(MAKE_UP, InputS3Key="late.png", SourceS3Keys=["late.png"])
        stage.await_job(job_id, lambda job: job.state is JobState.QUEUED)
        body = stage.dead_letter("makeup")
        stage.redrive("makeup")
        assert capsys.readouterr().out.split()[-1] == "PUT_BACK"
    assert not stage.await_reply(name).succeeded
    stage.forget_reply(name)
    failed = stage.await_job(job_id, lambda job: job.published_at is not None)
    assert (failed.state, failed.run) == (JobState.FAILED, 1)

    stage.put_input("late.png", make_image(color=(200, 30, 30)))
    dead_letters = f"{stage.ready['fleets']['makeup']['task_queue_url']}-deadletter"
    stage.sqs.send_message(QueueUrl=dead_letters, MessageBody=body)
    stage.redrive("makeup")
    assert capsys.readouterr().out.split()[-1] == "RUN_AGAIN"
    assert stage.await_reply(name).succeeded
    succeeded = stage.await_job(job_id, lambda job: job.published_at is not None)
    assert (succeeded.state, succeeded.run, succeeded.attempt) == (JobState.SUCCEEDED, 2, 2)
    assert json.loads(failed.reply)["id"] != json.loads(succeeded.reply)["id"]

    stage.sqs.send_message(QueueUrl=dead_letters, MessageBody=body)
    stage.redrive("makeup")
    assert capsys.readouterr().out.split()[-1] == "SUCCEEDED"
    assert stage.jobs.get(job_id) == succeeded
    machine = stage.ready["state_machine_arn"]
    executions = stage.sfn.list_executions(stateMachineArn=machine)["executions"]
    assert {e["name"] for e in executions if e["name"].startswith(job_id)} == {
        f"{job_id}-1",
        f"{job_id}-2",
    }


def test_who_waits_for_a_dropped_message_is_answered(
    stage: Stage, capsys: pytest.CaptureFixture[str]
):
    with stage.drained("makeup"):
        job_id, name = stage.post(MAKE_UP, InputS3Key="late.png", SourceS3Keys=["late.png"])
        stage.await_job(job_id, lambda job: job.state is JobState.QUEUED)
        stage.dead_letter("makeup")
        assert run_drop(Target(endpoint=stage.ready["endpoint"]), "makeup", None) == 0
    assert capsys.readouterr().out.split()[-1] == "CANCELLED"
    assert stage.await_reply(name).data["Error"] == "The job was stopped by an operator."
    assert stage.jobs.get(job_id).state is JobState.CANCELLED


def test_every_alarm_rings_when_it_should_and_ends(stage: Stage):
    """As the template defines them, on the series that each is made for."""
    alarms = stage.list_alarms()
    assert len(alarms) == 30
    for name, alarm in alarms.items():
        # With more of each than is needed: CloudWatch also looks at what was before.
        period = find_period(alarm)
        span = period * (alarm["EvaluationPeriods"] + 2)
        store = MetricStore()
        trouble, relief = _choose_values(alarm)
        for at in range(0, span, period):
            _put_values(alarm, store, trouble, at=at)
        assert judge_alarm(alarm, store, now=span, state="OK") == "ALARM", name
        for at in range(span, 2 * span, period):
            _put_values(alarm, store, relief, at=at)
        assert judge_alarm(alarm, store, now=2 * span, state="ALARM") == "OK", name


def _choose_values(alarm: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Values by metric that mean trouble, and those that follow when it is over."""
    if alarm["AlarmName"].endswith("-no-capacity"):
        return {"WaitingJobs": 1, "ReadyInstances": 0}, {"WaitingJobs": 1, "ReadyInstances": 1}
    if alarm["AlarmName"].endswith("-at-maximum"):
        full = {"DesiredCapacity": 3, "MaximumCapacity": 3}
        return {"WaitingJobs": 1, **full}, {"WaitingJobs": 0, **full}
    if alarm["AlarmName"].endswith("-scaler-silent"):
        return {}, {"DesiredCapacity": 1}
    limit = alarm["Threshold"]
    return {alarm["MetricName"]: limit + 1}, {alarm["MetricName"]: limit}


def _put_values(
    alarm: dict[str, Any], store: MetricStore, values: dict[str, float], *, at: float
) -> None:
    for metric, _ in list_metrics(alarm).values():
        if metric.name in values:
            store.put(metric, at, [values[metric.name]])


def test_an_instance_in_quarantine_rings_until_it_is_out(stage: Stage):
    """Through the functions' own output, the collector and CloudWatch's API."""
    stage.await_ready("makeup")
    with stage.drained("makeup"):
        stage.await_alarm("makeup-instance-quarantined", "ALARM")
    stage.await_alarm("makeup-instance-quarantined", "OK")
    silent = f"{stage.ready['stage']}-ml-service-makeup-scaler-silent"
    assert stage.list_alarms()[silent]["StateValue"] == "OK"


@pytest.mark.long
def test_an_instance_that_cannot_be_warmed_up_rings_and_is_replaced(stage: Stage):
    instance = stage.await_ready("makeup")
    stage.add_fault(instance.address, kind="black-hole")
    stage.forget_warm_up("makeup")
    stage.await_alarm("warm-up-failed", "ALARM")
    stage.await_alarm("makeup-instance-unhealthy", "ALARM")
    assert stage.await_ready("makeup").instance_id != instance.instance_id
    stage.await_alarm("warm-up-failed", "OK")
    stage.await_alarm("makeup-instance-unhealthy", "OK")
