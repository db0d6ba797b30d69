"""One valid message for any workflow, with inputs to match, made from its manifest."""

import colorsys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from local.backend import Backend
from local.job_messages import make_message
from local.sample_media import make_audio, make_image, make_video
from ml_service.domain.input_values import ValueInput
from ml_service.domain.manifests import (
    BooleanInput,
    EnumInput,
    IntegerInput,
    ListInput,
    MediaInput,
    NumberInput,
    TextInput,
    Workflow,
)

Color: TypeAlias = tuple[int, int, int]

_MAKERS: Mapping[str, Callable[[Color], tuple[str, bytes]]] = {
    "image": lambda color: ("png", make_image(color=color)),
    "video": lambda color: ("mp4", make_video(color=color)),
    "audio": lambda color: ("mp3", make_audio(hertz=220.0 + color[0])),
}


@dataclass(frozen=True)
class SampleJob:
    """A message for the input queue, and what its result must show."""

    job_id: str
    partial_name: str
    workflow: Workflow
    body: str
    color: Color | None
    """Of every picture and video that went in; None if none did."""
    text: str
    """The prompt text, which ComfyUI writes into every picture."""


def make_color(number: int, of: int) -> Color:
    """A colour that no other number has."""
    red, green, blue = colorsys.hsv_to_rgb(number / of, 0.75, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def prepare_sample_job(backend: Backend, workflow: Workflow, color: Color) -> SampleJob:
    """Make a message for a stage, under new ids, and store its inputs there."""
    return make_sample_job(
        workflow,
        job_id=str(uuid.uuid4()),
        partial_name=str(uuid.uuid4()),
        bucket=backend.ready["input_bucket"],
        stage=backend.ready["stage"],
        at=datetime.now(UTC),
        color=color,
        put_input=backend.put_input,
    )


def make_sample_job(
    workflow: Workflow,
    *,
    job_id: str,
    partial_name: str,
    bucket: str,
    stage: str,
    at: datetime,
    color: Color,
    put_input: Callable[[str, bytes], None],
) -> SampleJob:
    """Make a message; ``put_input`` gets key and content of each input file.

    A native job's reply carries the job id in place of the partial name.
    """
    partial_name = partial_name if workflow.subjects else job_id
    text = f'A sample text for {workflow.workflow}: "{partial_name}".'
    values: dict[str, object] = {}
    for name, declared in workflow.inputs.items():
        if isinstance(declared, MediaInput):
            extension, content = _MAKERS[declared.type](color)
            key = f"samples/{partial_name}/{name}.{extension}"
            put_input(key, content)
            values[name] = key
        else:
            values[name] = _make_value(declared, text)
    body = make_message(
        workflow,
        values,
        job_id=job_id,
        partial_name=partial_name,
        bucket=bucket,
        stage=stage,
        at=at,
    )
    is_shown = any(media.type in ("image", "video") for _, media in workflow.media_inputs())
    return SampleJob(job_id, partial_name, workflow, body, color if is_shown else None, text)


def _make_value(declared: ValueInput, text: str) -> object:
    match declared:
        case TextInput():
            return text
        case IntegerInput() | NumberInput():
            return 1 if declared.minimum is None else max(declared.minimum, 1)
        case BooleanInput():
            return True
        case EnumInput():
            return declared.values[0]
        case ListInput():
            item = text if declared.of == "text" else 1
            return [item] * max(declared.min_items, 1)
