"""The audio nodes."""

from array import array
from typing import Any

from local.comfyui.audio_clips import (
    AudioClip,
    convert_clip,
    read_audio,
    silence,
    write_flac,
    write_mp3,
    write_opus,
)
from local.comfyui.media_folders import OUTPUT, TEMP
from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun

_HIGHEST = 32767
_LOWEST = -32768


def load_audio(run: NodeRun, *, audio: str) -> NodeResult:
    """LoadAudio and RecordAudio: the sound of an audio or video file."""
    return NodeResult((read_audio(run.folders.input_path(audio)),))


def make_empty_audio(
    _run: NodeRun, *, duration: float, sample_rate: int, channels: int
) -> NodeResult:
    """EmptyAudio: silence."""
    return NodeResult((silence(duration, sample_rate, channels),))


def trim_audio(
    _run: NodeRun, *, audio: AudioClip, start_index: float, duration: float
) -> NodeResult:
    """TrimAudioDuration: a part; a negative start counts from the end.

    Raises ValueError where nothing would be left.
    """
    start = round(start_index * audio.sample_rate)
    if start < 0:
        start += audio.length
    first = max(0, min(start, audio.length - 1))
    last = max(0, min(first + round(duration * audio.sample_rate), audio.length))
    if first >= last:
        raise ValueError("no sound lies between the start and the end")
    return NodeResult((audio.cut(first, last),))


def concatenate_audio(
    _run: NodeRun, *, audio1: AudioClip, audio2: AudioClip, direction: str
) -> NodeResult:
    """AudioConcat: both clips after each other."""
    first, second = _match(audio1, audio2)
    pair = (first, second) if direction == "after" else (second, first)
    joined = AudioClip(pair[0].samples + pair[1].samples, first.sample_rate, first.channels)
    return NodeResult((joined,))


def merge_audio(
    _run: NodeRun, *, audio1: AudioClip, audio2: AudioClip, merge_method: str
) -> NodeResult:
    """AudioMerge: both clips at once, as long as the first."""
    first, second = _match(audio1, audio2)
    pairs = zip(first.values(), second.fit(first.length).values(), strict=True)
    if merge_method == "add":
        mixed = [one + other for one, other in pairs]
    elif merge_method == "mean":
        mixed = [(one + other) // 2 for one, other in pairs]
    elif merge_method == "subtract":
        mixed = [one - other for one, other in pairs]
    else:
        mixed = [one * other // _HIGHEST for one, other in pairs]
    samples = array("h", (max(_LOWEST, min(_HIGHEST, value)) for value in mixed))
    return NodeResult((AudioClip(samples.tobytes(), first.sample_rate, first.channels),))


def adjust_volume(_run: NodeRun, *, audio: AudioClip, volume: int) -> NodeResult:
    """AudioAdjustVolume: louder or quieter by so many decibels."""
    gain = 10 ** (volume / 20)
    louder = (max(_LOWEST, min(_HIGHEST, round(value * gain))) for value in audio.values())
    samples = array("h", louder).tobytes()
    return NodeResult((AudioClip(samples, audio.sample_rate, audio.channels),))


def preview_audio(run: NodeRun, *, audio: AudioClip) -> NodeResult:
    """PreviewAudio: a flac file in the temp folder under a random prefix."""
    place = run.folders.next_file(TEMP, run.temp_prefix(), run.now)
    name = place.name("flac")
    write_flac(audio, place.folder / name, run.metadata())
    return _shown(place.listed(name, TEMP))


def save_audio(run: NodeRun, *, audio: AudioClip, filename_prefix: str) -> NodeResult:
    """SaveAudio: a flac file in the output folder."""
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now)
    name = place.name("flac")
    write_flac(audio, place.folder / name, run.metadata())
    return _shown(place.listed(name, OUTPUT))


def save_audio_mp3(
    run: NodeRun, *, audio: AudioClip, filename_prefix: str, quality: str
) -> NodeResult:
    """SaveAudioMP3: an mp3 file in the output folder."""
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now)
    name = place.name("mp3")
    write_mp3(audio, place.folder / name, run.metadata(), quality)
    return _shown(place.listed(name, OUTPUT))


def save_audio_opus(
    run: NodeRun, *, audio: AudioClip, filename_prefix: str, quality: str
) -> NodeResult:
    """SaveAudioOpus: an opus file in the output folder."""
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now)
    name = place.name("opus")
    write_opus(audio, place.folder / name, run.metadata(), quality)
    return _shown(place.listed(name, OUTPUT))


def split_channels(_run: NodeRun, *, audio: AudioClip) -> NodeResult:
    """SplitAudioChannels: left and right. Raises ValueError for a sound that is not stereo."""
    if audio.channels != 2:
        raise ValueError("the sound is not stereo")
    values = audio.values()
    sides = (values[0::2], values[1::2])
    return NodeResult(tuple(AudioClip(side.tobytes(), audio.sample_rate, 1) for side in sides))


def join_channels(_run: NodeRun, *, audio_left: AudioClip, audio_right: AudioClip) -> NodeResult:
    """JoinAudioChannels: two sounds as left and right, as long as the shorter."""
    sample_rate = max(audio_left.sample_rate, audio_right.sample_rate)
    left = convert_clip(audio_left, sample_rate, 1)
    right = convert_clip(audio_right, sample_rate, 1)
    length = min(left.length, right.length)
    samples = array("h", bytes(4 * length))
    samples[0::2], samples[1::2] = left.values()[:length], right.values()[:length]
    return NodeResult((AudioClip(samples.tobytes(), sample_rate, 2),))


def _match(first: AudioClip, second: AudioClip) -> tuple[AudioClip, AudioClip]:
    """Bring two clips to the higher sample rate and the larger number of channels."""
    sample_rate = max(first.sample_rate, second.sample_rate)
    channels = max(first.channels, second.channels)
    return convert_clip(first, sample_rate, channels), convert_clip(second, sample_rate, channels)


def _shown(listed: dict[str, Any]) -> NodeResult:
    return NodeResult(shown={"audio": [listed]})


IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "LoadAudio": load_audio,
    "EmptyAudio": make_empty_audio,
    "TrimAudioDuration": trim_audio,
    "AudioConcat": concatenate_audio,
    "AudioMerge": merge_audio,
    "AudioAdjustVolume": adjust_volume,
    "PreviewAudio": preview_audio,
    "SaveAudio": save_audio,
    "SaveAudioMP3": save_audio_mp3,
    "SaveAudioOpus": save_audio_opus,
    "RecordAudio": load_audio,
    "SplitAudioChannels": split_channels,
    "JoinAudioChannels": join_channels,
}
