"""What a message says, turned into what a workflow takes: checked values and named files."""

import math
import re
from collections.abc import Mapping
from posixpath import basename, splitext

from pydantic import BaseModel, ConfigDict

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.workflows import (
    ChoiceInput,
    MediaInput,
    NumberInput,
    TextInput,
    Workflow,
    is_main,
)

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
    stem = [str(group_id), workflow.workflow]
    for _, media in workflow.media_inputs():
        if is_main(media) and (key := _read_key(payload, media)):
            stem.append(splitext(basename(key))[0])
    output_prefix = "-".join([*stem, partial_name])

    values: dict[str, str | float] = {}
    for name, declared in workflow.inputs.items():
        if isinstance(declared, ChoiceInput):
            values[name] = _read_choice(payload, declared)
        elif isinstance(declared, TextInput):
            values[name] = _read_text(payload, declared)
        elif isinstance(declared, NumberInput):
            values[name] = _read_number(payload, declared)
    sources = []
    for name, media in workflow.media_inputs():
        key = _read_key(payload, media)
        if key is not None:
            bucket = _read_bucket(payload, media.bucket_member, input_buckets)
            upload_name = media.upload_name.format(
                prefix=output_prefix, workflow=workflow.workflow, extension=_extension(key)
            )
            sources.append(MediaSource(input=name, bucket=bucket, key=key, upload_name=upload_name))
        elif _is_required(media, values):
            raise _invalid(media.member, "must be the S3 key of an input file")
        else:
            values[name] = media.absent_name or ""
    return JobInputs(output_prefix=output_prefix, media=tuple(sources), values=values)


def _read_group_id(payload: Mapping[str, object]) -> int:
    value = payload.get("GroupId")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_GROUP_ID:
        raise _invalid("GroupId", "must be an integer that is not negative")
    return value


def _is_required(media: MediaInput, values: Mapping[str, str | float]) -> bool:
    if media.absent_name is None:
        return True
    when = media.required_when
    return when is not None and values[when.input] == when.equals


def _read_key(payload: Mapping[str, object], declared: MediaInput) -> str | None:
    """The key of an input file, None if the message has none."""
    member = declared.member
    value = payload.get(member)
    if declared.index is not None and value is not None:
        if not isinstance(value, list) or len(value) <= declared.index:
            raise _invalid(member, f"must be a list of at least {declared.index + 1} S3 keys")
        value = value[declared.index]
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or not _is_usable_key(value):
        raise _invalid(member, "is not an S3 key that can be used")
    extensions = declared.extensions
    if declared.default_file is not None and _extension(value) not in extensions:
        value = f"{value.rstrip('/')}/{declared.default_file}"
    if _extension(value) not in extensions:
        raise RefusedMessageError(
            RefusalCode.UNSUPPORTED_MEDIA,
            f"{member} must end in one of: {', '.join(sorted(extensions))}.",
        )
    return value


def _is_usable_key(key: str) -> bool:
    return (
        len(key.encode("utf-8", "surrogatepass")) <= _MAX_KEY_BYTES
        and _is_encodable(key)
        and not _UNSAFE_KEY.search(key)
        and not key.startswith("/")
        and ".." not in key.split("/")
    )


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


def _read_choice(payload: Mapping[str, object], declared: ChoiceInput) -> int:
    value = payload.get(declared.member)
    if declared.index is not None and value is not None:
        if not isinstance(value, list):
            raise _invalid(declared.member, "must be a list of integers")
        is_complete = declared.length in (None, len(value)) and len(value) > declared.index
        value = value[declared.index] if is_complete else None
    if value is None:
        return declared.default
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid(declared.member, "must hold integers")
    if not declared.minimum <= value <= declared.maximum:
        return declared.default
    if value in declared.refused:
        raise RefusedMessageError(RefusalCode.INVALID_MESSAGE, declared.refused[value])
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
