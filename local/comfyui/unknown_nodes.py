"""Custom nodes that the simulator does not have, so that a graph made of them can be rehearsed.

What such a node is, is read from its class and its inputs: it takes anything and hands on the media
that it was given, or a made up picture. One that saves or shows writes real files.
"""

import hashlib
import json
import mimetypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from PIL import Image

from local.comfyui.audio_clips import AudioClip, read_audio, silence, write_mp3
from local.comfyui.graph_links import is_link
from local.comfyui.image_files import read_image, write_png
from local.comfyui.image_values import Batch
from local.comfyui.media_folders import OUTPUT, TEMP, MediaFolders
from local.comfyui.model_values import Latent, combine
from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun
from local.comfyui.node_types import ANY_TYPE, Input, MediaKind, NodeDefinition, NodeForm, Output
from local.comfyui.video_clips import VideoClip, VideoFile, read_video, write_mp4

# More slots than a node has: which of them are used is not known either.
_SLOTS = 32
_SIDE = 512
_LONGEST_SIDE = 4096
_FRAME_RATE = 8.0
_COMPRESSION = 4

_SAVES = re.compile(r"save|export|video_?combine", re.IGNORECASE)
_SHOWS = re.compile(r"preview|show|display", re.IGNORECASE)
# With a key: nodes that keep what was loaded over many prompts, and that ask for it.
_KEEPS = re.compile(r"cache", re.IGNORECASE)
_ASKS = re.compile(r"is_?cached", re.IGNORECASE)
_FILMS = re.compile(r"video|gif|animat|webm|mp4", re.IGNORECASE)
_PREFIX_INPUTS = ("filename_prefix", "filename", "prefix")
_RATE_INPUTS = ("frame_rate", "fps")

# What is made of models, and cannot be seen.
_UNSEEN_KINDS = (
    "MODEL",
    "CLIP",
    "VAE",
    "CLIP_VISION",
    "CLIP_VISION_OUTPUT",
    "STYLE_MODEL",
    "CONDITIONING",
    "NOISE",
    "GUIDER",
    "SAMPLER",
    "SIGMAS",
)

_PLAIN_VALUES: Mapping[str, Any] = {"STRING": "", "INT": 1, "FLOAT": 1.0, "BOOLEAN": False}


@dataclass(frozen=True)
class StandIn:
    """What comes out of an unknown node: the media that came in, or a made up picture."""

    made: Image.Image
    images: Batch = ()
    audio: AudioClip | None = None
    truth: bool | None = None
    """The answer of a node that was asked whether something is kept."""

    @property
    def pictures(self) -> Batch:
        """At least one picture."""
        return self.images or (self.made,)

    def convert(self, kind: object) -> Any:
        """Return it as a value of a ComfyUI type, itself where the type is unknown too."""
        converted: Any = _PLAIN_VALUES.get(str(kind), self)
        match kind:
            case "IMAGE":
                converted = self.pictures
            case "MASK":
                converted = tuple(picture.convert("L") for picture in self.pictures)
            case "AUDIO":
                converted = self.audio or silence(1.0, 44100, 2)
            case "VIDEO":
                converted = VideoClip(self.pictures, Fraction(_FRAME_RATE), self.audio)
            case "LATENT":
                converted = Latent(self.pictures)
            case "BOOLEAN" if self.truth is not None:
                converted = self.truth
            case str() if kind in _UNSEEN_KINDS:
                converted = combine(kind, self.made.getpixel((0, 0)))
        return converted


def define_unknown_node(
    class_type: str, inputs: Mapping[str, Any], folders: MediaFolders
) -> NodeDefinition:
    """Return a definition that fits this one node, all of whose inputs may be anything."""
    keeps = _KEEPS.match(class_type) is not None and "key" in inputs
    asks = _ASKS.match(class_type) is not None and "key" in inputs
    is_named_so = keeps or bool(_SAVES.search(class_type) or _SHOWS.search(class_type))
    is_output = "filename_prefix" in inputs or (
        is_named_so and any(is_link(value) for value in inputs.values())
    )
    return NodeDefinition(
        class_type,
        NodeForm.CLASSIC,
        "custom_nodes.unknown",
        "unknown",
        inputs=tuple(Input(name, _find_kind(inputs[name], folders)) for name in inputs),
        outputs=(Output(ANY_TYPE, ANY_TYPE),) * _SLOTS,
        is_output=is_output,
        is_never_cached=keeps or asks,
    )


def implement_unknown_node(definition: NodeDefinition, kept: set[str]) -> NodeImplementation:
    """Return what a node of this definition does; `kept` are the keys under which data is kept."""

    def run_unknown_node(run: NodeRun, **inputs: Any) -> NodeResult:
        stand_in = _stand_in(run, definition, inputs)
        shown = None
        if definition.is_never_cached and definition.is_output:
            kept.add(str(inputs["key"]))
        elif definition.is_never_cached:
            stand_in = replace(stand_in, truth=str(inputs["key"]) in kept)
        elif definition.is_output:
            shown = _save(run, definition.class_type, inputs, stand_in)
        return NodeResult((stand_in,) * _SLOTS, shown)

    return run_unknown_node


def _find_kind(value: Any, folders: MediaFolders) -> str | MediaKind:
    """Return the kind of a value that names an uploaded file, and of any other that it is free."""
    if isinstance(value, str) and folders.has_input(value):
        medium = (mimetypes.guess_type(value.split(" [")[0])[0] or "").split("/")[0]
        if medium in list(MediaKind):
            return MediaKind(medium)
    return ANY_TYPE


def _stand_in(run: NodeRun, definition: NodeDefinition, inputs: Mapping[str, Any]) -> StandIn:
    files = {item.name: item.kind for item in definition.inputs if isinstance(item.kind, MediaKind)}
    given = [
        _read_file(run.folders, files[name], value) if name in files else value
        for name, value in inputs.items()
    ]
    images: Batch = ()
    audio: AudioClip | None = None
    for value in given:
        found_images, found_audio = _take_media(value)
        images = images or found_images
        audio = audio or found_audio
    made = _make_picture(definition.class_type, inputs)
    # Who names a size makes something of this size, as an empty latent picture.
    is_sized = "width" in inputs and "height" in inputs
    truths = (value.truth for value in given if isinstance(value, StandIn))
    truth = next((answer for answer in truths if answer is not None), None)
    return StandIn(made, images or ((made,) if is_sized else ()), audio, truth)


def _read_file(folders: MediaFolders, kind: MediaKind, name: str) -> object:
    path = folders.input_path(name)
    if kind is MediaKind.IMAGE:
        return read_image(path)[0]
    return VideoFile(path) if kind is MediaKind.VIDEO else read_audio(path)


def _take_media(value: object) -> tuple[Batch, AudioClip | None]:
    match value:
        case StandIn() | VideoClip():
            return value.images, value.audio
        case AudioClip():
            return (), value
        case VideoFile():
            return _take_media(read_video(value.path))
        case Latent():
            return value.images, None
        case (Image.Image(), *_):
            return tuple(picture.convert("RGB") for picture in _pictures(value)), None
    return (), None


def _pictures(value: Iterable[object]) -> Iterable[Image.Image]:
    return (picture for picture in value if isinstance(picture, Image.Image))


def _make_picture(class_type: str, inputs: Mapping[str, Any]) -> Image.Image:
    """Return a picture of the wanted size, whose colour differs with the node's plain values."""
    plain = {name: value for name, value in inputs.items() if isinstance(value, str | int | float)}
    seed = hashlib.sha256(json.dumps([class_type, plain], sort_keys=True).encode()).digest()
    size = (_read_side(inputs.get("width")), _read_side(inputs.get("height")))
    return Image.new("RGB", size, (seed[0], seed[1], seed[2]))


def _read_side(value: object) -> int:
    is_side = isinstance(value, int) and 0 < value <= _LONGEST_SIDE
    return int(str(value)) if is_side else _SIDE


def _save(
    run: NodeRun, class_type: str, inputs: Mapping[str, Any], media: StandIn
) -> dict[str, list[Any]]:
    """Write what the node was given and list it under the key that nodes of its sort use."""
    if media.truth is not None:
        return {"text": [str(media.truth).lower()]}
    is_temporary = bool(_SHOWS.search(class_type)) or inputs.get("save_output") is False
    prefix = next((inputs[name] for name in _PREFIX_INPUTS if name in inputs), "ComfyUI")
    folder = TEMP if is_temporary else OUTPUT
    place = run.folders.next_file(folder, str(prefix), run.now, media.pictures[0].size)
    if _FILMS.search(class_type) or any(name in inputs for name in _RATE_INPUTS):
        rate = _read_rate(inputs)
        name = place.name("mp4")
        clip = VideoClip(media.pictures, Fraction(rate).limit_denominator(1001), media.audio)
        write_mp4(clip, place.folder / name, run.metadata(), run.check_interrupt)
        form = {"format": "video/h264-mp4", "frame_rate": rate}
        return {"gifs": [place.listed(name, folder) | form]}
    if media.audio is not None and not media.images:
        name = place.name("mp3")
        write_mp3(media.audio, place.folder / name, run.metadata(), "128k")
        return {"audio": [place.listed(name, folder)]}
    if not media.images and not any(isinstance(value, StandIn) for value in inputs.values()):
        return {"text": [value for value in inputs.values() if isinstance(value, str)]}
    listed = []
    for offset, image in enumerate(media.pictures):
        name = place.name("png", offset)
        write_png(image, place.folder / name, run.metadata(), _COMPRESSION)
        listed.append(place.listed(name, folder))
    return {"images": listed}


def _read_rate(inputs: Mapping[str, Any]) -> float:
    rates = (inputs.get(name) for name in _RATE_INPUTS)
    return next((float(rate) for rate in rates if isinstance(rate, int | float)), _FRAME_RATE)
