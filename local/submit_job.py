"""Sending one job by hand, and waiting for its answer."""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from rich.console import Console

from local.backend import Backend, read_reply
from local.find_backend import Target, opened_backend
from local.job_messages import UnknownInputError, make_message
from local.project import WORKFLOWS
from local.terminal import open_terminal
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.errors import MlServiceError
from ml_service.domain.jobs import Job
from ml_service.domain.manifests import (
    BooleanInput,
    IntegerInput,
    ListInput,
    MediaInput,
    NumberInput,
    Workflow,
)

_LOOK_SECONDS = 0.3


class InputValueError(MlServiceError):
    """When an input on the command line cannot be read."""


class NoAnswerError(MlServiceError):
    """When a job has no answer within the time that was given."""


@dataclass(frozen=True)
class SubmitOptions:
    """What is sent, and how long its answer is waited for."""

    workflow: str
    inputs: Sequence[str]
    """Each ``name=value``, or ``name=@path`` for a file on this machine."""
    group_id: int = 1
    wait: bool = False
    timeout_seconds: float = 3600.0
    save_to: Path | None = None
    """Folder for the result's files."""


def run_submit(target: Target, options: SubmitOptions) -> int:
    """Send a job and print its id; 0 if it was sent and, where waited for, succeeded."""
    catalog = load_catalog(WORKFLOWS)
    names = [workflow.workflow for workflow in catalog]
    if options.workflow not in names:
        raise InputValueError(
            f"there is no workflow {options.workflow}, only {', '.join(sorted(names))}"
        )
    workflow = catalog.workflow(options.workflow)
    given = parse_inputs(workflow, options.inputs)
    console = open_terminal()
    with opened_backend(target) as backend:
        job_id = str(uuid.uuid4())
        message_id = _send_job(
            backend,
            workflow,
            given,
            job_id=job_id,
            partial_name=str(uuid.uuid4()),
            group_id=options.group_id,
        )
        console.print(job_id, highlight=False)
        if not options.wait:
            return 0
        with console.status("Waiting for the answer"):
            job = _await_answer(backend, job_id, message_id, seconds=options.timeout_seconds)
        return _show_answer(backend, job, options.save_to, console)


def parse_inputs(
    workflow: Workflow, texts: Sequence[str], read_file: Callable[[Path], bytes] = Path.read_bytes
) -> dict[str, object]:
    """Values by name: text, number, S3 key, or LocalFile for ``@path`` of a file input.

    A text may come from a file too. Raises InputValueError or UnknownInputError.
    """
    values: dict[str, object] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InputValueError(f"{text!r} is not name=value or name=@file")
        if name in values:
            raise InputValueError(f"the input {name} is given twice")
        if name not in workflow.inputs:
            raise UnknownInputError(
                f"{workflow.workflow} has no input {name}; "
                f"it has: {', '.join(workflow.inputs) or 'none'}."
            )
        values[name] = _parse_value(workflow, name, value, read_file)
    return values


@dataclass(frozen=True)
class LocalFile:
    """An input file that is stored before its message is sent."""

    suffix: str
    content: bytes


def _parse_value(
    workflow: Workflow, name: str, value: str, read_file: Callable[[Path], bytes]
) -> object:
    declared = workflow.inputs[name]
    if isinstance(declared, NumberInput | IntegerInput):
        parse = int if isinstance(declared, IntegerInput) else float
        try:
            return parse(value)
        except ValueError:
            kind = "a whole number" if parse is int else "a number"
            raise InputValueError(f"{name} must be {kind}, not {value!r}") from None
    if isinstance(declared, BooleanInput):
        if value not in ("true", "false"):
            raise InputValueError(f"{name} must be true or false, not {value!r}")
        return value == "true"
    if isinstance(declared, ListInput):
        return _parse_list(name, value)
    if not value.startswith("@"):
        return value
    path = Path(value.removeprefix("@"))
    try:
        content = read_file(path)
        if isinstance(declared, MediaInput):
            return LocalFile(path.suffix.lower(), content)
        return content.decode()
    except OSError as error:
        raise InputValueError(f"{name}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputValueError(f"{name}: {path} is no text in UTF-8") from None


def _parse_list(name: str, value: str) -> list[object]:
    try:
        items = json.loads(value)
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise InputValueError(f"{name} must be a list in JSON, not {value!r}")
    return items


def _send_job(
    backend: Backend,
    workflow: Workflow,
    given: Mapping[str, object],
    *,
    job_id: str,
    partial_name: str,
    group_id: int,
) -> str:
    """Store the files and send the message; gives its SQS message id."""
    values = dict(given)
    for name, value in given.items():
        if isinstance(value, LocalFile):
            key = str(PurePosixPath("submitted", partial_name, name + value.suffix))
            backend.put_input(key, value.content)
            values[name] = key
    return backend.send(
        make_message(
            workflow,
            values,
            job_id=job_id,
            partial_name=partial_name,
            bucket=backend.ready["input_bucket"],
            stage=backend.ready["stage"],
            at=datetime.now(UTC),
            group_id=group_id,
        )
    )


def _await_answer(backend: Backend, job_id: str, message_id: str, *, seconds: float) -> Job:
    """The record, once it is final.

    The record is watched and not the reply queue, whose messages are the backend's to take.
    """
    end = time.monotonic() + seconds
    while True:
        job = backend.find_record(job_id, message_id)
        if job is not None and job.state.is_final:
            return job
        if time.monotonic() > end:
            state = job.state if job else "not received yet"
            raise NoAnswerError(f"job {job_id} has no answer after {seconds:g} s: it is {state}")
        time.sleep(_LOOK_SECONDS)


def _show_answer(backend: Backend, job: Job, save_to: Path | None, console: Console) -> int:
    if job.failure is not None:
        console.print(f"{job.state} {job.failure.code}: {job.failure.sentence}", markup=False)
        return 1
    console.print(job.state)
    for key in read_reply(job.reply).keys:
        console.print(f"s3://{backend.ready['result_bucket']}/{key}", highlight=False, markup=False)
        if save_to is not None:
            path = save_to / PurePosixPath(key).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(backend.read_result(key))
            console.print(f"  saved as {path}", highlight=False, markup=False)
    return 0
