"""Sound as it travels between nodes, and its reading and writing with PyAV."""

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.audio import AudioStream
from av.container import InputContainer

# The samples given to an encoder at a time.
FRAME_SAMPLES = 1024

_OPUS_SAMPLE_RATE = 48000

_SAMPLE_FORMAT = "s16"
_BYTES_PER_SAMPLE = 2
_LAYOUTS = {1: "mono", 2: "stereo"}


class NoAudioError(Exception):
    """When a file that should be heard has no sound track."""


@dataclass(frozen=True)
class AudioClip:
    """Interleaved 16 bit samples; `sample_rate` in hertz, one or two channels."""

    samples: bytes
    sample_rate: int
    channels: int

    @property
    def length(self) -> int:
        """The number of samples of one channel."""
        return len(self.samples) // (_BYTES_PER_SAMPLE * self.channels)

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.length / self.sample_rate

    def cut(self, start: int, end: int) -> "AudioClip":
        """Return the samples from `start` up to `end`."""
        step = _BYTES_PER_SAMPLE * self.channels
        return AudioClip(self.samples[start * step : end * step], self.sample_rate, self.channels)

    def fit(self, length: int) -> "AudioClip":
        """Return the clip cut, or filled with silence, to this number of samples."""
        size = length * _BYTES_PER_SAMPLE * self.channels
        samples = self.samples[:size].ljust(size, b"\0")
        return AudioClip(samples, self.sample_rate, self.channels)

    def values(self) -> "array[int]":
        """Return the samples as numbers from -32768 to 32767."""
        return array("h", self.samples)


def silence(seconds: float, sample_rate: int, channels: int) -> AudioClip:
    """Return a clip in which nothing is heard."""
    length = round(seconds * sample_rate)
    return AudioClip(bytes(length * channels * _BYTES_PER_SAMPLE), sample_rate, channels)


def convert_clip(clip: AudioClip, sample_rate: int, channels: int) -> AudioClip:
    """Return the clip with another sample rate or number of channels."""
    if (clip.sample_rate, clip.channels) == (sample_rate, channels):
        return clip
    resampler = _resampler(sample_rate, channels)
    samples = b"".join(
        _frame_bytes(converted)
        for frame in [*split_into_frames(clip), None]
        for converted in resampler.resample(frame)
    )
    return AudioClip(samples, sample_rate, channels)


def read_audio(path: Path) -> AudioClip:
    """Return the first sound track of a file.

    Raises NoAudioError, or PyAV's error for a file that is no media file.
    """
    with av.open(path) as container:
        if not container.streams.audio:
            raise NoAudioError(f"No audio stream found in {path.name}")
        return decode_audio(container)


def decode_audio(container: InputContainer) -> AudioClip:
    """Return the first sound track of an open container, from wherever it stands."""
    stream = container.streams.audio[0]
    channels = min(stream.codec_context.layout.nb_channels, 2)
    sample_rate = stream.codec_context.sample_rate
    resampler = _resampler(sample_rate, channels)
    chunks = [
        _frame_bytes(converted)
        for frame in container.decode(stream)
        for converted in resampler.resample(frame)
    ]
    chunks += [_frame_bytes(converted) for converted in resampler.resample(None)]
    return AudioClip(b"".join(chunks), sample_rate, channels)


def write_flac(clip: AudioClip, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a lossless file with each metadata value as JSON text under its key."""
    _write(clip, path, "flac", metadata)


def write_mp3(clip: AudioClip, path: Path, metadata: Mapping[str, Any], quality: str) -> None:
    """Write an mp3 of variable quality V0, or of a bit rate such as `128k`."""
    if quality == "V0":
        _write(clip, path, "libmp3lame", metadata, options={"q": "0"})
    else:
        _write(clip, path, "libmp3lame", metadata, bit_rate=int(quality.removesuffix("k")) * 1000)


def write_opus(clip: AudioClip, path: Path, metadata: Mapping[str, Any], quality: str) -> None:
    """Write an opus file of a bit rate such as `128k`, whose sample rate is always the same."""
    resampled = convert_clip(clip, _OPUS_SAMPLE_RATE, clip.channels)
    _write(resampled, path, "libopus", metadata, bit_rate=int(quality.removesuffix("k")) * 1000)


def split_into_frames(clip: AudioClip) -> Iterator[av.AudioFrame]:
    """Yield the clip in frames of FRAME_SAMPLES, with their times."""
    for start in range(0, clip.length, FRAME_SAMPLES):
        part = clip.cut(start, start + FRAME_SAMPLES)
        frame = av.AudioFrame(
            format=_SAMPLE_FORMAT, layout=_LAYOUTS[clip.channels], samples=part.length
        )
        frame.sample_rate = clip.sample_rate
        frame.pts = start
        # The plane can be longer than its samples, and is only written as a whole.
        plane = frame.planes[0]
        plane.update(part.samples.ljust(plane.buffer_size, b"\0"))
        yield frame


def layout_name(clip: AudioClip) -> str:
    """Return PyAV's name of the clip's channels."""
    return _LAYOUTS[clip.channels]


def _write(
    clip: AudioClip,
    path: Path,
    codec: str,
    metadata: Mapping[str, Any],
    *,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
) -> None:
    with av.open(path, "w") as container:
        for key, value in metadata.items():
            container.metadata[key] = json.dumps(value)
        stream = container.add_stream(codec, rate=clip.sample_rate, options=options)
        if not isinstance(stream, AudioStream):
            raise TypeError(f"{codec} is no audio codec")
        stream.codec_context.layout = layout_name(clip)
        if bit_rate is not None:
            stream.codec_context.bit_rate = bit_rate
        for frame in [*split_into_frames(clip), None]:
            container.mux(stream.encode(frame))


def _resampler(sample_rate: int, channels: int) -> av.AudioResampler:
    return av.AudioResampler(format=_SAMPLE_FORMAT, layout=_LAYOUTS[channels], rate=sample_rate)


def _frame_bytes(frame: av.AudioFrame) -> bytes:
    wanted = frame.samples * frame.layout.nb_channels * _BYTES_PER_SAMPLE
    return bytes(frame.planes[0])[:wanted]
