"""Rows 1 to 13 and 38: messages that come twice or at the wrong moment, and crashes around SQS."""

from datetime import timedelta

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.stub import Stubber

from functions.admit_jobs import app as admit_jobs
from ml_service.adapters.aws_clients import AwsClients
from ml_service.adapters.dynamodb import DynamoDBJobStore
from ml_service.adapters.stepfunctions import StepFunctionsJobRunner
from ml_service.domain.errors import ExecutionsThrottledError
from ml_service.domain.jobs import JobState
from ml_service.ports import QueuedMessage
from ml_service.services.admit_jobs import AdmissionReport, AdmissionStatus, AdmitJobs
from ml_service.services.dispatch_jobs import DispatchJobs
from tests.fakes import InMemoryJobStore
from tests.faults.call_points import CallPoints, Strike
from tests.faults.stage import MINUTE, Stage
from tests.makers import JOB_ID, make_job


def finish(stage: Stage, *, losses: int = 0) -> Stage:
    """Let everything end, and every job succeed."""
    stage.settle()
    stage.check_end(losses=losses)
    assert {job.state for job in stage.posted_jobs()} == {JobState.SUCCEEDED}
    return stage


def repeat_input(stage: Stage) -> None:
    stage.input_queue.repeat(0)
    stage.dispatch()


@pytest.mark.parametrize("call", range(1, 4))
def test_fault_01_a_message_dispatched_twice_at_once_gives_one_result(call: int):
    stage = Stage()
    stage.post()
    points = CallPoints(call, Strike.NONE, meets=lambda: repeat_input(stage))
    stage.strikes[DispatchJobs] = points
    finish(stage)
    assert points.struck_at
    assert len(stage.jobs.jobs) == len(stage.topic.replies) == len(stage.runs) == 1


def test_fault_02_a_repeat_after_two_days_runs_and_answers_nothing():
    stage = Stage()
    stage.post()
    (entry,) = stage.input_queue.entries.values()
    finish(stage)
    stage.clock.sleep(timedelta(days=2).total_seconds())
    stage.input_queue.send([entry.message])
    finish(stage)
    assert (len(stage.runs), len(stage.topic.replies)) == (1, 1)


def test_fault_04_one_poison_message_of_ten_is_answered_and_nine_run():
    stage = Stage()
    for number in range(10):
        stage.post(**({"Subject": "Unknown"} if number == 3 else {}))
    stage.dispatch()
    assert stage.input_queue.entries == {}
    stage.settle()
    stage.check_end(losses=0)
    states = [job.state for job in stage.posted_jobs()]
    assert states.count(JobState.SUCCEEDED) == 9
    assert states[3] is JobState.FAILED


def test_fault_05_a_batch_of_nothing_but_poison_is_no_error_of_the_function():
    stage = Stage()
    for _ in range(10):
        stage.post(Subject="Unknown")
    stage.dispatch()
    assert (stage.errors, stage.input_queue.entries) == ([], {})
    assert [job.state for job in stage.posted_jobs()] == [JobState.FAILED] * 10
    assert len(stage.topic.replies) == 10


def die_after(call: str, service: type) -> Stage:
    """A stage whose dispatcher or admission died at its work on one job, right after a call."""
    stage = Stage()
    stage.post()
    points = stage.strikes[service] = CallPoints(call, Strike.DIES_AFTER)
    stage.dispatch()
    stage.admit()
    assert points.is_dead
    return stage


def test_fault_06_a_dispatcher_that_dies_after_sending_sends_again_and_one_is_admitted():
    stage = die_after("TimedQueue.send", DispatchJobs)
    assert len(stage.input_queue.entries) == 1
    stage.clock.sleep(180)
    stage.dispatch()
    finish(stage)
    assert list(stage.executions) == [("job-1", 1)]


def test_fault_07_a_dispatcher_that_dies_before_sending_sends_later():
    stage = die_after("InMemoryJobStore.add", DispatchJobs)
    assert len(stage.task_queue.entries) == 0
    assert stage.jobs.get("job-1").state is JobState.QUEUED
    stage.clock.sleep(180)
    finish(stage)


@pytest.mark.parametrize("strike", [Strike.FAILS, Strike.ANSWER_LOST])
def test_fault_08_a_table_that_fails_sends_only_that_message_back(strike: Strike):
    stage = Stage()
    stage.post()
    stage.post()
    stage.strikes[DispatchJobs] = CallPoints(1, strike)
    stage.dispatch()
    assert len(stage.input_queue.entries) == 1
    assert len(stage.task_queue.entries) == 1
    stage.clock.sleep(180)
    finish(stage)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ProvisionedThroughputExceededException"), (500, "InternalServerError")],
)
def test_fault_08_a_throttled_or_broken_table_is_asked_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    pauses: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", pauses.append)
    answers = [(status, f'{{"__type": "x#{code}"}}')] * 2 + [(200, "{}")]

    def answer(request, **_):
        status, body = answers.pop(0)
        response = AWSResponse(request.url, status, {}, None)
        response._content = body.encode()
        return response

    table = AwsClients().dynamodb.Table("jobs")
    table.meta.client.meta.events.register("before-send.dynamodb.PutItem", answer)
    assert DynamoDBJobStore(table).add(make_job())
    assert (len(pauses), answers) == (2, [])


def test_fault_09_messages_of_an_admission_that_died_come_back_after_a_minute():
    stage = die_after("TimedQueue.receive", AdmitJobs)
    stage.clock.sleep(59)
    assert stage.task_queue.receive(1) == []
    finish(stage)


def test_fault_10_an_execution_started_before_a_crash_is_the_same_one_afterwards():
    stage = die_after("Stage.start", AdmitJobs)
    assert len(stage.task_queue.entries) == 1
    finish(stage)
    assert list(stage.executions) == [("job-1", 1)]


def test_fault_12_a_lost_kick_costs_no_more_than_the_time_to_the_next_tick():
    stage = Stage()
    stage.post()
    stage.dispatch()
    stage.admission.kicked.clear()
    stage.clock.sleep(60)
    stage.tick()
    assert list(stage.executions) == [("job-1", 1)]
    finish(stage)


def test_fault_13_a_throttled_state_machine_stops_the_pulling_and_loses_nothing():
    stage = Stage(instances=3)
    for _ in range(5):
        stage.post()
    stage.dispatch()
    stage.is_throttled = True
    report = stage.admit()
    assert report.counts == {AdmissionStatus.THROTTLED: 1, AdmissionStatus.PUT_BACK: 4}
    assert sum(e.receives for e in stage.task_queue.entries.values()) == 1
    stage.clock.sleep(120)
    stage.tick()
    assert stage.executions == {}
    stage.is_throttled = False
    finish(stage)


@pytest.mark.parametrize("code", ["ThrottlingException", "ExecutionLimitExceeded"])
def test_fault_13_a_refusal_to_start_is_told_apart_from_other_errors(code: str):
    client = boto3.client(
        "stepfunctions",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106
    )
    with Stubber(client) as stub:
        stub.add_client_error("start_execution", code)
        with pytest.raises(ExecutionsThrottledError, match=code):
            StepFunctionsJobRunner(client, "arn").start(JOB_ID, 1)
        stub.add_client_error("start_execution", "AccessDeniedException")
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            StepFunctionsJobRunner(client, "arn").start(JOB_ID, 1)


def test_fault_25_without_a_healthy_instance_jobs_wait_in_the_queue_and_go_on_by_themselves():
    stage = Stage()
    for instance in stage.present():
        instance.is_silent = True
    for _ in range(3):
        stage.post()
    stage.clock.sleep(60)
    for _ in range(20):
        stage.tick()
        stage.dispatch()
        stage.clock.sleep(60)
    assert stage.executions == {}
    assert [e.receives for e in stage.task_queue.entries.values()] == [0, 0, 0]
    assert stage.admit().ready_instances == 0
    for instance in stage.present():
        instance.is_silent = False
    finish(stage)


@pytest.mark.parametrize(("ready", "is_told"), [(0, True), (1, False)])
def test_fault_25_the_lack_of_instances_is_a_metric(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ready: int, is_told: bool
):
    class Admits:
        fleets = ("pulid",)

        def admit(self, name: str) -> AdmissionReport:
            return AdmissionReport(name, was_first=True, ready_instances=ready)

    class Context:
        function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "x"

    monkeypatch.setattr(admit_jobs, "make_admit_jobs", Admits)
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "test")
    admit_jobs.handler({"fleet": "pulid"}, Context())
    assert ('"NoCapacity":[1.0]' in capsys.readouterr().out) == is_told


def test_fault_38_a_stage_that_floods_holds_no_more_than_its_quota():
    stage = Stage(instances=3, slots=1)
    for _ in range(500):
        stage.post()
    for _ in range(50):
        stage.dispatch()
    stage.admit()
    for execution in stage.awake():
        for _ in range(3):
            stage.step(execution)
    assert len(stage.executions) == 3
    assert [instance.count_prompts() for instance in stage.present()] == [1, 1, 1]
    assert len(stage.task_queue.entries) == 497
    stage.clock.sleep(MINUTE.total_seconds())
    stage.admit()
    assert len(stage.executions) == 3


def test_fault_40_records_and_messages_of_another_version_are_understood():
    stage = Stage()
    job_id = stage.post()
    (entry,) = stage.input_queue.entries.values()
    stage.dispatch()
    job = stage.jobs.get(job_id)
    needed = {name for name, member in type(job).model_fields.items() if member.is_required()}
    written = job.model_dump(mode="json", exclude_defaults=True) | {"of_a_later_version": 1}
    assert needed <= written.keys()
    older = type(job).model_validate(written)
    assert older == job
    stage.jobs = InMemoryJobStore(older)
    stage.task_queue.send([QueuedMessage("old", entry.message.body, attributes=None)])
    finish(stage)
