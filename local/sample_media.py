"""Small real media files, made when needed: a photo, a video with a moving bar, a tone."""

import io
import math
from array import array
from fractions import Fraction

import av
from PIL import Image, ImageDraw

_SAMPLE_RATE = 44_100


def make_image(*, color: tuple[int, int, int], size: tuple[int, int] = (320, 480)) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def make_video(
    *,
    color: tuple[int, int, int],
    seconds: float = 2.0,
    fps: int = 12,
    size: tuple[int, int] = (192, 256),
) -> bytes:
    """An H.264 MP4 without sound: a white bar moves over one colour."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        frames = round(seconds * fps)
        for number in range(frames):
            image = Image.new("RGB", size, color)
            x = number * size[0] // frames
            ImageDraw.Draw(image).rectangle((x, 0, x + 6, 20), fill="white")
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return buffer.getvalue()


def make_audio(*, seconds: float = 4.0, hertz: float = 440.0) -> bytes:
    """An MP3 of one tone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=_SAMPLE_RATE, layout="mono")
        step = 2 * math.pi * hertz / _SAMPLE_RATE
        samples = array(
            "h", (round(12_000 * math.sin(step * n)) for n in range(round(seconds * _SAMPLE_RATE)))
        )
        stream.codec_context.open()  # only then does it know its frame size
        for start in range(0, len(samples), stream.frame_size):
            chunk = samples[start : start + stream.frame_size]
            frame = av.AudioFrame(format="s16p", layout="mono", samples=len(chunk))
            frame.planes[0].update(chunk.tobytes().ljust(frame.planes[0].buffer_size, b"\0"))
            frame.sample_rate = _SAMPLE_RATE
            frame.pts = start
            frame.time_base = Fraction(1, _SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
