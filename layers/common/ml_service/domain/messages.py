"""What the backend sends: an envelope with a JSON string in it, read strictly."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from ml_service.domain.errors import RefusalCode, RefusedMessageError

MAX_BODY_BYTES = 262_144
"""The input queue's MaximumMessageSize; the job record holds the whole payload."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True)
class Message:
    """One message of the backend, as far as every subject has it in common."""

    job_id: str
    subject: str
    payload: Mapping[str, object]
    partial_name: str
    """The backend's correlation key, a UUID: every reply carries it."""


def parse_message(body: str, *, sqs_message_id: str) -> Message:
    """Read an SQS body; the SQS message id stands in for an absent MessageId.

    Raises RefusedMessageError with the reason; unknown members are ignored.
    """
    envelope = _load_object(body.removeprefix("\ufeff"), "The message body")
    subject = envelope.get("Subject")
    if not isinstance(subject, str) or not subject:
        raise RefusedMessageError(RefusalCode.UNKNOWN_SUBJECT, "The message has no Subject.")
    job_id = envelope.get("MessageId")
    if job_id is None:
        job_id = sqs_message_id
    if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
        raise RefusedMessageError(
            RefusalCode.INVALID_MESSAGE, "MessageId must be a UUID, or be left out."
        )
    payload_text = envelope.get("Payload")
    if not isinstance(payload_text, str):
        raise RefusedMessageError(
            RefusalCode.INVALID_MESSAGE, "Payload must be a string that holds a JSON object."
        )
    payload = _load_object(payload_text, "Payload")
    partial_name = payload.get("PartialName")
    if not isinstance(partial_name, str) or not _UUID.fullmatch(partial_name):
        raise RefusedMessageError(
            RefusalCode.INVALID_MESSAGE, "PartialName must be a UUID in a string."
        )
    return Message(job_id=job_id, subject=subject, payload=payload, partial_name=partial_name)


def read_job_id(body: str) -> str | None:
    """The job id of a message on a task queue, where dispatch has checked it; None without one."""
    try:
        job_id = json.loads(body.removeprefix("\ufeff")).get("MessageId")
    except (ValueError, AttributeError):
        return None
    return job_id if isinstance(job_id, str) else None


def find_partial_name(body: str) -> str | None:
    """Find the PartialName of a message that was refused, so that its sender can be answered."""
    try:
        envelope = json.loads(body.removeprefix("\ufeff"))
        payload = envelope["Payload"]
        partial_name = (json.loads(payload) if isinstance(payload, str) else payload)["PartialName"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return partial_name if isinstance(partial_name, str) and 0 < len(partial_name) <= 128 else None


def _load_object(text: str, what: str) -> dict[str, object]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BODY_BYTES:
        raise RefusedMessageError(
            RefusalCode.INVALID_MESSAGE, f"{what} is larger than {MAX_BODY_BYTES} bytes."
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
        raise RefusedMessageError(RefusalCode.INVALID_MESSAGE, f"{what} must be a JSON object.")
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
