"""What stores, queues and JobRunner promise, on every form that they have."""

import functools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.backends import get_backend

from local.aws.patch_moto import keep_conditions_true
from local.aws.read_template import read_template
from ml_service.adapters.dynamodb import DynamoDBFleetStore, DynamoDBJobStore
from ml_service.adapters.sqs import SqsDeadLetterQueue, SqsJobQueue, SqsRefusedMessages
from ml_service.adapters.stepfunctions import StepFunctionsJobRunner
from ml_service.domain.errors import JobChangedError, JobNotFoundError
from ml_service.domain.fleets import GroupMember, Instance
from ml_service.domain.jobs import Failure, JobState
from ml_service.domain.scaling import (
    FleetObservation,
    ScalerState,
    ScalingIntent,
    decide_scaling,
)
from ml_service.domain.scaling_policy import ScalingPolicy
from ml_service.domain.stage_counts import OpenJob
from ml_service.ports import (
    DeadLetter,
    DeadLetterQueue,
    FleetStore,
    JobQueue,
    JobRunner,
    JobStore,
    QueuedMessage,
)
from tests.fakes import (
    NOON,
    InMemoryDeadLetterQueue,
    InMemoryFleetStore,
    InMemoryJobQueue,
    InMemoryJobRunner,
    InMemoryJobStore,
)
from tests.makers import JOB_ID, make_body, make_job

MEMBER = GroupMember("i-a", NOON, "10.0.0.1", in_service=True)
KEY = MEMBER.key
FLEET = "pulid"


@pytest.fixture(scope="module")
def moto() -> Iterator[None]:
    """One moto for all tests here: to start it takes longer than any of them."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.delenv("AWS_CA_BUNDLE", raising=False)
        with mock_aws():
            yield


@pytest.fixture
def aws(moto: None) -> Iterator[None]:
    """An account without anything in it."""
    yield
    for service in ("dynamodb", "sqs", "stepfunctions"):
        get_backend(service).reset()


def make_table(name: str, *keys: str) -> Any:
    return boto3.resource("dynamodb").create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": key, "KeyType": kind}
            for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
        ],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        BillingMode="PAY_PER_REQUEST",
    )


@functools.cache
def read_job_table() -> dict[str, Any]:
    """The table as the template makes it."""
    template = read_template(Path(__file__).parents[2] / "template.yaml")
    properties = template["Resources"]["JobTable"]["Properties"]
    kept = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    return {name: properties[name] for name in kept}


def make_job_table() -> Any:
    return boto3.resource("dynamodb").create_table(TableName="jobs", **read_job_table())


@pytest.fixture(params=["memory", "dynamodb"])
def jobs(request: pytest.FixtureRequest) -> JobStore:
    if request.param == "memory":
        return InMemoryJobStore()
    request.getfixturevalue("aws")
    return DynamoDBJobStore(make_job_table())


@pytest.fixture(params=["memory", "dynamodb"])
def fleets(request: pytest.FixtureRequest) -> FleetStore:
    if request.param == "memory":
        return InMemoryFleetStore()
    request.getfixturevalue("aws")
    return DynamoDBFleetStore(make_table("fleets", "pk", "sk"))


@pytest.fixture(params=["memory", "sqs"])
def queue(request: pytest.FixtureRequest) -> JobQueue:
    if request.param == "memory":
        return InMemoryJobQueue()
    request.getfixturevalue("aws")
    sqs = boto3.client("sqs")
    return SqsJobQueue(sqs, sqs.create_queue(QueueName="tasks")["QueueUrl"])


@pytest.fixture(params=["memory", "sqs"])
def dead_letters(request: pytest.FixtureRequest) -> DeadLetterQueue:
    """Twelve messages that the task queue of a fleet gave up."""
    attributes = {"Trace": {"DataType": "String", "StringValue": "x"}}
    messages = [QueuedMessage(str(n), f"body {n}", attributes=attributes) for n in range(12)]
    if request.param == "memory":
        return InMemoryDeadLetterQueue(*(DeadLetter(m, NOON, fleet=FLEET) for m in messages))
    request.getfixturevalue("aws")
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="dead")["QueueUrl"]
    SqsJobQueue(sqs, url).send(messages)
    return SqsDeadLetterQueue(sqs, url, fleet=FLEET)


@pytest.fixture(params=["memory", "stepfunctions"])
def runner(request: pytest.FixtureRequest) -> JobRunner:
    if request.param == "memory":
        return InMemoryJobRunner()
    request.getfixturevalue("aws")
    client = boto3.client("stepfunctions")
    machine = client.create_state_machine(
        name="run_job",
        definition='{"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}',
        roleArn="arn:aws:iam::123456789012:role/any",
    )
    return StepFunctionsJobRunner(client, machine["stateMachineArn"])


def only(fleets: FleetStore) -> Instance:
    (instance,) = fleets.list_instances(FLEET)
    return instance


class TestJobStore:
    def test_a_record_comes_back_as_it_was(self, jobs: JobStore):
        job = make_job("latent-sync").admit(instance="i", instance_id="i", address="a", at=NOON)
        job = job.model_copy(
            update={
                "version": 1,
                "failure": Failure(code="X", sentence="é"),
                "expected_seconds": 0.1,
            }
        )
        assert jobs.add(job)
        assert jobs.get(JOB_ID) == job

    def test_jobs_are_listed_once_they_are_due_the_longest_first(self, jobs: JobStore):
        for hours in (3, 1, 2, 9):
            jobs.add(make_job(job_id=f"{hours} h", deadline=NOON + timedelta(hours=hours)))
        assert jobs.list_due(NOON + timedelta(hours=3), limit=9) == ["1 h", "2 h", "3 h"]
        assert jobs.list_due(NOON + timedelta(hours=3), limit=2) == ["1 h", "2 h"]

    def test_a_job_with_nothing_left_to_do_is_listed_no_more(self, jobs: JobStore):
        later = NOON + timedelta(days=9)
        jobs.add(make_job())
        assert jobs.list_due(later, limit=9) == [JOB_ID]
        closed = make_job().close(JobState.FAILED, reply="r", at=NOON)
        jobs.save(closed)
        assert jobs.list_due(later, limit=9) == [JOB_ID]
        jobs.save(closed.mark_published(NOON))
        assert jobs.list_due(later, limit=9) == []

    def test_open_jobs_are_told_with_what_is_counted_of_them(self, jobs: JobStore):
        running = make_job("latent-sync", job_id="runs").admit(
            instance="i", instance_id="i", address="a", at=NOON
        )
        jobs.add(make_job())
        jobs.add(running.model_copy(update={"version": 1}))
        jobs.add(make_job(job_id="done").close(JobState.FAILED, reply="r", at=NOON))
        jobs.save(jobs.get("done").mark_published(NOON))
        assert sorted(jobs.list_open(), key=attrgetter("fleet")) == [
            OpenJob("lip-sync", "latent-sync", JobState.ADMITTED, running.late_after),
            OpenJob("pulid", "flux-prompt", JobState.QUEUED, make_job().deadline),
        ]

    def test_a_job_id_is_taken_once(self, jobs: JobStore):
        assert jobs.add(make_job())
        assert not jobs.add(make_job(seed=8))
        assert jobs.get(JOB_ID).seed == 7

    @pytest.mark.parametrize("job_id", ["unknown", ""])
    def test_an_unknown_job_is_not_found(self, jobs: JobStore, job_id: str):
        with pytest.raises(JobNotFoundError):
            jobs.get(job_id)

    def test_of_two_writers_of_one_version_the_second_is_told(self, jobs: JobStore):
        jobs.add(make_job())
        read = jobs.get(JOB_ID)
        jobs.save(read.close(JobState.FAILED, reply="first", at=NOON))
        with pytest.raises(JobChangedError):
            jobs.save(read.close(JobState.SUCCEEDED, reply="second", at=NOON))
        assert jobs.get(JOB_ID).reply == "first"

    def test_jobs_are_listed_by_fleet_and_state_the_latest_first(self, jobs: JobStore):
        ids = ["a", "b", "c", "d"]
        for second, job_id in enumerate(ids):
            received_at = NOON + timedelta(seconds=second)
            jobs.add(make_job(job_id=job_id, received_at=received_at))
        jobs.add(make_job(job_id="elsewhere", fleet="makeup"))
        jobs.save(jobs.get("b").close(JobState.CANCELLED, reply="{}", at=NOON))

        first = jobs.list_latest(FLEET, JobState.QUEUED, limit=2)
        rest = jobs.list_latest(FLEET, JobState.QUEUED, before=first[-1].turn, limit=2)
        (closed,) = jobs.list_latest(FLEET, JobState.CANCELLED, limit=2)

        assert [job.job_id for job in (*first, *rest)] == ["d", "c", "a"]
        assert first[0].received_at == NOON + timedelta(seconds=3)
        assert (closed.job_id, closed.workflow, closed.closed_at) == ("b", "flux-prompt", NOON)

    def test_jobs_that_wait_before_another_are_counted(self, jobs: JobStore):
        for second in range(3):
            received_at = NOON + timedelta(milliseconds=second)
            jobs.add(make_job(job_id=f"job-{second}", received_at=received_at))
        jobs.add(make_job(job_id="elsewhere", fleet="makeup"))
        jobs.save(jobs.get("job-0").close(JobState.CANCELLED, reply="{}", at=NOON))

        assert [jobs.count_earlier(jobs.get(f"job-{n}")) for n in (1, 2)] == [0, 1]


class TestFleetStore:
    def test_a_new_instance_takes_jobs_and_is_listed(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=2, at=NOON)
        fleets.put_instance("makeup", MEMBER, reading=None, at=NOON)
        instance = only(fleets)
        assert instance == Instance(
            key=KEY,
            instance_id="i-a",
            address="10.0.0.1",
            in_service=True,
            takes_jobs=True,
            reading=2,
            read_at=NOON,
        )

    def test_a_slot_is_taken_up_to_the_limit_and_given_back(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        take = [fleets.take_slot(FLEET, KEY, job, slots=2, at=NOON) for job in "abc"]
        assert take == [True, True, False]
        fleets.release_slot(FLEET, KEY, "a")
        assert fleets.take_slot(FLEET, KEY, "c", slots=2, at=NOON)
        assert only(fleets).jobs == {"b", "c"}
        assert only(fleets).placed_at == NOON

    def test_a_repeat_keeps_its_own_slot_on_a_full_instance(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        assert fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)
        assert fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)

    def test_the_last_slot_can_be_emptied_and_taken_again(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        for _ in range(2):
            assert fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)
            fleets.release_slot(FLEET, KEY, "a")
        assert only(fleets).jobs == frozenset()

    def test_jobs_wait_for_a_slot_each_fleets_apart(self, fleets: FleetStore):
        assert fleets.list_waiting("pulid") == set()
        for job_id in ("job-1", "job-2", "job-1"):
            fleets.wait_for_slot("pulid", job_id)
        fleets.wait_for_slot("makeup", "job-3")
        assert fleets.list_waiting("pulid") == {"job-1", "job-2"}
        for job_id in ("job-1", "job-2", "job-2"):
            fleets.stop_waiting("pulid", job_id)
        assert fleets.list_waiting("pulid") == set()
        assert fleets.list_instances("pulid") == []

    def test_an_unknown_instance_has_no_slots_and_is_not_made_up(self, fleets: FleetStore):
        assert not fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)
        fleets.release_slot(FLEET, KEY, "a")
        fleets.record_reading(FLEET, KEY, 1, NOON)
        assert fleets.list_instances(FLEET) == []

    def test_a_refresh_keeps_slots(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)
        fleets.put_instance(FLEET, MEMBER, reading=None, at=NOON + timedelta(minutes=1))
        assert (only(fleets).jobs, only(fleets).reading) == ({"a"}, None)

    def test_a_reading_is_replaced(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        fleets.record_reading(FLEET, KEY, 5, NOON + timedelta(seconds=7))
        assert (only(fleets).reading, only(fleets).read_at) == (5, NOON + timedelta(seconds=7))

    def test_an_older_look_does_not_undo_a_newer_one(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=3, at=NOON)
        earlier = NOON - timedelta(seconds=1)
        fleets.put_instance(FLEET, MEMBER, reading=None, at=earlier)
        fleets.record_reading(FLEET, KEY, 9, earlier)
        assert (only(fleets).reading, only(fleets).read_at) == (3, NOON)

    def test_an_instance_that_left_is_forgotten(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        fleets.remove_instance(FLEET, KEY)
        assert fleets.list_instances(FLEET) == []

    def test_one_admission_at_a_time_and_none_is_forgotten(self, fleets: FleetStore):
        assert fleets.begin_admission(FLEET, at=NOON)
        assert fleets.begin_admission("makeup", at=NOON)
        assert not fleets.begin_admission(FLEET, at=NOON + timedelta(seconds=59))
        assert not fleets.end_admission(FLEET), "somebody asked for another look"
        assert fleets.end_admission(FLEET)
        assert fleets.begin_admission(FLEET, at=NOON + timedelta(seconds=59))

    def test_an_admission_that_died_is_replaced(self, fleets: FleetStore):
        assert fleets.begin_admission(FLEET, at=NOON)
        assert fleets.begin_admission(FLEET, at=NOON + timedelta(seconds=60))

    def test_a_draining_instance_takes_no_jobs_until_it_ends(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        assert fleets.start_draining(FLEET, KEY)
        assert not fleets.start_draining(FLEET, KEY), "somebody drains it already"
        assert not only(fleets).takes_jobs
        assert not fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        assert not only(fleets).takes_jobs, "a refresh keeps it draining"
        fleets.stop_draining(FLEET, KEY)
        assert fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)

    def test_an_instance_with_a_job_is_not_drained(self, fleets: FleetStore):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)
        assert not fleets.start_draining(FLEET, KEY)
        fleets.release_slot(FLEET, KEY, "a")
        assert fleets.start_draining(FLEET, KEY)

    def test_one_at_a_time_warms_an_instance_up_and_only_once(self, fleets: FleetStore):
        assert not fleets.begin_warm_up(FLEET, KEY, at=NOON)
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        assert fleets.begin_warm_up(FLEET, KEY, at=NOON)
        assert not fleets.begin_warm_up(FLEET, KEY, at=NOON + timedelta(seconds=299))
        assert fleets.begin_warm_up(FLEET, KEY, at=NOON + timedelta(seconds=300)), "it has died"
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        assert only(fleets).warming_since == NOON + timedelta(seconds=300)
        assert not only(fleets).is_warm
        fleets.end_warm_up(FLEET, KEY, at=NOON, fault="Too slow.")
        assert (only(fleets).is_ready, only(fleets).warm_up_fault) == (True, "Too slow.")
        assert not fleets.begin_warm_up(FLEET, KEY, at=NOON + timedelta(hours=1))
        assert only(fleets).warming_since is None

    def test_a_warm_up_that_was_given_up_may_begin_again_and_its_faults_count(
        self, fleets: FleetStore
    ):
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        for fault in ("No GPU.", "", "No GPU."):
            assert fleets.begin_warm_up(FLEET, KEY, at=NOON)
            fleets.abandon_warm_up(FLEET, KEY, fault=fault)
        assert (only(fleets).warm_up_tries, only(fleets).warm_up_fault) == (2, "No GPU.")
        assert not only(fleets).is_warm

    def test_an_instance_that_left_is_not_warmed_up_and_not_made_up(self, fleets: FleetStore):
        fleets.end_warm_up(FLEET, KEY, at=NOON)
        fleets.abandon_warm_up(FLEET, KEY)
        assert fleets.list_instances(FLEET) == []

    def test_an_unknown_instance_is_not_drained_and_not_made_up(self, fleets: FleetStore):
        assert not fleets.start_draining(FLEET, KEY)
        fleets.stop_draining(FLEET, KEY)
        assert fleets.list_instances(FLEET) == []

    def test_the_scalers_memory_is_written_over_the_tick_that_was_read(self, fleets: FleetStore):
        assert fleets.load_scaler(FLEET) == ScalerState()
        intent = ScalingIntent(desired=2, no_out_until=NOON, no_in_until=NOON)
        first = ScalerState(
            last_tick=NOON,
            busy_checks=2,
            desired=1,
            shielded=("i-a",),
            intent=intent,
            silent_ticks={KEY: 2},
        )
        assert fleets.save_scaler(FLEET, first, last_tick=None)
        assert fleets.load_scaler(FLEET) == first
        second = ScalerState(last_tick=NOON + timedelta(minutes=1))
        assert not fleets.save_scaler(FLEET, second, last_tick=None)
        assert fleets.save_scaler(FLEET, second, last_tick=NOON)
        assert fleets.load_scaler(FLEET) == second

    def test_a_decision_is_kept(self, fleets: FleetStore):
        observation = FleetObservation(
            tick=NOON, desired=1, minimum=1, maximum=3, readings=(11, None)
        )
        decision = decide_scaling(observation, ScalerState(), ScalingPolicy(threshold=5))
        assert decision is not None
        fleets.add_decision(FLEET, decision, outcome="DONE")
        assert fleets.list_instances(FLEET) == []


def test_a_decision_that_did_nothing_is_kept_for_30_days_with_all_that_led_to_it(aws: None):
    table = make_table("fleets", "pk", "sk")
    observation = FleetObservation(tick=NOON, desired=1, minimum=1, maximum=3, readings=(6, None))
    state = ScalerState(last_tick=NOON - timedelta(minutes=1), desired=1, busy_checks=1)
    decision = decide_scaling(observation, state, ScalingPolicy(threshold=5))
    assert decision is not None
    DynamoDBFleetStore(table).add_decision(FLEET, decision, outcome="DONE")
    (item,) = table.scan()["Items"]
    assert (item["action"], item["outcome"]) == ("NONE", "DONE")
    assert item["reason"] == "The longest queue is 6, more than 5: check 2 of 3."
    assert item["observation"]["readings"] == [6, None]
    assert item["state"]["busy_checks"] == 2
    assert item["expires_at"] == (NOON + timedelta(days=30)).timestamp()


def test_a_stall_is_noted_until_a_prompt_succeeds(fleets: FleetStore):
    fleets.record_stall(FLEET, KEY, NOON)
    assert fleets.list_instances(FLEET) == []
    fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
    fleets.record_stall(FLEET, KEY, NOON)
    fleets.release_slot(FLEET, KEY, "job")
    assert only(fleets).stalled_at == NOON
    fleets.release_slot(FLEET, KEY, "job", worked=True)
    assert only(fleets).stalled_at is None


class TestQuarantine:
    @pytest.fixture(autouse=True)
    def instance(self, fleets: FleetStore) -> None:
        fleets.put_instance(FLEET, MEMBER, reading=0, at=NOON)
        fleets.end_warm_up(FLEET, KEY, at=NOON)

    def test_fault_22_the_third_fault_in_a_row_quarantines_once(self, fleets: FleetStore):
        assert [fleets.record_fault(FLEET, KEY, NOON) for _ in range(4)] == [
            False,
            False,
            True,
            False,
        ]
        assert (only(fleets).faults, only(fleets).quarantined_at) == (4, NOON)
        assert not only(fleets).is_ready

    def test_a_success_between_faults_starts_the_count_anew(self, fleets: FleetStore):
        fleets.take_slot(FLEET, KEY, "a", slots=1, at=NOON)
        for _ in range(2):
            fleets.record_fault(FLEET, KEY, NOON)
            fleets.record_fault(FLEET, KEY, NOON)
            fleets.release_slot(FLEET, KEY, "a", worked=True)
        assert only(fleets).faults == 0
        assert only(fleets).is_ready

    def test_a_lifted_quarantine_leaves_one_fault_to_the_next(self, fleets: FleetStore):
        for _ in range(3):
            fleets.record_fault(FLEET, KEY, NOON)
        fleets.lift_quarantine(FLEET, KEY)
        assert only(fleets).is_ready
        assert fleets.record_fault(FLEET, KEY, NOON)

    def test_an_instance_that_is_gone_has_no_faults(self, fleets: FleetStore):
        fleets.remove_instance(FLEET, KEY)
        assert not any(fleets.record_fault(FLEET, KEY, NOON) for _ in range(4))
        fleets.lift_quarantine(FLEET, KEY)
        assert fleets.list_instances(FLEET) == []


class TestJobQueue:
    def test_messages_come_out_with_body_and_attributes(self, queue: JobQueue):
        attributes = {"Trace": {"DataType": "String", "StringValue": "x"}}
        assert queue.send([QueuedMessage("1", make_body(), attributes=attributes)]) == []
        (message,) = queue.receive(10)
        assert message.body == make_body()
        assert message.attributes == attributes

    def test_more_messages_than_one_call_takes_all_arrive(self, queue: JobQueue):
        bodies = [f"{n}" + "x" * 100_000 for n in range(11)]
        assert queue.send([QueuedMessage(str(n), body) for n, body in enumerate(bodies)]) == []
        received = [m.body for _ in range(3) for m in queue.receive(10)]
        assert sorted(received) == sorted(bodies)

    def test_only_messages_that_nobody_holds_wait(self, queue: JobQueue):
        queue.send([QueuedMessage("1", "body"), QueuedMessage("2", "body")])
        assert queue.count_waiting() == 2
        queue.receive(1)
        assert queue.count_waiting() == 1

    def test_a_received_message_is_hidden_until_it_is_put_back(self, queue: JobQueue):
        attributes = {"Trace": {"DataType": "String", "StringValue": "x"}}
        queue.send([QueuedMessage("1", "body", attributes=attributes)])
        (message,) = queue.receive(1)
        assert queue.receive(1) == []
        queue.put_back(message)
        (again,) = queue.receive(1)
        assert (again.body, again.attributes) == ("body", attributes)
        queue.delete([again.receipt])
        assert queue.receive(1) == []


class TestDeadLetterQueue:
    def test_what_is_held_is_hidden_until_it_is_released(self, dead_letters: DeadLetterQueue):
        first, second = dead_letters.hold(), dead_letters.hold()
        assert (len(first), len(second), dead_letters.hold()) == (10, 2, [])
        assert {letter.message.body for letter in (*first, *second)} == {
            f"body {n}" for n in range(12)
        }
        assert dead_letters.count_hidden() == 12
        dead_letters.release([letter.message.receipt for letter in second])
        assert dead_letters.count_hidden() == 10
        again = dead_letters.hold()
        assert {a.message.message_id for a in again} == {s.message.message_id for s in second}

    def test_a_letter_says_where_it_comes_from(self, dead_letters: DeadLetterQueue):
        letter = dead_letters.hold()[0]
        assert letter.fleet == FLEET
        assert letter.sent_at.tzinfo is not None
        assert letter.message.attributes == {"Trace": {"DataType": "String", "StringValue": "x"}}

    def test_what_is_deleted_is_gone(self, dead_letters: DeadLetterQueue):
        letters = dead_letters.hold()
        dead_letters.delete(letters[0].message.receipt)
        dead_letters.release([letter.message.receipt for letter in letters[1:]])
        left = [letter for _ in range(2) for letter in dead_letters.hold()]
        assert len(left) == 11
        assert letters[0].message.message_id not in {a.message.message_id for a in left}


def test_a_runner_tells_runs_apart(runner: JobRunner):
    assert not runner.is_running(JOB_ID, 1)
    assert runner.start(JOB_ID, 1)
    assert runner.start(JOB_ID, 1), "a repeat is the same call"
    assert runner.is_running(JOB_ID, 1)
    assert not runner.is_running(JOB_ID, 2)


def test_fault_11_slots_stay_exact_when_many_take_at_once(aws: None):
    keep_conditions_true()  # DynamoDB's own promise, which moto breaks under threads
    store = DynamoDBFleetStore(make_table("fleets", "pk", "sk"))
    store.put_instance(FLEET, MEMBER, reading=0, at=NOON)
    with ThreadPoolExecutor(8) as pool:
        taken = list(
            pool.map(lambda n: store.take_slot(FLEET, KEY, f"j{n}", slots=5, at=NOON), range(20))
        )
    assert sum(taken) == 5
    assert len(store.list_instances(FLEET)[0].jobs) == 5


def test_a_new_instance_is_seen_whole_or_not_at_all(aws: None):
    keep_conditions_true()
    store = DynamoDBFleetStore(make_table("fleets", "pk", "sk"))

    def put_or_list(number: int) -> bool:
        if number % 2:
            return all(instance.address for instance in store.list_instances(FLEET))
        member = replace(MEMBER, launched_at=NOON + timedelta(seconds=number))
        store.put_instance(FLEET, member, reading=0, at=NOON)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put_or_list, range(120)))


def test_fault_11_lost_races_for_a_slot_do_not_fill_the_dead_letter_queue(aws: None):
    sqs = boto3.client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    redrive = json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 2})
    url = sqs.create_queue(QueueName="tasks", Attributes={"RedrivePolicy": redrive})["QueueUrl"]
    queue = SqsJobQueue(sqs, url)
    queue.send([QueuedMessage("1", "body")])
    for _ in range(5):
        (message,) = queue.receive(1)
        queue.put_back(message)
    assert [m.body for m in queue.receive(1)] == ["body"]


def test_a_refused_message_is_kept_with_its_reason(aws: None):
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="dead")["QueueUrl"]
    SqsRefusedMessages(sqs, url).keep("", code="INVALID_JSON", sentence="Not JSON.")
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert message["MessageAttributes"]["RefusalCode"]["StringValue"] == "INVALID_JSON"
    assert message["MessageAttributes"]["RefusalReason"]["StringValue"] == "Not JSON."
