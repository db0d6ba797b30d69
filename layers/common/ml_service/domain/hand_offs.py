"""What a message's MediaConvertInfo asks for: a copy of its video, and messages to convert it."""

import json
from collections.abc import Collection, Container, Mapping
from enum import StrEnum
from posixpath import join

from pydantic import BaseModel, ConfigDict

from ml_service.domain.input_values import Scalar, is_encodable, refuse_value
from ml_service.domain.inputs import is_usable_key

FILE_NAME = "video.mp4"
_QUEUE = "MediaConvertJobSqsQueue"
_PATH = "DestinationBucketPath"
_MEMBERS = (
    "VideoId",
    _QUEUE,
    _PATH,
    "MediaConvertJobRoleArn",
    "MediaConvertVideoJobTemplateName",
    "MediaConvertVideoThumbnailJobTemplateName",
    "MediaConvertQueue",
    "HasLandscapeOrientation",
)
_CONVERSION_TYPES = ("Video", "Thumbnail")
_LARGEST_INTEGER = 2**63 - 1


class HandOffState(StrEnum):
    """Where a hand-off stands; only the first is not final."""

    WAITING = "WAITING"
    DONE = "DONE"
    REFUSED = "REFUSED"
    """The message named a bucket or a queue that is not allowed."""
    FAILED = "FAILED"
    """The bucket or the queue does not take it from us, however often it is tried."""


class HandOff(BaseModel):
    """What a message wants done with its video, and what of it may be done."""

    model_config = ConfigDict(frozen=True)

    members: Mapping[str, Scalar]
    """MediaConvertInfo as it came, without members that nobody knows."""
    state: HandOffState = HandOffState.WAITING
    bucket: str = ""
    """The bucket of the copy; empty, as the next two, if the hand-off is refused."""
    key: str = ""
    queue_arn: str = ""


def read_hand_off(
    info: object, *, label: str, buckets: Container[str], queue_arns: Collection[str]
) -> HandOff | None:
    """Read a message's MediaConvertInfo, None if it has none; raises RefusedMessageError.

    A bucket or queue outside the lists costs the message its hand-off, not its result.
    """
    if info is None:
        return None
    if not isinstance(info, Mapping):
        raise refuse_value(label, "must be an object")
    members = {
        member: _read_member(info[member], f"{label}.{member}")
        for member in _MEMBERS
        if info.get(member) is not None
    }
    path, queue = (_require_text(members, member, label) for member in (_PATH, _QUEUE))
    bucket, _, folder = path.removeprefix("s3://").partition("/")
    key = join(folder.strip("/"), FILE_NAME)
    queue_arn = next((arn for arn in queue_arns if _is_queue(queue, arn)), "")
    if bucket not in buckets or not is_usable_key(key) or not queue_arn:
        return HandOff(members=members, state=HandOffState.REFUSED)
    return HandOff(members=members, bucket=bucket, key=key, queue_arn=queue_arn)


def make_conversion_messages(hand_off: HandOff) -> tuple[str, ...]:
    """The messages for the queue, one for each type of conversion."""
    return tuple(
        json.dumps({**hand_off.members, "ConversionType": conversion_type})
        for conversion_type in _CONVERSION_TYPES
    )


def _read_member(value: object, label: str) -> Scalar:
    if isinstance(value, str) and is_encodable(value):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_INTEGER:
        return value
    raise refuse_value(label, "must be a text, an integer, true or false")


def _require_text(members: Mapping[str, Scalar], member: str, label: str) -> str:
    value = members.get(member)
    if not isinstance(value, str) or not value.strip():
        raise refuse_value(f"{label}.{member}", "must be a text that is not blank")
    return value


def _is_queue(name: str, arn: str) -> bool:
    """Whether a queue's URL or ARN means the queue of this ARN."""
    account, queue = arn.split(":")[4:6]
    return name == arn or name.endswith(f"/{account}/{queue}")
