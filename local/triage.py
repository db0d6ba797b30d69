"""Looking at messages that a queue gave up, and deciding what becomes of them."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from local.backend import Backend
from local.find_backend import Target, TargetError, opened_backend
from local.terminal import open_terminal
from ml_service.adapters.lambda_functions import LambdaJobStopper
from ml_service.adapters.sqs import SqsDeadLetterQueue, SqsJobQueue
from ml_service.adapters.stepfunctions import StepFunctionsJobRunner
from ml_service.domain.errors import JobNotFoundError, RedriveRefusedError, RefusalCode
from ml_service.domain.jobs import Job
from ml_service.ports import (
    REFUSAL_CODE_ATTRIBUTE,
    REFUSAL_REASON_ATTRIBUTE,
    DeadLetter,
    DeadLetterQueue,
)
from ml_service.services.hold_letters import HeldLetters
from ml_service.services.redrive_job import RedriveJob, plan_redrive
from ml_service.services.triage_dead_letters import TriageDeadLetters

_INPUT = "input"
_ID_WIDTH = 36
"""A UUID: an id that is cut off could not be given to the next command."""


@dataclass(frozen=True)
class _Desk:
    """A stage's dead-letter queues by name, and what can be done with the letters."""

    service: TriageDeadLetters
    queues: Mapping[str, DeadLetterQueue]


def run_list(target: Target, queue: str | None, *, limit: int) -> None:
    """Print the messages of one queue or of all."""
    table = Table()
    for name in ("message", "job"):
        table.add_column(name, no_wrap=True, min_width=_ID_WIDTH)
    for name in ("queue", "sent", "reason", "state", "run", "redrive"):
        table.add_column(name)
    hidden = 0
    with _opened_desk(target, queue) as desk:
        for name, dead_letters in desk.queues.items():
            hidden += dead_letters.count_hidden()
            with HeldLetters(dead_letters) as letters:
                for letter in letters:
                    table.add_row(*_describe_row(desk.service, name, letter))
                    if table.row_count == limit:
                        break
            if table.row_count == limit:
                break
    terminal = open_terminal()
    terminal.print(table)
    if table.row_count == limit:
        terminal.print(f"There may be more: --limit is {limit}.")
    if hidden:
        terminal.print(f"About {hidden} more are in somebody's hands and come back by themselves.")


def run_show(target: Target, message_id: str, *, with_body: bool) -> None:
    """Print one message as JSON, what its sender wrote only if it is asked for."""
    with _opened_desk(target, None) as desk:
        for name, dead_letters in desk.queues.items():
            with HeldLetters(dead_letters) as letters:
                for letter in letters:
                    if letter.message.message_id == message_id:
                        shown = _describe(desk.service, name, letter, with_body=with_body)
                        text = json.dumps(shown, indent=2, ensure_ascii=False)
                        open_terminal().out(text, highlight=False)
                        return
    raise _missing({message_id})


def run_redrive(target: Target, queue: str | None, ids: Collection[str] | None) -> int:
    """Redrive the messages with these ids, or all; 1 if one had to stay where it is."""
    return _deal_with(target, queue, ids, lambda service: service.redrive)


def run_drop(target: Target, queue: str | None, ids: Collection[str] | None) -> int:
    """Drop the messages with these ids, or all."""
    return _deal_with(target, queue, ids, lambda service: service.drop)


def run_redrive_jobs(target: Target, job_ids: Collection[str]) -> int:
    """Redrive jobs that were closed without a result; 1 if one could not be."""
    terminal = open_terminal()
    refused = False
    with opened_backend(target) as backend:
        service = _make_redrive_job(backend)
        for job_id in job_ids:
            try:
                terminal.out(f"{job_id} {service.redrive(job_id)}", highlight=False)
            except (JobNotFoundError, RedriveRefusedError) as error:
                refused = True
                terminal.out(f"{job_id} STAYS {error}", highlight=False)
    return 1 if refused else 0


def _deal_with(
    target: Target,
    queue: str | None,
    ids: Collection[str] | None,
    choose: Callable[[TriageDeadLetters], Callable[[DeadLetter], str]],
) -> int:
    terminal = open_terminal()
    found: set[str] = set()
    stayed = False
    with _opened_desk(target, queue) as desk:
        deal_with = choose(desk.service)
        for dead_letters in desk.queues.values():
            with HeldLetters(dead_letters) as letters:
                for letter in letters:
                    message_id = letter.message.message_id
                    if ids is not None and message_id not in ids:
                        continue
                    found.add(message_id)
                    try:
                        status = deal_with(letter)
                    except RedriveRefusedError as error:
                        stayed = True
                        terminal.out(f"{message_id} STAYS {error}", highlight=False)
                        continue
                    letters.delete(letter)
                    terminal.out(f"{message_id} {status}", highlight=False)
    if ids is not None and (missing := set(ids) - found):
        raise _missing(missing)
    return 1 if stayed else 0


@contextmanager
def _opened_desk(target: Target, queue: str | None) -> Iterator[_Desk]:
    with opened_backend(target) as backend:
        desk = _open_desk(backend)
        if queue is None:
            yield desk
        elif queue in desk.queues:
            yield _Desk(desk.service, {queue: desk.queues[queue]})
        else:
            raise TargetError(f"there is no queue {queue!r}, only {', '.join(desk.queues)}")


def _open_desk(backend: Backend) -> _Desk:
    stage, input_queue_url = backend.ready["stage"], backend.ready["input_queue_url"]
    task_queue_urls = {name: fleet.task_queue_url for name, fleet in backend.read_fleets().items()}
    service = TriageDeadLetters(
        jobs=backend.jobs,
        redrive_job=_make_redrive_job(backend),
        stopper=LambdaJobStopper(backend.functions, f"{stage}-ml-service-finish-job"),
        input_queue=SqsJobQueue(backend.sqs, input_queue_url),
    )
    return _Desk(
        service,
        {
            _INPUT: SqsDeadLetterQueue(backend.sqs, _find_dead_letters(backend, input_queue_url)),
            **{
                name: SqsDeadLetterQueue(backend.sqs, _find_dead_letters(backend, url), fleet=name)
                for name, url in task_queue_urls.items()
            },
        },
    )


def _make_redrive_job(backend: Backend) -> RedriveJob:
    return RedriveJob(
        jobs=backend.jobs,
        runner=StepFunctionsJobRunner(backend.stepfunctions, backend.ready["state_machine_arn"]),
        task_queues={
            name: SqsJobQueue(backend.sqs, fleet.task_queue_url)
            for name, fleet in backend.read_fleets().items()
        },
        clock=backend.make_clock(),
    )


def _find_dead_letters(backend: Backend, queue_url: str) -> str:
    name = queue_url.rsplit("/", 1)[1]
    return backend.sqs.get_queue_url(QueueName=f"{name}-deadletter")["QueueUrl"]


def _describe_row(service: TriageDeadLetters, queue: str, letter: DeadLetter) -> list[str]:
    job = service.find_job(letter)
    failure = job.failure.code if job is not None and job.failure else ""
    return [
        letter.message.message_id,
        escape(job.job_id) if job else "",
        queue,
        f"{letter.sent_at:%Y-%m-%d %H:%M:%S}",
        _read_refusal(letter).get("code", failure),
        job.state if job else "",
        str(job.run) if job else "",
        plan_redrive(job),
    ]


def _describe(
    service: TriageDeadLetters, queue: str, letter: DeadLetter, *, with_body: bool
) -> dict[str, Any]:
    job = service.find_job(letter)
    shown: dict[str, Any] = {
        "message_id": letter.message.message_id,
        "queue": queue,
        "sent_at": letter.sent_at.isoformat(),
        "body_bytes": len(letter.message.body.encode()),
        "refusal": _read_refusal(letter),
        "job": _describe_job(job) if job else {},
        "redrive": plan_redrive(job),
    }
    if with_body:
        shown |= {"body": letter.message.body, "attributes": letter.message.attributes}
    return {name: value for name, value in shown.items() if value}


def _describe_job(job: Job) -> dict[str, Any]:
    # Of the failure only the code: its sentence may name a picture's key.
    members = {"job_id", "workflow", "fleet", "state", "run", "attempt", "received_at", "deadline"}
    shown = job.model_dump(mode="json", include=members | {"closed_at", "published_at"})
    return {**shown, "failure": job.failure.code if job.failure else None}


def _read_refusal(letter: DeadLetter) -> Mapping[str, str]:
    """Why dispatch_jobs kept the message here; empty for one that a queue moved here."""
    attributes = letter.message.attributes or {}
    code = str(attributes.get(REFUSAL_CODE_ATTRIBUTE, {}).get("StringValue", ""))
    if code not in list(RefusalCode):
        return {}  # a sender's own attribute of that name may hold anything
    reason = attributes.get(REFUSAL_REASON_ATTRIBUTE, {}).get("StringValue", "")
    return {"code": code, "reason": str(reason)}


def _missing(ids: Collection[str]) -> TargetError:
    return TargetError(
        f"not in these dead-letter queues: {', '.join(sorted(ids))}; see ml-service dlq list"
    )
