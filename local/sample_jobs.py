"""One valid message for any workflow, with inputs to match, made from its manifest."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from local.sample_media import make_audio, make_image, make_video
from ml_service.domain.workflows import MediaInput, NumberInput, TextInput, Workflow

_COLORS = ((200, 60, 60), (60, 160, 80), (60, 90, 200), (220, 170, 40))
_MAKERS: dict[str, Callable[[int], tuple[str, bytes]]] = {
    "image": lambda n: ("png", make_image(color=_COLORS[n % len(_COLORS)])),
    "video": lambda n: ("mp4", make_video(color=_COLORS[n % len(_COLORS)])),
    "audio": lambda n: ("mp3", make_audio(hertz=330.0 + 110 * n)),
}


@dataclass(frozen=True)
class SampleJob:
    """A message for the input queue."""

    job_id: str
    partial_name: str
    workflow: Workflow
    body: str


def make_sample_job(
    workflow: Workflow,
    *,
    job_id: str,
    partial_name: str,
    bucket: str,
    stage: str,
    at: datetime,
    put_input: Callable[[str, bytes], None],
) -> SampleJob:
    """Make a message; ``put_input`` gets key and content of each input file."""
    payload: dict[str, object] = {
        "Env": stage,
        "S3Bucket": bucket,
        "GroupId": 42,
        "PartialName": partial_name,
    }
    for number, (name, declared) in enumerate(workflow.inputs.items()):
        if isinstance(declared, MediaInput):
            extension, content = _MAKERS[declared.type](number)
            key = f"samples/{workflow.workflow}/{name}.{extension}"
            put_input(key, content)
            _set_key(payload, declared, key)
        elif isinstance(declared, TextInput):
            payload[declared.member] = f'A sample text for {workflow.workflow}: "hello".'
        elif isinstance(declared, NumberInput):
            payload[declared.member] = 1
    envelope = {
        "Subject": workflow.subject,
        "MessageId": job_id,
        "Payload": json.dumps(payload),
        "Timestamp": at.isoformat(),
    }
    return SampleJob(job_id, partial_name, workflow, json.dumps(envelope))


def _set_key(payload: dict[str, object], declared: MediaInput, key: str) -> None:
    if declared.index is None:
        payload[declared.member] = key
        return
    keys = payload.setdefault(declared.member, [])
    if not isinstance(keys, list):
        raise TypeError(f"{declared.member} is used as one key and as a list of keys")
    keys.extend([""] * (declared.index + 1 - len(keys)))
    keys[declared.index] = key
