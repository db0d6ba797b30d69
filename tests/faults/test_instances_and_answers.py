"""Rows 18 to 32 and 36: instances that fail, results that cannot be stored, answers not sent."""

from datetime import timedelta

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber
from moto import mock_aws

from ml_service.adapters import s3
from ml_service.adapters.autoscaling import AutoScalingInstancePool
from ml_service.adapters.s3 import S3MediaStore
from ml_service.domain.errors import OutputTooLargeError, OutputUploadError, ScalingRefusedError
from ml_service.domain.jobs import Job, JobState
from ml_service.services.finish_job import FinishJob
from ml_service.services.redrive_job import RedriveJob, RedriveStatus
from tests.fakes import InMemoryMediaStore
from tests.faults.call_points import CallPoints, Strike
from tests.faults.stage import MINUTE, Stage

HOUR = timedelta(hours=1)
_5_MIB = 5 * 1024 * 1024


def run_until(stage: Stage, state: str) -> Stage:
    """Let every job come to a state of its execution."""
    stage.dispatch()
    stage.admit()
    for execution in stage.executions.values():
        while execution.state != state:
            stage.step(execution)
    return stage


def only_job(stage: Stage) -> Job:
    (job,) = stage.jobs.jobs.values()
    return job


def one_running(prompt_seconds: float = 60) -> Stage:
    stage = Stage(prompt_seconds=prompt_seconds)
    stage.post()
    return run_until(stage, "Await Prompt")


def state_of(stage: Stage) -> tuple[JobState, str]:
    job = only_job(stage)
    return job.state, job.failure.code if job.failure else ""


def test_fault_18_a_restart_loses_nine_prompts_and_no_result():
    stage = Stage(instances=1, slots=9)
    for _ in range(9):
        stage.post()
    run_until(stage, "Await Prompt")
    (instance,) = stage.present()
    assert len(instance.queue) == 9
    instance.restart()
    for execution in stage.awake():
        stage.step(execution)  # every one is seen to be lost at its next look
        assert execution.data["step"]["status"] == "LOST"
    stage.settle()
    stage.check_end(losses=0)
    jobs = stage.posted_jobs()
    assert [(job.state, job.attempt) for job in jobs] == [(JobState.SUCCEEDED, 2)] * 9


@pytest.mark.parametrize("times", [1, 2])
def test_fault_20_a_job_survives_one_instance_and_not_a_second(times: int):
    stage = one_running()
    (execution,) = stage.executions.values()
    for attempt in range(1, times + 1):
        while only_job(stage).attempt < attempt or not only_job(stage).prompt_id:
            stage.clock.sleep(5)
            if execution.is_awake:
                stage.step(execution)
        stage.jobs.save(only_job(stage).see_running())
        stage.terminate(only_job(stage).address)
    stage.settle(ticks=20)
    stage.check_end()
    assert state_of(stage) == (
        (JobState.SUCCEEDED, "") if times == 1 else (JobState.FAILED, "ATTEMPTS_EXHAUSTED")
    )


def test_fault_21_a_result_that_fell_out_of_the_history_is_made_once_more():
    stage = one_running(prompt_seconds=3)
    stage.clock.sleep(10)
    job = only_job(stage)
    instance = stage.instances.by_address[job.address]
    instance.run()
    instance.history.clear()
    stage.settle()
    stage.check_end(losses=1)
    assert state_of(stage) == (JobState.SUCCEEDED, "")
    assert len(stage.runs) == 2


def test_fault_23_a_hung_instance_is_left_for_another_and_gets_no_more_jobs():
    stage = one_running()
    hung = stage.instances.by_address[only_job(stage).address]
    hung.hangs = True
    stage.settle(ticks=40)
    stage.terminate(hung.address)  # until then its prompt is asked to end again and again
    stage.settle()
    stage.check_end()
    assert state_of(stage) == (JobState.SUCCEEDED, "")
    assert only_job(stage).address != hung.address


def test_fault_23_with_every_instance_hung_the_deadline_ends_the_job():
    stage = one_running()
    for instance in stage.present():
        instance.hangs = True
    stage.settle(ticks=90)
    assert state_of(stage)[0] in (JobState.EXPIRED, JobState.FAILED)
    assert only_job(stage).closed_at <= only_job(stage).run_deadline + timedelta(minutes=6)
    assert len(stage.topic.replies) == 1


class BrokenBucket(InMemoryMediaStore):
    def __init__(self, fails: int) -> None:
        super().__init__()
        self.fails = fails

    def put_result(self, key, content, *, content_type):
        if self.fails:
            self.fails -= 1
            raise OutputUploadError(f"The output {key} could not be stored.")
        super().put_result(key, content, content_type=content_type)


def test_fault_26_a_result_is_stored_at_the_third_try():
    stage = one_running(prompt_seconds=3)
    stage.media = BrokenBucket(2)
    stage.settle()
    stage.check_end(losses=0)
    assert state_of(stage) == (JobState.SUCCEEDED, "")


def test_fault_26_a_result_that_cannot_be_stored_fails_the_job_and_is_kept():
    stage = one_running(prompt_seconds=3)
    stage.media = BrokenBucket(1000)
    stage.settle()
    stage.check_end(losses=0)
    assert state_of(stage) == (JobState.FAILED, "OUTPUT_UPLOAD")
    job = only_job(stage)
    assert job.prompt_id in stage.instances.by_address[job.address].history
    assert (len(job.outputs), job.abandoned, len(stage.runs)) == (1, (), 1)


def redriven_after_a_refused_upload() -> Stage:
    """Its result lies on the instance; the bucket takes results again."""
    stage = one_running(prompt_seconds=3)
    stage.media = BrokenBucket(1000)
    stage.settle()
    assert state_of(stage) == (JobState.FAILED, "OUTPUT_UPLOAD")
    stage.media = BrokenBucket(0)
    stage.topic.replies.clear()  # each run has an answer of its own
    service = RedriveJob(stage.jobs, stage, {stage.fleet: stage.task_queue}, stage.clock)
    assert service.redrive(only_job(stage).job_id) is RedriveStatus.RUN_AGAIN
    return stage


def test_fault_26_a_redriven_job_collects_the_result_that_was_kept_and_renders_nothing():
    stage = redriven_after_a_refused_upload()
    kept = only_job(stage).kept
    assert kept is not None
    stage.settle()
    job = only_job(stage)
    assert (job.state, job.prompt_id, job.run) == (JobState.SUCCEEDED, kept.prompt_id, 2)
    assert len(stage.runs) == 1
    assert not any(i.jobs for i in stage.store.list_instances(stage.fleet))


def test_fault_26_a_kept_result_that_went_with_its_instance_is_made_anew():
    stage = redriven_after_a_refused_upload()
    kept = only_job(stage).kept
    assert kept is not None
    stage.terminate(kept.address)
    stage.fill_group()
    stage.settle()
    job = only_job(stage)
    assert (job.state, job.guilty_losses) == (JobState.SUCCEEDED, 0)
    assert job.prompt_id != kept.prompt_id
    assert len(stage.runs) == 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="results")
        yield client


class Content:
    """A file of so many bytes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return b"\0" * size


@pytest.mark.parametrize("code", ["AccessDenied", "InternalError"])
def test_fault_26_what_s3_refuses_is_told_as_such(bucket, code: str):
    with Stubber(bucket) as stub:
        stub.add_client_error("put_object", code)
        with pytest.raises(OutputUploadError, match="could not be stored") as raised:
            put(bucket, 9)
    assert isinstance(raised.value.__cause__, ClientError)


def test_fault_26_a_bucket_that_cannot_be_reached_is_told_as_such(bucket, monkeypatch):
    def fail(*args, **kwargs):
        raise EndpointConnectionError(endpoint_url="x")

    monkeypatch.setattr(bucket, "upload_fileobj", fail)
    with pytest.raises(OutputUploadError):
        put(bucket, 9)


def test_fault_27_an_output_that_is_not_there_fails_the_job_after_three_tries():
    stage = one_running(prompt_seconds=3)
    stage.clock.sleep(10)
    instance = stage.instances.by_address[only_job(stage).address]
    instance.run()
    instance.files.clear()
    stage.settle()
    stage.check_end(losses=0)
    assert state_of(stage) == (JobState.FAILED, "OUTPUT_MISSING")


@pytest.mark.parametrize("size", [9, _5_MIB * 2])
def test_fault_28_an_output_over_the_limit_leaves_no_parts_behind(bucket, monkeypatch, size: int):
    monkeypatch.setattr(s3, "MAX_OUTPUT_BYTES", size)
    put(bucket, size)
    assert bucket.head_object(Bucket="results", Key="k")["ContentLength"] == size
    bucket.delete_object(Bucket="results", Key="k")
    with pytest.raises(OutputTooLargeError):
        put(bucket, size + 1)
    assert "Contents" not in bucket.list_objects_v2(Bucket="results")
    assert "Uploads" not in bucket.list_multipart_uploads(Bucket="results")


def put(client, size: int) -> None:
    store = S3MediaStore(client, result_bucket="results")
    store.put_result("k", Content(size), content_type="image/png")


@pytest.mark.parametrize("strike", [Strike.FAILS, Strike.ANSWER_LOST, Strike.DIES_AFTER])
def test_fault_29_an_answer_that_was_not_sent_is_sent_and_the_job_runs_no_more(strike: Strike):
    stage = Stage()
    stage.post()
    points = stage.strikes[FinishJob] = CallPoints("InMemoryReplyTopic.publish", strike)
    stage.settle()
    assert points.struck_at
    stage.check_end(losses=0)
    assert state_of(stage) == (JobState.SUCCEEDED, "")


def test_fault_29_the_sweep_sends_it_when_the_execution_is_over():
    stage = Stage()
    stage.post()
    run_until(stage, "Finish Job")
    stage.strikes[FinishJob] = CallPoints("InMemoryReplyTopic.publish", Strike.FAILS)
    (execution,) = stage.executions.values()
    stage.step(execution)
    execution.status = "ABORTED"
    assert stage.topic.replies == []
    stage.settle()
    stage.check_end(losses=0)
    assert len(stage.topic.replies) == 1


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        ("TIMED_OUT", JobState.EXPIRED, "EXECUTION_TIMED_OUT"),
        ("ABORTED", JobState.CANCELLED, "EXECUTION_ABORTED"),
    ],
)
def test_fault_31_the_end_of_an_execution_closes_its_job_once(status, state, code):
    stage = one_running(prompt_seconds=600)
    (execution,) = stage.executions.values()
    execution.status = status
    stage.tell_end(execution)
    stage.tell_end(execution)
    stage.cancel()
    assert [instance.queue for instance in stage.present()] == [[], []]
    assert state_of(stage) == (state, code)
    assert not any(i.jobs for i in stage.store.list_instances(stage.fleet))
    stage.settle()
    stage.check_end()
    assert len(stage.topic.replies) == 1


def test_fault_32_without_the_cleanup_event_the_sweep_closes_the_job_after_its_deadline():
    stage = one_running(prompt_seconds=9000)
    (execution,) = stage.executions.values()
    execution.status = "ABORTED"
    ends = only_job(stage).run_deadline + timedelta(minutes=5)
    stage.clock.time = ends - timedelta(seconds=1)
    stage.tick()
    assert not only_job(stage).state.is_final
    stage.clock.time = ends
    stage.tick()
    assert state_of(stage) == (JobState.EXPIRED, "DEADLINE_EXCEEDED")
    stage.settle()
    stage.check_end()


def test_fault_36_a_sweep_whose_clock_is_five_minutes_fast_closes_no_job_that_may_run():
    stage = one_running(prompt_seconds=3595)
    stage.clock.time = only_job(stage).run_deadline - timedelta(seconds=6)
    true_time = stage.clock.time
    stage.clock.time += 5 * MINUTE
    stage.sweep()
    stage.clock.time = true_time
    stage.settle()
    stage.check_end(losses=0)
    assert state_of(stage) == (JobState.SUCCEEDED, "")


def test_fault_36_a_scaler_whose_clock_is_wrong_goes_by_its_events():
    stage = Stage(prompt_seconds=600)
    ticks = [stage.clock.now() + n * MINUTE for n in range(1, 4)]
    for tick, skew in zip(ticks, (5, -5, 5), strict=True):
        stage.clock.time = tick + skew * MINUTE
        (done,) = stage.make_scaler().scale(tick=tick)
        assert done.decision is not None
    assert done.decision.state.last_tick == ticks[-1]


def test_fault_39_a_scaling_activity_in_progress_is_a_refusal_and_no_crash():
    client = boto3.client(
        "autoscaling",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106
    )
    with Stubber(client) as stub:
        stub.add_client_error("set_desired_capacity", "ScalingActivityInProgress")
        with pytest.raises(ScalingRefusedError, match="ScalingActivityInProgress"):
            AutoScalingInstancePool(client, None).set_desired("group", 2)
