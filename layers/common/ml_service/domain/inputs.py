"""What a message says, turned into what a workflow takes: checked values and named files."""

import math
import re
from collections.abc import Mapping
from posixpath import basename, splitext

from pydantic import BaseModel, ConfigDict

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.workflows import (
    MediaInput,
    NumberInput,
    TextInput,
    Workflow,
    is_main,
)

EXTENSIONS: Mapping[str, frozenset[str]] = {
    "image": frozenset({"jpg", "jpeg", "png", "webp"}),
    "video": frozenset({"mp4"}),
    "audio": frozenset({"mp3", "mp4"}),
}
"""Extensions that are accepted for inputs, in any case. Sound may be taken from an mp4."""

_MAX_KEY_BYTES = 1024
_MAX_GROUP_ID = 2**63 - 1
_LINE_BREAKS = re.compile(r"[\t\r\n]+")
_UNSAFE_KEY = re.compile(r"[\x00-\x1f\x7f\\?]")


class MediaSource(BaseModel):
    """One input file: where it lies in S3 and under which name it is uploaded."""

    model_config = ConfigDict(frozen=True)

    input: str
    bucket: str
    key: str
    upload_name: str


class JobInputs(BaseModel):
    """Everything that a job's prompt is made of, but for the seed and the uploaded names."""

    model_config = ConfigDict(frozen=True)

    output_prefix: str
    """Every result's file name begins with it, and the backend finds results by it."""
    media: tuple[MediaSource, ...]
    values: Mapping[str, str | float]


def resolve_inputs(
    workflow: Workflow,
    payload: Mapping[str, object],
    *,
    partial_name: str,
    input_buckets: frozenset[str],
) -> JobInputs:
    """Check a payload against its workflow's manifest; raises RefusedMessageError."""
    group_id = _read_group_id(payload)
    main = next((media for _, media in workflow.media_inputs() if is_main(media)), None)
    stem = [str(group_id), workflow.workflow]
    if main is not None:
        stem.append(splitext(basename(_read_key(payload, main)))[0])
    output_prefix = "-".join([*stem, partial_name])

    sources = []
    values: dict[str, str | float] = {}
    for name, declared in workflow.inputs.items():
        if isinstance(declared, MediaInput):
            key = _read_key(payload, declared)
            sources.append(
                MediaSource(
                    input=name,
                    bucket=_read_bucket(payload, declared.bucket_member, input_buckets),
                    key=key,
                    upload_name=declared.upload_name.format(
                        prefix=output_prefix, workflow=workflow.workflow, extension=_extension(key)
                    ),
                )
            )
        elif isinstance(declared, TextInput):
            values[name] = _read_text(payload, declared)
        else:
            values[name] = _read_number(payload, declared)
    return JobInputs(output_prefix=output_prefix, media=tuple(sources), values=values)


def _read_group_id(payload: Mapping[str, object]) -> int:
    value = payload.get("GroupId")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_GROUP_ID:
        raise _invalid("GroupId", "must be an integer that is not negative")
    return value


def _read_key(payload: Mapping[str, object], declared: MediaInput) -> str:
    member = declared.member
    value = payload.get(member)
    if declared.index is not None:
        if not isinstance(value, list) or len(value) <= declared.index:
            raise _invalid(member, f"must be a list of at least {declared.index + 1} S3 keys")
        value = value[declared.index]
    if not isinstance(value, str) or not value.strip():
        raise _invalid(member, "must be the S3 key of an input file")
    if (
        len(value.encode("utf-8", "surrogatepass")) > _MAX_KEY_BYTES
        or _UNSAFE_KEY.search(value)
        or not _is_encodable(value)
        or value.startswith("/")
        or ".." in value.split("/")
    ):
        raise _invalid(member, "is not an S3 key that can be used")
    extensions = EXTENSIONS[declared.type]
    if declared.default_file is not None and _extension(value) not in extensions:
        value = f"{value.rstrip('/')}/{declared.default_file}"
    if _extension(value) not in extensions:
        raise RefusedMessageError(
            RefusalCode.UNSUPPORTED_MEDIA,
            f"{member} must end in one of: {', '.join(sorted(extensions))}.",
        )
    return value


def _read_bucket(payload: Mapping[str, object], member: str, allowed: frozenset[str]) -> str:
    for name in (member, "S3Bucket"):
        value = payload.get(name)
        if value is not None and not isinstance(value, str):
            raise _invalid(name, "must be the name of a bucket")
        if value is not None and value.strip():
            if value not in allowed:
                raise RefusedMessageError(
                    RefusalCode.FORBIDDEN_SOURCE, f"{name} names a bucket that is not allowed."
                )
            return value
    raise _invalid("S3Bucket", "must be the name of a bucket")


def _read_text(payload: Mapping[str, object], declared: TextInput) -> str:
    value = payload.get(declared.member)
    if value is None:
        return declared.default
    if not isinstance(value, str) or not _is_encodable(value):
        raise _invalid(declared.member, "must be a text")
    if len(value) > declared.max_length:
        raise _invalid(declared.member, f"must have at most {declared.max_length} characters")
    text = _LINE_BREAKS.sub(" ", value)
    return text if text.strip() else declared.default


def _read_number(payload: Mapping[str, object], declared: NumberInput) -> float:
    value = payload.get(declared.member)
    if value is None:
        value = declared.default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(declared.member, "must be a number")
    if value < 0:
        raise _invalid(declared.member, "must not be negative")
    if value == 0 and declared.zero_means is not None:
        value = declared.zero_means
    if declared.maximum is not None:
        value = min(value, declared.maximum)
    return value


def _extension(key: str) -> str:
    return splitext(key)[1].removeprefix(".").lower()


def _is_encodable(text: str) -> bool:
    """Whether the text is free of lone surrogates, which no server could be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invalid(member: str, what: str) -> RefusedMessageError:
    return RefusedMessageError(RefusalCode.INVALID_MESSAGE, f"{member} {what}.")
