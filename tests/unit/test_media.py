"""What is let through to an instance, and what its size or its first bytes give away."""

import io
import struct
import zlib
from contextlib import suppress
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from local.sample_media import make_audio, make_image, make_video
from ml_service.domain.errors import InputTooLargeError, JobError, UnsupportedMediaError
from ml_service.domain.inputs import MediaSource
from ml_service.domain.media import HEAD_BYTES, MAX_INPUT_BYTES, check_head, check_size
from ml_service.ports import MediaStream
from ml_service.services.check_input import check_input

PICTURE = make_image(color=(10, 20, 30))
VIDEO = make_video(color=(10, 20, 30), seconds=0.2)
AUDIO = make_audio(seconds=0.2)


def source(key: str = "a/face.png", **limits: int) -> MediaSource:
    return MediaSource(input="image", bucket="b", key=key, upload_name="n", **limits)


def encode(form: str, size: tuple[int, int] = (30, 20), mode: str = "RGB", **options: object):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form, **options)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG's header alone: as small as that can a picture of any size begin."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("key", "head"),
    [
        ("face.png", PICTURE),
        ("face.PNG", PICTURE),
        ("face.jpg", PICTURE),
        ("face.jpeg", encode("JPEG")),
        ("face.png", encode("JPEG", progressive=True)),
        ("face.jpg", encode("JPEG", mode="L", exif=b"Exif\0\0" + bytes(60_000))),
        ("face.webp", encode("WEBP")),
        ("face.webp", encode("WEBP", lossless=True)),
        ("face.webp", encode("WEBP", mode="RGBA", exif=b"Exif\0\0II*\0")),
        ("clip.mp4", VIDEO),
        ("clip.mp4", b"\0\0\0\x18ftypiso5\0\0\0\1iso5dash"),
        ("clip.mp4", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("voice.mp3", AUDIO),
        ("voice.mp3", AUDIO[AUDIO.index(b"\xff\xfb") :]),
    ],
)
def test_every_accepted_form_passes_under_every_name_of_its_kind(key: str, head: bytes):
    check_head(source(key), head)


@pytest.mark.parametrize(
    ("key", "head"),
    [
        ("face.png", b"<!DOCTYPE html><html><body>404</body></html>"),
        ("face.png", VIDEO),
        ("face.png", AUDIO),
        ("face.jpg", encode("GIF")),
        ("face.jpg", encode("TIFF")),
        ("face.webp", b"RIFF\0\0\0\0WAVEfmt "),
        ("face.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"),
        ("clip.mp4", PICTURE),
        ("clip.mp4", b"\0\0\0\x1cftypheic\0\0\0\0mif1heic"),
        ("clip.mp4", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"),
        ("voice.mp3", VIDEO),
        ("voice.mp3", b"RIFF\0\0\0\0WAVEfmt "),
        ("face.png", b"\x89PNG\r\n\x1a\n"),
        ("face.jpg", encode("JPEG")[:40]),
    ],
)
def test_what_is_not_what_its_extension_says_is_unsupported(key: str, head: bytes):
    with pytest.raises(UnsupportedMediaError):
        check_head(source(key), head)


def test_the_sentence_names_the_input_and_no_key():
    with pytest.raises(UnsupportedMediaError) as caught:
        check_head(source("people/anna.png"), b"<html>")
    assert str(caught.value) == "The input image does not hold what its extension .png says."


@given(width=st.integers(1, 2**31 - 1), height=st.integers(1, 2**31 - 1))
def test_a_picture_of_more_pixels_than_the_limit_is_too_large_whatever_its_sides(width, height):
    head = png_of(width, height)
    if width * height <= 100_000_000:
        check_head(source(), head)
    else:
        with pytest.raises(InputTooLargeError, match=f"{width} x {height} pixels"):
            check_head(source(), head)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_manifests_own_limit_of_pixels_holds_for_every_form(form: str):
    head = encode(form, (100, 100))
    check_head(source(max_pixels=10_000), head)
    with pytest.raises(InputTooLargeError, match="more than the 9999 that are accepted"):
        check_head(source(max_pixels=9_999), head)


@given(head=st.binary(max_size=200), key=st.sampled_from(["a.png", "a.webp", "a.mp4", "a.mp3"]))
@pytest.mark.parametrize("start", [b"", b"\xff\xd8\xff", PICTURE[:30], encode("WEBP")[:20]])
def test_any_bytes_are_judged_and_nothing_else_is_raised(start: bytes, head: bytes, key: str):
    with suppress(JobError):
        check_head(source(key), start + head)


@pytest.mark.parametrize(
    ("size", "limit", "error"),
    [
        (0, None, UnsupportedMediaError),
        (1, None, None),
        (MAX_INPUT_BYTES, None, None),
        (MAX_INPUT_BYTES + 1, None, InputTooLargeError),
        (5, 4, InputTooLargeError),
        (4, 4, None),
        (MAX_INPUT_BYTES + 1, 2 * MAX_INPUT_BYTES, InputTooLargeError),
    ],
)
def test_a_size_is_held_against_the_manifests_limit_and_the_services(size, limit, error):
    limited = source() if limit is None else source(max_bytes=limit)
    if error is None:
        check_size(limited, size)
    else:
        with pytest.raises(error):
            check_size(limited, size)


class Forward(io.RawIOBase):
    """A stream that cannot go back, and tells how much of it was read."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size)
        self.taken += len(data)
        return data


def stream_of(content: bytes) -> tuple[MediaStream, Forward]:
    forward = Forward(content)
    return MediaStream(forward, len(content)), forward


@pytest.mark.parametrize("step", [-1, 1_000_000, HEAD_BYTES, HEAD_BYTES + 5])
@pytest.mark.parametrize("padding", [0, HEAD_BYTES])
def test_a_checked_stream_begins_at_its_first_byte(step: int, padding: int):
    content = PICTURE + bytes(padding)
    checked = check_input(source(), stream_of(content)[0])
    assert read_all(checked.content, step) == content
    assert checked.size == len(content)


def test_only_the_head_is_read_to_judge():
    stream, forward = stream_of(VIDEO + bytes(2 * HEAD_BYTES))
    check_input(source("clip.mp4"), stream)
    assert forward.taken == HEAD_BYTES


def test_nothing_is_read_of_an_object_whose_size_is_wrong():
    stream, forward = stream_of(PICTURE)
    with pytest.raises(InputTooLargeError):
        check_input(source(max_bytes=10), stream)
    assert forward.taken == 0


def read_all(content: BinaryIO, step: int) -> bytes:
    parts = []
    while part := content.read(step):
        parts.append(part)
    return b"".join(parts)
