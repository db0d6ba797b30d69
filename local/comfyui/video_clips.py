"""Video as it travels between nodes, and its reading and writing with PyAV."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio import AudioStream
from av.container import OutputContainer
from av.video import VideoStream
from PIL import Image

from local.comfyui.audio_clips import (
    AudioClip,
    convert_clip,
    decode_audio,
    layout_name,
    split_into_frames,
)
from local.comfyui.image_values import Batch

# The sample rates that AAC knows and that are common; another one is converted.
_AAC_SAMPLE_RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_DEFAULT_RATE = 44100

# Keys of our own, such as the prompt, are only kept in an mp4 with this flag.
_CONTAINER_OPTIONS = {"movflags": "use_metadata_tags"}


_WEBM_CODECS = {"vp9": "libvpx-vp9", "av1": "libsvtav1"}


class NoVideoError(Exception):
    """When a file that should be seen has no video track."""


@dataclass(frozen=True)
class VideoClip:
    """Pictures with their rate per second, and perhaps sound."""

    images: Batch
    fps: Fraction
    audio: AudioClip | None = None

    @property
    def seconds(self) -> Fraction:
        """The duration of the pictures."""
        return len(self.images) / self.fps


@dataclass(frozen=True)
class VideoFile:
    """A video that is still in its file."""

    path: Path


def read_video(path: Path) -> VideoClip:
    """Return the first video track and, if there is one, the first sound track.

    Raises NoVideoError, or PyAV's error for no media file.
    """
    with av.open(path) as container:
        if not container.streams.video:
            raise NoVideoError(f"No video stream found in {path.name}")
        stream = container.streams.video[0]
        fps = stream.average_rate or Fraction(1)
        images = tuple(_to_image(frame) for frame in container.decode(stream))
    if not images:
        raise NoVideoError(f"No picture found in {path.name}")
    with av.open(path) as container:
        audio = decode_audio(container) if container.streams.audio else None
    return VideoClip(images, Fraction(fps), audio)


def is_h264_mp4(path: Path) -> bool:
    """Tell whether a file can be put into an mp4 as it is."""
    with av.open(path) as container:
        return (
            "mp4" in container.format.name.split(",")
            and bool(container.streams.video)
            and container.streams.video[0].codec_context.name == "h264"
        )


def copy_mp4(source: Path, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the tracks of an mp4 into a new one without coding them again."""
    with av.open(source) as old, av.open(path, "w", options=_CONTAINER_OPTIONS) as new:
        _write_metadata(new, metadata)
        copied = {
            stream.index: new.add_stream_from_template(stream)
            for stream in (*old.streams.video, *old.streams.audio)
        }
        for packet in old.demux([old.streams[index] for index in copied]):
            # A packet without a time is the empty one that ends a track.
            if packet.dts is not None:
                packet.stream = copied[packet.stream.index]
                new.mux(packet)


def write_mp4(
    clip: VideoClip,
    path: Path,
    metadata: Mapping[str, Any],
    check_interrupt: Callable[[], None],
) -> None:
    """Write H.264 and AAC; the sound ends with the pictures.

    Raises PyAV's error for sides of odd length, as ComfyUI does.
    """
    with av.open(path, "w", options=_CONTAINER_OPTIONS) as container:
        _write_metadata(container, metadata)
        video = _add_video(container, "libx264", clip)
        audio = None if clip.audio is None else _add_audio(container, clip.audio)
        _encode_pictures(container, video, clip, check_interrupt)
        if clip.audio is not None and audio is not None:
            sound = convert_clip(clip.audio, audio.codec_context.sample_rate, clip.audio.channels)
            end = round(clip.seconds * sound.sample_rate)
            for frame in [*split_into_frames(sound.cut(0, end)), None]:
                container.mux(audio.encode(frame))


def write_webm(
    clip: VideoClip,
    path: Path,
    metadata: Mapping[str, Any],
    codec: str,
    crf: int,
    check_interrupt: Callable[[], None],
) -> None:
    """Write the pictures with a codec of _WEBM_CODECS; the higher `crf`, the smaller the file."""
    with av.open(path, "w") as container:
        _write_metadata(container, metadata)
        # A bit rate of 0 leaves the quality to crf alone.
        video = _add_video(container, _WEBM_CODECS[codec], clip, {"crf": str(crf), "b": "0"})
        _encode_pictures(container, video, clip, check_interrupt)


def _add_video(
    container: OutputContainer, codec: str, clip: VideoClip, options: dict[str, str] | None = None
) -> VideoStream:
    video = container.add_stream(codec, rate=clip.fps, options=options)
    if not isinstance(video, VideoStream):
        raise TypeError(f"{codec} is no video codec")
    video.width, video.height = clip.images[0].size
    video.pix_fmt = "yuv420p"
    return video


def _encode_pictures(
    container: OutputContainer,
    video: VideoStream,
    clip: VideoClip,
    check_interrupt: Callable[[], None],
) -> None:
    for image in clip.images:
        check_interrupt()
        container.mux(video.encode(_to_frame(image)))
    container.mux(video.encode(None))


def _to_image(frame: av.VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()
    return image


def _to_frame(image: Image.Image) -> av.VideoFrame:
    frame: av.VideoFrame = av.VideoFrame.from_image(image.convert("RGB"))
    return frame


def _add_audio(container: OutputContainer, clip: AudioClip) -> AudioStream:
    rate = clip.sample_rate if clip.sample_rate in _AAC_SAMPLE_RATES else _AAC_DEFAULT_RATE
    stream = container.add_stream("aac", rate=rate)
    if not isinstance(stream, AudioStream):
        raise TypeError("aac is no audio codec")
    stream.codec_context.layout = layout_name(clip)
    return stream


def _write_metadata(container: OutputContainer, metadata: Mapping[str, Any]) -> None:
    for key, value in metadata.items():
        container.metadata[key] = json.dumps(value)
