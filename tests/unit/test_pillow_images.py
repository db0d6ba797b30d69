import io

import pytest
from PIL import Image

from ml_service.adapters import pillow_images
from ml_service.adapters.pillow_images import PillowImageConverter
from ml_service.domain.errors import OutputInvalidError, OutputTooLargeError
from ml_service.domain.manifests import Conversion


def make_picture(mode: str = "RGB", color: object = 0, size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")
    return buffer.getvalue()


def convert(content: bytes, kind: str = "jpeg", quality: int = 90) -> bytes:
    conversion = Conversion(format=kind, quality=quality)
    with PillowImageConverter().convert(io.BytesIO(content), conversion) as converted:
        return converted.read()


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_a_picture_of_any_mode_becomes_one_of_the_format(mode: str, kind: str):
    with Image.open(io.BytesIO(convert(make_picture(mode), kind))) as picture:
        picture.load()
        assert (picture.format, picture.size) == (kind.upper(), (64, 64))


def test_transparent_is_white_in_jpeg_and_stays_transparent_in_webp():
    content = make_picture("RGBA", (255, 0, 0, 0))
    assert Image.open(io.BytesIO(convert(content))).getpixel((5, 5)) == (255, 255, 255)
    assert Image.open(io.BytesIO(convert(content, "webp"))).getpixel((5, 5))[3] == 0


def test_more_quality_takes_more_bytes():
    noise = Image.effect_noise((128, 128), 80)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    sizes = [len(convert(buffer.getvalue(), quality=quality)) for quality in (20, 60, 90)]
    assert sizes == sorted(set(sizes))


def test_what_is_no_picture_is_refused():
    with pytest.raises(OutputInvalidError, match="no picture that can be stored as webp"):
        convert(b"<html>", "webp")


def test_a_picture_too_large_for_the_functions_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    content = make_picture()
    monkeypatch.setattr(pillow_images, "_MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(OutputTooLargeError, match="64 by 64 pixels"):
        convert(content)
    monkeypatch.setattr(pillow_images, "MAX_PICTURE_BYTES", len(content) - 1)
    with pytest.raises(OutputTooLargeError, match="more than"):
        convert(content)
