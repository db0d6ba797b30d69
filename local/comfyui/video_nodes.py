"""The video nodes."""

from fractions import Fraction

from local.comfyui.audio_clips import AudioClip
from local.comfyui.image_values import Batch
from local.comfyui.media_folders import OUTPUT
from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun
from local.comfyui.video_clips import (
    VideoClip,
    VideoFile,
    copy_mp4,
    is_h264_mp4,
    read_video,
    write_mp4,
    write_webm,
)

# Rates such as 23.976 are kept to this precision.
_LARGEST_DENOMINATOR = 1001


def load_video(run: NodeRun, *, file: str) -> NodeResult:
    """LoadVideo: a video file, not yet decoded."""
    return NodeResult((VideoFile(run.folders.input_path(file)),))


def get_video_components(_run: NodeRun, *, video: VideoClip | VideoFile) -> NodeResult:
    """GetVideoComponents: pictures, sound (None without a sound track) and rate."""
    clip = _decode(video)
    return NodeResult((clip.images, clip.audio, float(clip.fps)))


def create_video(
    _run: NodeRun, *, images: Batch, fps: float, audio: AudioClip | None = None
) -> NodeResult:
    """CreateVideo: pictures and sound put together."""
    rate = Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR)
    return NodeResult((VideoClip(images, rate, audio),))


def save_video(
    run: NodeRun,
    *,
    video: VideoClip | VideoFile,
    filename_prefix: str,
    format: str,  # noqa: A002 (the name of the node's input)
    codec: str,
) -> NodeResult:
    """SaveVideo: an mp4 in the output folder; both formats and both codecs mean H.264 in mp4."""
    del format, codec
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now)
    name = place.name("mp4")
    path = place.folder / name
    if isinstance(video, VideoFile) and is_h264_mp4(video.path):
        copy_mp4(video.path, path, run.metadata())
    else:
        write_mp4(_decode(video), path, run.metadata(), run.check_interrupt)
    return NodeResult(shown={"images": [place.listed(name, OUTPUT)], "animated": [True]})


def save_webm(
    run: NodeRun, *, images: Batch, filename_prefix: str, codec: str, fps: float, crf: float
) -> NodeResult:
    """SaveWEBM: a film without sound in the output folder."""
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now, images[0].size)
    name = place.name("webm")
    clip = VideoClip(images, Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR))
    write_webm(clip, place.folder / name, run.metadata(), codec, round(crf), run.check_interrupt)
    return NodeResult(shown={"images": [place.listed(name, OUTPUT)], "animated": [True]})


def _decode(video: VideoClip | VideoFile) -> VideoClip:
    return read_video(video.path) if isinstance(video, VideoFile) else video


IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "LoadVideo": load_video,
    "GetVideoComponents": get_video_components,
    "CreateVideo": create_video,
    "SaveVideo": save_video,
    "SaveWEBM": save_webm,
}
