"""What comes on the input queue, read strictly: the backend's envelopes, and native messages."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from ml_service.domain.errors import RefusalCode, RefusedMessageError

MAX_BODY_BYTES = 262_144
"""The input queue's MaximumMessageSize; the job record holds the whole payload."""

MAX_DEADLINE_SECONDS = 1_209_600
"""14 days: as long as a queue keeps a message."""
DEFAULT_PROMPT_FILE = "workflow_api.json"

_ENVELOPE_MEMBERS = frozenset({"Subject", "Payload", "MessageId"})
_PROMPT_MEMBERS = ("positive_prompt", "negative_prompt", "seed")
_NATIVE_MEMBERS = frozenset({"workflow", "prompt_file", "positive_prompt"})
JOB_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""Of ids that senders give."""
_ID = re.compile(JOB_ID_PATTERN)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True)
class Message:
    """One message of the backend, as far as every subject has it in common."""

    job_id: str
    subject: str
    payload: Mapping[str, object]
    partial_name: str
    """The backend's correlation key, a UUID: every reply carries it."""


@dataclass(frozen=True)
class NativeMessage:
    """A message that names its workflow and gives the inputs by the manifest's names."""

    job_id: str
    inputs: Mapping[str, object]
    workflow: str = ""
    prompt_file: str = ""
    """Names the workflow where ``workflow`` does not."""
    deadline_seconds: int | None = None


def parse_message(body: str, *, sqs_message_id: str) -> Message | NativeMessage:
    """Read an SQS body; the SQS message id stands in for an absent MessageId or job_id.

    Raises RefusedMessageError with the reason; unknown members are ignored.
    """
    envelope = _load_object(body.removeprefix("\ufeff"), "The message body")
    if _is_native(envelope):
        return _read_native(envelope, sqs_message_id)
    subject = envelope.get("Subject")
    if not isinstance(subject, str) or not subject:
        raise RefusedMessageError(RefusalCode.UNKNOWN_SUBJECT, "The message has no Subject.")
    job_id = _read_id(envelope, "MessageId", sqs_message_id)
    payload_text = envelope.get("Payload")
    if not isinstance(payload_text, str) or not payload_text.strip():
        raise _invalid("Payload must be a string that holds a JSON object.")
    payload = _load_object(payload_text, "Payload")
    partial_name = payload.get("PartialName")
    if not isinstance(partial_name, str) or not _UUID.fullmatch(partial_name):
        raise _invalid("PartialName must be a UUID in a string.")
    return Message(job_id=job_id, subject=subject, payload=payload, partial_name=partial_name)


def read_job_id(body: str) -> str | None:
    """The job id of a message on a task queue, where dispatch has checked it; None without one."""
    try:
        message = json.loads(body.removeprefix("\ufeff"))
        job_id = message.get("job_id" if _is_native(message) else "MessageId")
    except (ValueError, AttributeError):
        return None
    return job_id if isinstance(job_id, str) else None


def fix_job_id(body: str, job_id: str) -> str:
    """Write the job id into a body that ``parse_message`` accepts, if it has none.

    Sent again it gets another SQS message id, which would make another job of it.
    """
    message = json.loads(body.removeprefix("\ufeff"))
    member = "job_id" if _is_native(message) else "MessageId"
    if message.get(member) is not None:
        return body
    return json.dumps({**message, member: job_id})


def find_partial_name(body: str, *, sqs_message_id: str) -> str | None:
    """Find what ties a refused message to its sender: its PartialName, or a native job's id."""
    try:
        envelope = json.loads(body.removeprefix("\ufeff"))
        if isinstance(envelope, dict) and _is_native(envelope):
            job_id = envelope.get("job_id")
            is_usable = isinstance(job_id, str) and _ID.fullmatch(job_id)
            return job_id if is_usable else sqs_message_id
        payload = envelope["Payload"]
        partial_name = (json.loads(payload) if isinstance(payload, str) else payload)["PartialName"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return partial_name if isinstance(partial_name, str) and 0 < len(partial_name) <= 128 else None


def _is_native(message: Mapping[str, object]) -> bool:
    # An envelope may have any further members, so its own decide.
    return not message.keys() & _ENVELOPE_MEMBERS and bool(message.keys() & _NATIVE_MEMBERS)


def _read_native(message: Mapping[str, object], sqs_message_id: str) -> NativeMessage:
    job_id = _read_id(message, "job_id", sqs_message_id)
    deadline_seconds = message.get("deadline_seconds")
    if deadline_seconds is not None and (
        isinstance(deadline_seconds, bool)
        or not isinstance(deadline_seconds, int)
        or not 0 < deadline_seconds <= MAX_DEADLINE_SECONDS
    ):
        raise _invalid(f"deadline_seconds must be an integer from 1 to {MAX_DEADLINE_SECONDS}.")
    if "workflow" not in message:
        prompt_file = message.get("prompt_file")
        if prompt_file in (None, ""):
            prompt_file = DEFAULT_PROMPT_FILE
        if not isinstance(prompt_file, str):
            raise _invalid("prompt_file must be a text.")
        inputs = {name: message[name] for name in _PROMPT_MEMBERS if name in message}
        return NativeMessage(
            job_id, inputs, prompt_file=prompt_file, deadline_seconds=deadline_seconds
        )
    workflow, given = message["workflow"], message.get("inputs", {})
    if not isinstance(workflow, str):
        raise _invalid("workflow must be the name of a workflow.")
    if not isinstance(given, dict):
        raise _invalid("inputs must be an object with a member for each input.")
    return NativeMessage(job_id, given, workflow=workflow, deadline_seconds=deadline_seconds)


def _read_id(message: Mapping[str, object], member: str, sqs_message_id: str) -> str:
    job_id = message.get(member)
    if job_id is None:
        return sqs_message_id
    if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
        raise _invalid(f"{member} must be a UUID, or be left out.")
    return job_id


def _invalid(sentence: str) -> RefusedMessageError:
    return RefusedMessageError(RefusalCode.INVALID_MESSAGE, sentence)


def _load_object(text: str, what: str) -> dict[str, object]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BODY_BYTES:
        raise RefusedMessageError(
            RefusalCode.TOO_LARGE, f"{what} is larger than {MAX_BODY_BYTES} bytes."
        )
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except (ValueError, RecursionError) as error:
        raise RefusedMessageError(
            RefusalCode.INVALID_JSON, f"{what} is not valid JSON: {_reason(error)}."
        ) from None
    if not isinstance(value, dict):
        raise _invalid(f"{what} must be a JSON object.")
    return value


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).split(";")[0].rstrip(".")


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value
