"""The smoke test: one job through a stage, each hop looked at, and how the stage itself is."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import boto3
from rich.table import Table

from local.backend import Backend, Reply, choose_client_options, read_reply
from local.find_backend import Target, opened_backend
from local.list_alarms import list_alarms
from local.load_test import choose_workflows
from local.media_check import MediaCheckError
from local.read_decisions import list_decisions
from local.result_check import check_result
from local.sample_jobs import SampleJob, make_color, prepare_sample_job
from local.terminal import open_terminal
from ml_service.domain.jobs import Job

_LOOK_SECONDS = 0.5
_TICK_SECONDS = 150
"""A stage that was just deployed gets its first tick within a minute; one may be lost."""
_REPLY_SECONDS = 30
_LAST_STATE_SECONDS = 15


class HopError(Exception):
    """When a hop did not do its part; the text says what is missing."""


@dataclass(frozen=True)
class Hop:
    """One part of the way, and what was seen of it."""

    name: str
    passed: bool
    seen: str


def run_smoke(target: Target, *, workflow: str, timeout_seconds: float) -> int:
    """Send one sample job and print what each hop did; 0 only if all did their part."""
    (chosen,) = choose_workflows([workflow])
    console = open_terminal()
    with opened_backend(target) as backend:
        job = prepare_sample_job(backend, chosen, make_color(1, 3))
        message_id = backend.send(job.body)
        console.print(f"Job {job.job_id} is on the input queue.", highlight=False)
        with console.status("Following it"):
            record = _await_end(backend, job.job_id, message_id, seconds=timeout_seconds)
        hops = [*check_hops(backend, job, record), *check_stage(backend)]
    table = Table("hop", "", "what was seen")
    for hop in hops:
        table.add_row(hop.name, "[green]ok" if hop.passed else "[red]FAILED", hop.seen)
    console.print(table)
    return 0 if all(hop.passed for hop in hops) else 1


def check_hops(backend: Backend, job: SampleJob, record: Job | None) -> Iterator[Hop]:
    """Every hop of one job, in the order of its way."""
    checks: list[tuple[str, Callable[[Job], str]]] = [
        ("dispatch_jobs made a job", lambda job: f"{job.workflow} for {job.fleet}"),
        ("admit_jobs gave it a slot", _find_instance),
        ("run_job went all its way", lambda record: _find_execution(backend, record)),
        ("ComfyUI ran its prompt", _find_prompt),
        ("the results are in the bucket", lambda record: _open_results(backend, job, record)),
        ("finish_job published the reply", _find_publication),
    ]
    if backend.ready["reply_queue_url"]:
        checks.append(("the reply queue has it", lambda _: _find_reply(backend, job)))
    for name, look in checks:
        if record is None:
            yield Hop(name, passed=False, seen="the message was not received")
        else:
            yield _try(name, look, record)


def check_stage(backend: Backend) -> Iterator[Hop]:
    """What shows whether a stage works apart from the job: its tick, dead letters and alarms."""
    resources = list(_list_resources(backend))
    yield _try("scale_fleets ticks", _find_ticks, backend)
    yield _try("no dead letters", lambda names: _count_letters(backend, names), resources)
    options = choose_client_options(backend.ready["endpoint"], backend.ready["region"])
    cloudwatch: Any = boto3.client("cloudwatch", **options)
    yield _try("no alarm", lambda stage: look_at_alarms(cloudwatch, stage), backend.ready["stage"])


def _try(name: str, look: Callable[[Any], str], subject: Any) -> Hop:
    try:
        return Hop(name, passed=True, seen=look(subject))
    except HopError as error:
        return Hop(name, passed=False, seen=str(error))


def _await_end(backend: Backend, job_id: str, message_id: str, *, seconds: float) -> Job | None:
    """The record once its reply is out, or as it stands when the time is over."""
    end = time.monotonic() + seconds
    while True:
        record = backend.find_record(job_id, message_id)
        if time.monotonic() > end or (record is not None and record.published_at is not None):
            return record
        time.sleep(_LOOK_SECONDS)


def _find_instance(record: Job) -> str:
    if record.admitted_at is None:
        raise HopError("it waits in its fleet's task queue: has the fleet an instance?")
    return record.instance_id


def _find_execution(backend: Backend, record: Job) -> str:
    name = f"{record.job_id}-{record.run}"
    arn = backend.ready["state_machine_arn"].replace(":stateMachine:", ":execution:") + f":{name}"
    client = backend.stepfunctions
    # The last state publishes the reply and then ends.
    end = time.monotonic() + (_LAST_STATE_SECONDS if record.published_at else 0)
    try:
        while (status := client.describe_execution(executionArn=arn)["status"]) == "RUNNING":
            if time.monotonic() > end:
                break
            time.sleep(_LOOK_SECONDS)
    except client.exceptions.ExecutionDoesNotExist:
        raise HopError("there is no execution") from None
    entered = {
        event["stateEnteredEventDetails"]["name"]
        for page in client.get_paginator("get_execution_history").paginate(executionArn=arn)
        for event in page["events"]
        if "stateEnteredEventDetails" in event
    }
    machine = client.describe_state_machine(stateMachineArn=backend.ready["state_machine_arn"])
    states = json.loads(machine["definition"])["States"]
    tasks = [name for name, state in states.items() if state["Type"] == "Task"]
    if missing := [name for name in tasks if name not in entered]:
        raise HopError(f"{status}, and never came to {', '.join(missing)}")
    if status != "SUCCEEDED":
        raise HopError(status)
    return " > ".join(tasks)


def _find_prompt(record: Job) -> str:
    if record.failure is not None:
        raise HopError(f"{record.failure.code}: {record.failure.sentence}")
    if record.submitted_at is None:
        raise HopError("no prompt was posted")
    return f"{record.prompt_id}, attempt {record.attempt}"


def _open_results(backend: Backend, job: SampleJob, record: Job) -> str:
    if not record.reply:
        raise HopError("there is no final answer")
    reply = read_reply(record.reply)
    if not reply.succeeded:
        raise HopError(reply.data["Error"])
    try:
        files = check_result(job, reply, backend.read_result)
    except (MediaCheckError, backend.s3.exceptions.NoSuchKey) as error:
        raise HopError(str(error)) from error
    return ", ".join(files)


def _find_publication(record: Job) -> str:
    if record.published_at is None:
        raise HopError(f"the job is {record.state}")
    return f"{(record.published_at - record.received_at).total_seconds():.1f} s after its receipt"


def _find_reply(backend: Backend, job: SampleJob) -> str:
    """Our reply on the queue; those of other jobs stay there."""
    queue_url = backend.ready["reply_queue_url"]
    end = time.monotonic() + _REPLY_SECONDS
    while time.monotonic() < end:
        answer = backend.sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1
        )
        for message in answer.get("Messages", []):
            reply: Reply = read_reply(message["Body"])
            if reply.data["PartialName"] == job.partial_name:
                backend.sqs.delete_message(
                    QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"]
                )
                return "taken from it"
    raise HopError(f"nothing came within {_REPLY_SECONDS} s: is it subscribed to the topic?")


def _find_ticks(backend: Backend) -> str:
    clock, fleets = backend.make_clock(), list(backend.read_fleets())
    end = time.monotonic() + _TICK_SECONDS
    while True:
        since = clock.now() - timedelta(seconds=_TICK_SECONDS)
        late = [
            fleet
            for fleet in fleets
            if not any(d.tick > since for d in list_decisions(backend.fleet_table, fleet, limit=1))
        ]
        if not late:
            return ", ".join(fleets)
        if time.monotonic() > end:
            raise HopError(f"no decision for {', '.join(late)} in {_TICK_SECONDS} s")
        time.sleep(_LOOK_SECONDS)


def _list_resources(backend: Backend) -> Iterator[tuple[str, str, str]]:
    """Type, logical and physical id of everything in the stage's stack."""
    options = choose_client_options(backend.ready["endpoint"], backend.ready["region"])
    pages = boto3.client("cloudformation", **options).get_paginator("list_stack_resources")
    for page in pages.paginate(StackName=f"{backend.ready['stage']}-ml-service"):
        for resource in page["StackResourceSummaries"]:
            yield (
                resource["ResourceType"],
                resource["LogicalResourceId"],
                resource.get("PhysicalResourceId", ""),
            )


def _count_letters(backend: Backend, resources: list[tuple[str, str, str]]) -> str:
    names = [
        url.rpartition("/")[2]
        for kind, logical_id, url in resources
        if kind == "AWS::SQS::Queue" and logical_id.endswith("DeadLetterQueue")
    ]
    counts = {
        name: backend.count_messages(backend.sqs.get_queue_url(QueueName=name)["QueueUrl"])
        for name in names
    }
    if full := {name: count for name, count in counts.items() if count}:
        listed = ", ".join(f"{count} in {name}" for name, count in full.items())
        raise HopError(f"{listed}: ml-service dlq list")
    return f"{len(names)} queues are empty"


def look_at_alarms(cloudwatch: Any, stage: str) -> str:
    """How many alarms a stage has; raises HopError if one rings, or if there are none."""
    alarms = list_alarms(cloudwatch, stage)
    if ringing := [alarm.name for alarm in alarms if alarm.state == "ALARM"]:
        raise HopError(", ".join(ringing))
    if not alarms:
        raise HopError("the stage has none, so nothing would ring")
    return f"{len(alarms)} alarms"
