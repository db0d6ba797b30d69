"""Pictures in another format, by Pillow."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image

from ml_service.domain.errors import OutputInvalidError, OutputTooLargeError
from ml_service.domain.manifests import Conversion

MAX_PICTURE_BYTES = 100 * 1024 * 1024
"""A file is held in memory while it is converted."""
_MAX_PIXELS = 64 * 1024 * 1024
"""8192 by 8192; decoded, they take 256 MB of the function's 1024."""


class PillowImageConverter:
    """Decodes and encodes pictures in memory."""

    @contextmanager
    def convert(self, content: BinaryIO, conversion: Conversion) -> Iterator[BinaryIO]:
        """The picture in the wanted format, without the prompt that ComfyUI writes into it."""
        data = content.read(MAX_PICTURE_BYTES + 1)
        if len(data) > MAX_PICTURE_BYTES:
            raise OutputTooLargeError(
                f"A picture of more than {MAX_PICTURE_BYTES} bytes cannot be converted."
            )
        converted = io.BytesIO()
        try:
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    raise OutputTooLargeError(
                        f"A picture of {picture.width} by {picture.height} pixels cannot be "
                        "converted."
                    )
                _flatten(picture, conversion).save(
                    converted, conversion.format, quality=conversion.quality
                )
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # Pillow reports a broken PNG as SyntaxError, a picture too wide for WebP as ValueError.
            raise OutputInvalidError(
                f"An output is no picture that can be stored as {conversion.format}."
            ) from error
        converted.seek(0)
        yield converted


def _flatten(picture: Image.Image, conversion: Conversion) -> Image.Image:
    """The picture in a mode that the format takes; JPEG has white where it was transparent."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    opaque = picture.convert("RGBA")
    if conversion.format != "jpeg":
        return opaque
    return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
