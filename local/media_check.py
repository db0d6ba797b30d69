"""Opening a result, to see that it is the media that its workflow claims."""

import io
from dataclasses import dataclass

import av
from PIL import Image, UnidentifiedImageError

from ml_service.domain.errors import MlServiceError

_COLOR_TOLERANCE = 24
"""Video has its colours in half the size and 8 bit."""


class MediaCheckError(MlServiceError):
    """When a file is not the media it should be."""


@dataclass(frozen=True)
class MediaFacts:
    """What a media file turned out to be."""

    kind: str
    """image, video or audio."""
    format: str
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    color: tuple[int, int, int] | None = None
    """In the middle of a picture, or of a video's first frame."""

    def __str__(self) -> str:
        size = f" {self.width}x{self.height}" if self.width else ""
        return f"{self.format}{size}" + (f" {self.seconds:.1f} s" if self.seconds else "")


def check_color(facts: MediaFacts, color: tuple[int, int, int]) -> None:
    """See that a result has the colour that went in; raises MediaCheckError."""
    found = facts.color or (0, 0, 0)
    if any(abs(a - b) > _COLOR_TOLERANCE for a, b in zip(found, color, strict=True)):
        raise MediaCheckError(f"expected the colour {color}, found {found}")


def check_media(content: bytes, *, kind: str) -> MediaFacts:
    """Decode a file far enough to know it opens; raises MediaCheckError."""
    facts = _open_image(content) if kind == "image" else _open_container(content)
    if facts.kind != kind:
        raise MediaCheckError(f"expected {kind}, found {facts}")
    return facts


def _open_image(content: bytes) -> MediaFacts:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return MediaFacts(
                "image",
                image.format or "?",
                image.width,
                image.height,
                color=_read_color(image),
            )
    except (UnidentifiedImageError, OSError) as error:
        raise MediaCheckError(f"not an image that opens: {type(error).__name__}") from error


def _open_container(content: bytes) -> MediaFacts:
    try:
        with av.open(io.BytesIO(content), "r") as container:
            seconds = (container.duration or 0) / av.time_base
            if container.streams.video:
                frame = next(container.decode(video=0))
                color = _read_color(frame.to_image())
                return MediaFacts("video", "MP4", frame.width, frame.height, seconds, color)
            next(container.decode(audio=0))
            return MediaFacts("audio", container.format.name.upper(), seconds=seconds)
    except (av.FFmpegError, StopIteration, IndexError) as error:
        raise MediaCheckError(f"no media that opens: {type(error).__name__}") from error


def _read_color(image: Image.Image) -> tuple[int, int, int]:
    middle = image.convert("RGB").resize((1, 1), box=_middle(image.width, image.height))
    red, green, blue = middle.tobytes()
    return red, green, blue


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    return width // 3, height // 3, 2 * width // 3, 2 * height // 3
