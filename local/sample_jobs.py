"""One valid message for any workflow, with inputs to match, made from its manifest."""

import colorsys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeAlias

from local.backend import Backend
from local.job_messages import make_message
from local.project import WORKFLOWS
from local.sample_media import make_audio, make_image, make_video
from ml_service.adapters.workflow_files import load_graph
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

_FAITHFUL_CLASSES = frozenset(
    {
        *("LoadImage", "LoadVideo", "LoadAudio", "EmptyImage", "EmptyAudio"),
        *("PrimitiveInt", "PrimitiveFloat", "PrimitiveStringMultiline"),
        *("ImageScale", "ImageBlend", "ImageToMask", "MaskToImage", "RepeatImageBatch"),
        *("GetVideoComponents", "CreateVideo", "TrimAudioDuration"),
        *("SaveImage", "SaveVideo", "PreviewAny"),
    }
)
"""Stock nodes that paint nothing of their own and leave the prompt in a picture's metadata."""


@dataclass(frozen=True)
class SampleJob:
    """A message for the input queue, and what its result must show."""

    job_id: str
    partial_name: str
    workflow: Workflow
    body: str
    color: Color | None
    """What the result must show: that of each picture and video that went in; None for nothing."""
    text: str | None
    """What must stand in the result, as ComfyUI writes it into pictures; None for nothing."""


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

    A native job's reply carries the job id in place of the partial name. Nothing is asked of the
    result of a graph with other nodes than those of the reference graphs: it paints what it likes.
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
    can_be_held = is_faithful(workflow)
    return SampleJob(
        job_id,
        partial_name,
        workflow,
        body,
        color if can_be_held and _takes_pictures(workflow) else None,
        text if can_be_held and _gives_text(workflow) else None,
    )


def _takes_pictures(workflow: Workflow) -> bool:
    return any(media.type in ("image", "video") for _, media in workflow.media_inputs())


def _gives_text(workflow: Workflow) -> bool:
    """Whether the result is a picture that ComfyUI wrote: it puts the prompt into it."""
    outputs = workflow.outputs
    has_text = any(isinstance(declared, TextInput) for declared in workflow.inputs.values())
    return has_text and outputs.kind == "image" and outputs.convert is None


@cache
def _read_classes(path: Path) -> frozenset[object]:
    return frozenset(node["class_type"] for node in load_graph(path).values())


def is_faithful(workflow: Workflow) -> bool:
    """Whether what goes into a workflow's graph can be seen in what comes out."""
    path = WORKFLOWS / workflow.fleet / f"{workflow.workflow}.json"
    return _read_classes(path) <= _FAITHFUL_CLASSES


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
