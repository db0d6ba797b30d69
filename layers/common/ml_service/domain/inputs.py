"""What a message says, turned into what a workflow takes: checked values and named files."""

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from posixpath import basename, splitext

from pydantic import BaseModel, ConfigDict

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.input_values import Value, is_encodable, read_value, refuse_value
from ml_service.domain.manifests import (
    EXTENSIONS,
    MAX_PIXELS,
    MAX_SEED,
    SEED,
    Input,
    IntegerInput,
    MediaInput,
    NumberInput,
    When,
    Workflow,
)

_MAX_KEY_BYTES = 1024
_MAX_NAME_BYTES = 255
"""What a file system takes. ComfyUI answers a longer name with a server error, which would look
like a fault of the instance."""
_OUTPUT_ENDING_BYTES = 40
"""Room for what a graph and ComfyUI append to the output prefix, as _608x1080_00001_.png."""
_MAX_GROUP_ID = 2**63 - 1
_UNSAFE_KEY = re.compile(r"[\x00-\x1f\x7f\\?]")


class MediaSource(BaseModel):
    """One input file: where it lies in S3 and under which name it is uploaded."""

    model_config = ConfigDict(frozen=True)

    input: str
    bucket: str
    key: str
    upload_name: str
    max_bytes: int | None = None
    max_pixels: int = MAX_PIXELS


class JobInputs(BaseModel):
    """Everything that a job's prompt is made of, but for the uploaded names."""

    model_config = ConfigDict(frozen=True)

    output_prefix: str
    """Every result's file name begins with it, and the backend finds results by it."""
    media: tuple[MediaSource, ...]
    values: Mapping[str, Value]
    seed: int | None = None
    """The seed that the message or the manifest gives; None asks for a random one."""


@dataclass(frozen=True)
class _Sent:
    """What a message says of one input."""

    label: str
    """How the sender knows the input."""
    value: object
    """The value, or a file's S3 key; None if there is none."""
    read_bucket: Callable[[], str]
    """The bucket of a file that has a key."""


def resolve_inputs(
    workflow: Workflow,
    payload: Mapping[str, object],
    *,
    partial_name: str,
    input_buckets: Container[str],
) -> JobInputs:
    """Check a backend's payload against its workflow's manifest; raises RefusedMessageError."""
    stem = f"{_read_group_id(payload)}-{workflow.workflow}"
    sent = {
        name: _find_in_payload(payload, name, declared, input_buckets)
        for name, declared in workflow.inputs.items()
    }
    return _resolve(workflow, sent, stem=stem, unique=partial_name, seed=None)


def resolve_native_inputs(
    workflow: Workflow, inputs: Mapping[str, object], *, job_id: str, input_buckets: Container[str]
) -> JobInputs:
    """Check a native message's inputs against the same manifest; raises RefusedMessageError."""
    unknown = inputs.keys() - workflow.inputs.keys() - {SEED}
    if unknown:
        known = ", ".join((*workflow.inputs, SEED))
        raise refuse_value("inputs", f"has a member that the workflow has not; it has {known}")
    seed = inputs.get(SEED)
    if seed is not None and (
        isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED
    ):
        raise refuse_value("inputs.seed", f"must be an integer from 0 to {MAX_SEED}")
    sent = {
        name: _find_in_inputs(inputs, name, declared, input_buckets)
        for name, declared in workflow.inputs.items()
    }
    return _resolve(workflow, sent, stem=workflow.workflow, unique=job_id, seed=seed)


def _resolve(
    workflow: Workflow,
    sent: Mapping[str, _Sent],
    *,
    stem: str,
    unique: str,
    seed: int | None,
) -> JobInputs:
    values: dict[str, Value] = {
        name: read_value(declared, sent[name].value, label=sent[name].label)
        for name, declared in workflow.inputs.items()
        if not isinstance(declared, MediaInput)
    }
    keys = {
        name: _read_key(sent[name], media, _list_extensions(media, values))
        for name, media in workflow.media_inputs()
    }
    main_key = keys.get(workflow.main_input or "")
    output_prefix = _make_prefix(stem, main_key, unique)

    sources = []
    for name, media in workflow.media_inputs():
        key = keys[name]
        if key is not None:
            upload_name = media.upload_name.format(
                prefix=output_prefix, workflow=workflow.workflow, extension=_extension(key)
            )
            sources.append(
                MediaSource(
                    input=name,
                    bucket=sent[name].read_bucket(),
                    key=key,
                    upload_name=upload_name,
                    max_bytes=media.max_bytes,
                    max_pixels=media.max_pixels,
                )
            )
        elif _is_required(media, values):
            raise refuse_value(sent[name].label, "must be the S3 key of an input file")
        else:
            values[name] = media.absent_name or ""
    lengths = [len(source.upload_name.encode()) for source in sources]
    lengths.append(len(output_prefix.encode()) + _OUTPUT_ENDING_BYTES)
    if workflow.main_input and max(lengths) > _MAX_NAME_BYTES:
        raise refuse_value(sent[workflow.main_input].label, "has a file name that is too long")
    return JobInputs(
        output_prefix=output_prefix,
        media=tuple(sources),
        values=values,
        seed=workflow.seed.fixed if seed is None else seed,
    )


def make_output_prefix(
    workflow: Workflow, *, group_id: int, main_key: str, partial_name: str
) -> str:
    """What the results of a backend's job begin with, by what its message said."""
    declared = dict(workflow.media_inputs()).get(workflow.main_input or "")
    key = _complete_key(main_key, declared) if declared is not None and main_key else ""
    return _make_prefix(f"{group_id}-{workflow.workflow}", key, partial_name)


def _make_prefix(stem: str, main_key: str | None, unique: str) -> str:
    base_name = splitext(basename(main_key))[0] if main_key else ""
    return "-".join(filter(None, (stem, base_name, unique)))


def _complete_key(key: str, declared: MediaInput) -> str:
    """The key of the file itself, where a message may name the folder that it lies in."""
    if declared.default_file is None or _extension(key).lower() in declared.extensions:
        return key
    return f"{key.rstrip('/')}/{declared.default_file}"


def _find_in_payload(
    payload: Mapping[str, object], name: str, declared: Input, input_buckets: Container[str]
) -> _Sent:
    member = declared.member_of(name)
    value = payload.get(member)
    if declared.index is not None and value is not None:
        value = _pick_entry(value, declared, declared.index, member)

    def read_bucket() -> str:
        bucket_member = declared.bucket_member if isinstance(declared, MediaInput) else ""
        for bucket_name in (bucket_member, "S3Bucket"):
            bucket = payload.get(bucket_name)
            if bucket is not None and not (isinstance(bucket, str) and not bucket.strip()):
                return _read_bucket(bucket, bucket_name, input_buckets)
        raise refuse_value("S3Bucket", "must be the name of a bucket")

    return _Sent(member, value, read_bucket)


def _pick_entry(entries: object, declared: Input, index: int, member: str) -> object:
    """One entry of a list; a list too short for a file is an error, else as good as none."""
    if isinstance(entries, list):
        length = declared.length if isinstance(declared, IntegerInput | NumberInput) else None
        if length in (None, len(entries)) and len(entries) > index:
            return entries[index]
        if not isinstance(declared, MediaInput):
            return None
    what = f" of at least {index + 1} S3 keys" if isinstance(declared, MediaInput) else ""
    raise refuse_value(member, f"must be a list{what}")


def _find_in_inputs(
    inputs: Mapping[str, object], name: str, declared: Input, input_buckets: Container[str]
) -> _Sent:
    label, value = f"inputs.{name}", inputs.get(name)
    file: Mapping[str, object] = {}
    if isinstance(declared, MediaInput) and value is not None:
        if not isinstance(value, dict):
            raise refuse_value(label, 'must be {"bucket": ..., "key": ...}')
        file, value, label = value, value.get("key"), f"{label}.key"

    def read_bucket() -> str:
        return _read_bucket(file.get("bucket"), f"inputs.{name}.bucket", input_buckets)

    return _Sent(label, value, read_bucket)


def _read_group_id(payload: Mapping[str, object]) -> int:
    value = payload.get("GroupId")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_GROUP_ID:
        raise refuse_value("GroupId", "must be an integer that is not negative")
    return value


def _is_required(media: MediaInput, values: Mapping[str, Value]) -> bool:
    if media.absent_name is None:
        return True
    return media.required_when is not None and _holds(media.required_when, values)


def _list_extensions(media: MediaInput, values: Mapping[str, Value]) -> frozenset[str]:
    if media.required_when is None or _holds(media.required_when, values):
        return media.extensions
    return EXTENSIONS


def _holds(when: When, values: Mapping[str, Value]) -> bool:
    return values[when.input] == when.equals


def _read_key(sent: _Sent, declared: MediaInput, extensions: frozenset[str]) -> str | None:
    """The key of an input file, None if the message has none."""
    value, label = sent.value, sent.label
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise refuse_value(label, "is not an S3 key that can be used")
    value = _complete_key(value, declared)
    if not is_usable_key(value):
        raise refuse_value(label, "is not an S3 key that can be used")
    if _extension(value).lower() not in extensions:
        raise RefusedMessageError(
            RefusalCode.UNSUPPORTED_MEDIA,
            f"{label} must end in one of: {', '.join(sorted(extensions))}.",
        )
    return value


def is_usable_key(key: str) -> bool:
    """Whether S3 and everything behind it takes the key, and it leads nowhere else."""
    return (
        len(key.encode("utf-8", "surrogatepass")) <= _MAX_KEY_BYTES
        and is_encodable(key)
        and not _UNSAFE_KEY.search(key)
        and not key.startswith("/")
        and ".." not in key.split("/")
    )


def _read_bucket(bucket: object, label: str, allowed: Container[str]) -> str:
    if not isinstance(bucket, str) or not bucket.strip():
        raise refuse_value(label, "must be the name of a bucket")
    if bucket not in allowed:
        raise RefusedMessageError(
            RefusalCode.FORBIDDEN_SOURCE, f"{label} names a bucket that is not allowed."
        )
    return bucket


def _extension(key: str) -> str:
    return splitext(key)[1].removeprefix(".")
