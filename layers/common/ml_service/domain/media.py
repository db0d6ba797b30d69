"""Whether an input object is what its name says, told by its size and its first bytes."""

import io
import re
from collections.abc import Mapping
from posixpath import splitext

import imagesize

from ml_service.domain.errors import InputTooLargeError, UnsupportedMediaError
from ml_service.domain.inputs import MediaSource

MAX_INPUT_BYTES = 500 * 1024 * 1024
HEAD_BYTES = 8 * 1024 * 1024
"""Cameras put previews and depth maps of several MB in front of a picture's dimensions."""

# What a node is able to read decides, not the letters of the extension: pictures are often
# PNG files called .jpg. MP4 shares its first bytes with the picture formats AVIF and HEIF.
_PICTURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF.{4}WEBP", re.DOTALL)
_CONTENTS: Mapping[str, re.Pattern[bytes]] = {
    ".mp3": re.compile(rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"),
    ".mp4": re.compile(rb".{4}ftyp(?!avi[fs]|hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL),
    ".jpeg": _PICTURE,
    ".jpg": _PICTURE,
    ".png": _PICTURE,
    ".webp": _PICTURE,
}


def check_size(source: MediaSource, size: int) -> None:
    """Judge an object by its size in bytes. Raises InputTooLargeError, UnsupportedMediaError."""
    if size == 0:
        raise UnsupportedMediaError(f"The input {source.input} is empty.")
    limit = min(source.max_bytes or MAX_INPUT_BYTES, MAX_INPUT_BYTES)
    if size > limit:
        raise InputTooLargeError(f"The input {source.input} is larger than {limit} bytes.")


def check_head(source: MediaSource, head: bytes) -> None:
    """Judge an object by its first HEAD_BYTES, or all of it if it has less.

    Nothing is decoded: a small file may hold a picture that no memory does.
    Raises InputTooLargeError, UnsupportedMediaError.
    """
    extension = splitext(source.key)[1].lower()
    expected = _CONTENTS[extension]
    if not expected.match(head):
        raise UnsupportedMediaError(
            f"The input {source.input} does not hold what its extension {extension} says."
        )
    if expected is _PICTURE:
        _check_dimensions(source, head)


def _check_dimensions(source: MediaSource, head: bytes) -> None:
    width, height = imagesize.get(io.BytesIO(head), exif_rotation=False)
    if width < 1 or height < 1:
        raise UnsupportedMediaError(f"The input {source.input} does not tell its dimensions.")
    if width * height > source.max_pixels:
        raise InputTooLargeError(
            f"The input {source.input} has {width} x {height} pixels, "
            f"more than the {source.max_pixels} that are accepted."
        )
