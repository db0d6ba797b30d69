"""Reads pictures from files and writes them with the metadata that ComfyUI puts into them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from local.comfyui.image_values import Batch

# The tags of a webp's EXIF block that ComfyUI writes to: camera model for the prompt, and downwards
# from camera make for the rest.
_EXIF_MODEL = 0x0110
_EXIF_MAKE = 0x010F

_WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}

# ComfyUI's mask of a picture without transparency.
_EMPTY_MASK_SIZE = (64, 64)


def read_image(path: Path) -> tuple[Batch, Batch]:
    """Return the frames of a picture and their masks, where transparent is white.

    Raises PIL.UnidentifiedImageError for a file that is no picture.
    """
    images: list[Image.Image] = []
    masks: list[Image.Image] = []
    with Image.open(path) as file:
        for raw_frame in ImageSequence.Iterator(file):
            frame = ImageOps.exif_transpose(raw_frame)
            if images and frame.size != images[0].size:
                continue
            images.append(frame.convert("RGB"))
            masks.append(_transparency(frame))
    return tuple(images), tuple(masks)


def read_channel(path: Path, channel: str) -> Batch:
    """Return one colour of a picture as a mask; alpha is inverted, as read_image does."""
    with Image.open(path) as file:
        frame = ImageOps.exif_transpose(file)
        if channel != "alpha":
            return (frame.convert("RGB").getchannel(channel[0].upper()),)
        return (_transparency(frame),)


def write_png(
    image: Image.Image, path: Path, metadata: Mapping[str, Any], compress_level: int
) -> None:
    """Write a picture with each metadata value as JSON text under its key."""
    image.save(path, pnginfo=_png_info(metadata), compress_level=compress_level)


def write_animated_png(
    images: Batch, path: Path, metadata: Mapping[str, Any], fps: float, compress_level: int
) -> None:
    """Write a batch as an animation, the metadata as in a picture."""
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=int(1000.0 / fps),
        pnginfo=_png_info(metadata),
        compress_level=compress_level,
    )


def write_animated_webp(
    images: Batch,
    path: Path,
    metadata: Mapping[str, Any],
    fps: float,
    *,
    lossless: bool,
    quality: int,
    method: str,
) -> None:
    """Write a batch as an animation, the metadata in its EXIF block."""
    exif = images[0].getexif()
    tag = _EXIF_MAKE
    for key, value in metadata.items():
        if key == "prompt":
            exif[_EXIF_MODEL] = f"prompt:{json.dumps(value)}"
        else:
            exif[tag] = f"{key}:{json.dumps(value)}"
            tag -= 1
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=int(1000.0 / fps),
        exif=exif,
        lossless=lossless,
        quality=quality,
        method=_WEBP_METHODS[method],
    )


def _png_info(metadata: Mapping[str, Any]) -> PngInfo:
    info = PngInfo()
    for key, value in metadata.items():
        info.add_text(key, json.dumps(value))
    return info


def _transparency(frame: Image.Image) -> Image.Image:
    if frame.has_transparency_data:
        return ImageOps.invert(frame.convert("RGBA").getchannel("A"))
    return Image.new("L", _EMPTY_MASK_SIZE, 0)
