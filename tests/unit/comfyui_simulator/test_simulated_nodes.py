import io
import json
from array import array
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from local.comfyui.audio_clips import AudioClip, read_audio, silence
from local.comfyui.image_values import Batch
from local.comfyui.media_folders import MediaFolders, OutsideFolderError
from local.comfyui.model_values import Ingredient, Latent, combine
from local.comfyui.node_run import NodeResult, NodeRun
from local.comfyui.nodes import NODE_IMPLEMENTATIONS
from local.comfyui.video_clips import NoVideoError, VideoClip, VideoFile, read_video

NOW = datetime(2026, 11, 21, 8, 5, 3, tzinfo=UTC)
RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)
PROMPT = {"1": {"class_type": "Any", "inputs": {}}}


@pytest.fixture
def folders(tmp_path: Path) -> MediaFolders:
    folders = MediaFolders(tmp_path)
    folders.prepare()
    return folders


class Nodes:
    """Runs single nodes."""

    def __init__(self, folders: MediaFolders) -> None:
        self._folders = folders

    def result(self, class_type: str, **inputs: Any) -> NodeResult:
        run = NodeRun(self._folders, NOW, PROMPT, {"workflow": {"id": "wf-1"}})
        return NODE_IMPLEMENTATIONS[class_type](run, **inputs)

    def values(self, class_type: str, **inputs: Any) -> tuple[Any, ...]:
        return self.result(class_type, **inputs).values

    def image(self, class_type: str, **inputs: Any) -> Image.Image:
        """Run a node for one picture and return it."""
        (batch,) = self.values(class_type, **inputs)
        (picture,) = batch
        assert isinstance(picture, Image.Image)
        return picture

    def saved(self, class_type: str, kind: str, **inputs: Any) -> Path:
        """Run an output node and return its single file."""
        shown = self.result(class_type, **inputs).shown
        assert shown is not None
        (item,) = shown[kind]
        path = self._folders.resolve(item["type"], item["subfolder"], item["filename"])
        assert path.is_file()
        return path


@pytest.fixture
def nodes(folders: MediaFolders) -> Nodes:
    return Nodes(folders)


def picture(color: tuple[int, ...] = RED, size: tuple[int, int] = (8, 4)) -> Batch:
    return (Image.new("RGBA" if len(color) == 4 else "RGB", size, color),)


def two_colors(size: tuple[int, int] = (8, 4)) -> Batch:
    """A picture with a red left and a blue right half."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return (image,)


def mask(value: int, size: tuple[int, int] = (8, 4)) -> Batch:
    return (Image.new("L", size, value),)


def tone(values: list[int], sample_rate: int = 8000, channels: int = 1) -> AudioClip:
    return AudioClip(array("h", values).tobytes(), sample_rate, channels)


def test_empty_image_has_its_size_number_and_color(nodes: Nodes) -> None:
    (batch,) = nodes.values("EmptyImage", width=8, height=4, batch_size=3, color=0x00FF00)

    assert [image.size for image in batch] == [(8, 4)] * 3
    assert batch[2].getpixel((0, 0)) == GREEN


def test_an_empty_image_beyond_all_memory_is_an_error(nodes: Nodes) -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        nodes.values("EmptyImage", width=16384, height=16384, batch_size=4096, color=0)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(16, 16, (16, 16)), (4, 0, (4, 2)), (0, 8, (16, 8)), (0, 0, (8, 4))],
)
def test_scale_image_keeps_the_shape_where_a_side_is_0(
    nodes: Nodes, width: int, height: int, expected: tuple[int, int]
) -> None:
    scaled = nodes.image(
        "ImageScale",
        image=picture(),
        upscale_method="lanczos",
        width=width,
        height=height,
        crop="disabled",
    )

    assert scaled.size == expected


def test_scale_image_can_keep_the_middle(nodes: Nodes) -> None:
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (2, 0, 6, 4))
    scaled = nodes.image(
        "ImageScale",
        image=(image,),
        upscale_method="nearest-exact",
        width=4,
        height=4,
        crop="center",
    )

    assert scaled.getcolors() == [(16, BLUE)]


def test_scale_image_by_a_factor(nodes: Nodes) -> None:
    scaled = nodes.image("ImageScaleBy", image=picture(), upscale_method="area", scale_by=1.5)

    assert scaled.size == (12, 6)


def test_invert_image(nodes: Nodes) -> None:
    assert nodes.image("ImageInvert", image=picture()).getpixel((0, 0)) == (0, 255, 255)


def test_batch_images_fits_the_second_to_the_first(nodes: Nodes) -> None:
    (batch,) = nodes.values("ImageBatch", image1=picture(), image2=picture(BLUE, (30, 30)))

    assert [image.size for image in batch] == [(8, 4), (8, 4)]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("normal", (100, 0, 100)),
        ("multiply", (100, 0, 0)),
        ("screen", (200, 0, 100)),
        ("difference", (200, 0, 0)),
    ],
)
def test_blend_images(nodes: Nodes, mode: str, expected: tuple[int, int, int]) -> None:
    blended = nodes.image(
        "ImageBlend",
        image1=picture((200, 0, 0)),
        image2=picture((0, 0, 200)),
        blend_factor=0.5,
        blend_mode=mode,
    )

    assert blended.getpixel((0, 0)) == expected


def test_blur_image_mixes_neighbours(nodes: Nodes) -> None:
    blurred = nodes.image("ImageBlur", image=two_colors(), blur_radius=2, sigma=2.0)

    red, _, blue = blurred.getpixel((3, 2))  # type: ignore[misc]
    assert 0 < blue < red < 255


def test_crop_image_stops_at_the_border(nodes: Nodes) -> None:
    cropped = nodes.image("ImageCrop", image=two_colors(), width=512, height=2, x=5, y=1)

    assert cropped.size == (3, 2)
    assert cropped.getpixel((0, 0)) == BLUE


def test_flip_image(nodes: Nodes) -> None:
    flipped = nodes.image("ImageFlip", image=two_colors(), flip_method="y-axis: horizontally")

    assert flipped.getpixel((0, 0)) == BLUE


@pytest.mark.parametrize(
    ("direction", "size", "first"),
    [
        ("right", (14, 4), RED),
        ("left", (14, 4), BLUE),
        ("down", (8, 10), RED),
        ("up", (8, 10), BLUE),
    ],
)
def test_stitch_images(
    nodes: Nodes, direction: str, size: tuple[int, int], first: tuple[int, ...]
) -> None:
    stitched = nodes.image(
        "ImageStitch",
        image1=picture(),
        direction=direction,
        match_image_size=True,
        spacing_width=2,
        spacing_color="green",
        image2=picture(BLUE, (16, 16)) if direction in ("left", "right") else picture(BLUE),
    )

    assert stitched.size == size
    assert stitched.getpixel((0, 0)) == first
    assert (2 * (stitched.height if size[0] == 14 else stitched.width), GREEN) in (
        stitched.getcolors() or []
    )


def test_composite_images_where_the_mask_is_white(nodes: Nodes) -> None:
    shape = Image.new("L", (4, 4), 0)
    shape.paste(255, (0, 0, 2, 4))
    composite = nodes.image(
        "ImageCompositeMasked",
        destination=picture(),
        source=picture(BLUE, (4, 4)),
        x=4,
        y=0,
        resize_source=False,
        mask=(shape,),
    )

    assert [composite.getpixel((x, 0)) for x in (3, 4, 5, 6)] == [RED, BLUE, BLUE, RED]


def test_sizes_and_parts_of_batches(nodes: Nodes) -> None:
    batch = picture() + picture(BLUE) + picture(GREEN)

    assert nodes.values("GetImageSize", image=batch) == (8, 4, 3)
    (repeated,) = nodes.values("RepeatImageBatch", image=batch, amount=2)
    assert len(repeated) == 6
    assert nodes.image("ImageFromBatch", image=batch, batch_index=1, length=1) is batch[1]
    assert nodes.image("ImageFromBatch", image=batch, batch_index=9, length=5) is batch[2]


def test_alpha_can_be_joined_and_split(nodes: Nodes) -> None:
    joined = nodes.image("JoinImageWithAlpha", image=picture(), alpha=mask(255))
    colors, masks = nodes.values("SplitImageWithAlpha", image=(joined,))

    assert joined.getpixel((0, 0)) == (255, 0, 0, 0)
    assert colors[0].getpixel((0, 0)) == RED
    assert masks[0].getpixel((0, 0)) == 255


def test_masks(nodes: Nodes) -> None:
    assert nodes.image("SolidMask", value=0.5, width=3, height=2).getpixel((0, 0)) == 128
    assert nodes.image("MaskToImage", mask=mask(9)).getpixel((0, 0)) == (9, 9, 9)
    assert nodes.image("ImageToMask", image=two_colors(), channel="blue").getpixel((7, 0)) == 255
    assert nodes.image("InvertMask", mask=mask(5)).getpixel((0, 0)) == 250
    found = nodes.image("ImageColorToMask", image=two_colors(), color=0x0000FF)
    assert [found.getpixel((0, 0)), found.getpixel((7, 0))] == [0, 255]


def test_loaded_pictures_give_colors_and_transparency(nodes: Nodes, folders: MediaFolders) -> None:
    Image.new("RGBA", (6, 5), (10, 20, 30, 55)).save(folders.folder("input") / "a.png")
    Image.new("RGB", (6, 5), RED).save(folders.folder("input") / "b.jpg")
    images, masks = nodes.values("LoadImage", image="a.png")
    _, opaque = nodes.values("LoadImage", image="b.jpg")

    assert images[0].getpixel((0, 0)) == (10, 20, 30)
    assert masks[0].getpixel((0, 0)) == 200
    assert (opaque[0].size, opaque[0].getextrema()) == ((64, 64), (0, 0))
    assert nodes.image("LoadImageMask", image="a.png", channel="green").getpixel((0, 0)) == 20
    assert nodes.image("LoadImageMask", image="a.png", channel="alpha").getpixel((0, 0)) == 200


def test_loaded_pictures_are_turned_upright(nodes: Nodes, folders: MediaFolders) -> None:
    image = Image.new("RGB", (6, 4), RED)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folders.folder("input") / "a.jpg", exif=exif)

    assert nodes.values("LoadImage", image="a.jpg")[0][0].size == (4, 6)


def test_saved_pictures_are_numbered_and_hold_the_prompt(nodes: Nodes) -> None:
    first = nodes.saved("SaveImage", "images", images=picture(), filename_prefix="t/%width%x")
    second = nodes.saved("SaveImage", "images", images=picture(BLUE), filename_prefix="t/%width%x")

    assert (first.name, second.name) == ("8x_00001_.png", "8x_00002_.png")
    with Image.open(second) as image:
        assert (image.format, image.size, image.getpixel((0, 0))) == ("PNG", (8, 4), BLUE)
        assert json.loads(image.info["prompt"]) == PROMPT
        assert json.loads(image.info["workflow"]) == {"id": "wf-1"}


def test_a_prefix_cannot_leave_the_output_folder(nodes: Nodes) -> None:
    with pytest.raises(OutsideFolderError):
        nodes.result("SaveImage", images=picture(), filename_prefix="../../x")


def test_previews_lie_in_the_temp_folder(nodes: Nodes, folders: MediaFolders) -> None:
    path = nodes.saved("PreviewImage", "images", images=picture())

    assert path.parent == folders.folder("temp")
    assert path.name.startswith("ComfyUI_temp_")


def test_an_animation_keeps_its_pictures_and_rate(nodes: Nodes) -> None:
    path = nodes.saved(
        "SaveAnimatedWEBP",
        "images",
        images=picture() + picture(BLUE) + picture(GREEN),
        filename_prefix="anim",
        fps=4.0,
        lossless=True,
        quality=80,
        method="default",
    )

    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert (image.format, image.n_frames) == ("WEBP", 3)  # type: ignore[attr-defined]
        image.seek(1)
        assert image.convert("RGB").getpixel((0, 0)) == BLUE
        assert image.info["duration"] == 250
        assert image.getexif()[0x0110] == f"prompt:{json.dumps(PROMPT)}"


def test_audio_is_cut_joined_and_merged(nodes: Nodes) -> None:
    clip = tone([1000] * 8000)

    (cut,) = nodes.values("TrimAudioDuration", audio=clip, start_index=0.25, duration=0.5)
    (end,) = nodes.values("TrimAudioDuration", audio=clip, start_index=-0.25, duration=60.0)
    (joined,) = nodes.values(
        "AudioConcat", audio1=clip, audio2=tone([5] * 4000), direction="before"
    )

    assert (cut.seconds, end.seconds, joined.seconds) == (0.5, 0.25, 1.5)
    assert (joined.values()[0], joined.values()[-1]) == (5, 1000)
    with pytest.raises(ValueError, match="no sound"):
        nodes.values("TrimAudioDuration", audio=clip, start_index=0.0, duration=0.0)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("add", [32767, 20010]),
        ("mean", [30000, 10005]),
        ("subtract", [0, 19990]),
        ("multiply", [27466, 6]),
    ],
)
def test_merged_audio_stays_within_its_range(
    nodes: Nodes, method: str, expected: list[int]
) -> None:
    (merged,) = nodes.values(
        "AudioMerge", audio1=tone([30000, 20000]), audio2=tone([30000, 10]), merge_method=method
    )

    assert list(merged.values()) == expected


def test_merged_audio_is_as_long_as_the_first(nodes: Nodes) -> None:
    (merged,) = nodes.values(
        "AudioMerge",
        audio1=silence(0.5, 44100, 2),
        audio2=tone([100] * 16000, 16000),
        merge_method="add",
    )

    assert (merged.seconds, merged.sample_rate, merged.channels) == (0.5, 44100, 2)
    assert merged.values()[20000] == pytest.approx(100, abs=30)


@pytest.mark.parametrize("quality", ["V0", "128k", "320k"])
def test_saved_mp3_files_open(nodes: Nodes, quality: str) -> None:
    (clip,) = nodes.values("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
    path = nodes.saved(
        "SaveAudioMP3", "audio", audio=clip, filename_prefix="audio/snd", quality=quality
    )

    assert (path.parent.name, path.name) == ("audio", "snd_00001_.mp3")
    with av.open(path) as container:
        assert container.streams.audio[0].codec_context.name in ("mp3", "mp3float")
        assert container.metadata["prompt"] == json.dumps(PROMPT)
    assert read_audio(path).seconds == pytest.approx(1.0, abs=0.06)


def test_saved_flac_files_hold_the_very_samples(nodes: Nodes, folders: MediaFolders) -> None:
    clip = tone(list(range(-3000, 3000, 3)), 22050, 2)
    path = nodes.saved("SaveAudio", "audio", audio=clip, filename_prefix="snd")
    path.rename(folders.folder("input") / "snd.flac")

    assert nodes.values("LoadAudio", audio="snd.flac") == (clip,)


def test_a_saved_video_has_pictures_sound_and_prompt(nodes: Nodes) -> None:
    images = picture(RED, (64, 48)) * 4 + picture(BLUE, (64, 48)) * 4
    (video,) = nodes.values("CreateVideo", images=images, fps=8.0, audio=silence(3.0, 44100, 2))
    path = nodes.saved(
        "SaveVideo",
        "images",
        video=video,
        filename_prefix="video/clip",
        format="auto",
        codec="auto",
    )

    with av.open(path) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.metadata["prompt"] == json.dumps(PROMPT)
    clip = read_video(path)
    assert (len(clip.images), clip.fps, clip.images[0].size) == (8, Fraction(8), (64, 48))
    red, _, blue = clip.images[-1].getpixel((5, 5))  # type: ignore[misc]
    assert red < 30
    assert blue > 200
    assert clip.audio is not None
    # The sound ends with the pictures, but for the encoder's last block.
    assert clip.audio.seconds == pytest.approx(1.0, abs=0.06)


def test_a_loaded_video_is_copied_or_taken_apart(nodes: Nodes, folders: MediaFolders) -> None:
    clip = VideoClip(picture(GREEN, (32, 32)) * 6, Fraction(12), silence(0.5, 44100, 1))
    saving = {"filename_prefix": "clip", "format": "mp4", "codec": "h264"}
    first = nodes.saved("SaveVideo", "images", video=clip, **saving)
    first.rename(folders.folder("input") / "in.mp4")
    (loaded,) = nodes.values("LoadVideo", file="in.mp4")
    copied = nodes.saved("SaveVideo", "images", video=loaded, **saving)
    images, audio, fps = nodes.values("GetVideoComponents", video=loaded)

    assert isinstance(loaded, VideoFile)
    assert (len(images), images[0].size, fps) == (6, (32, 32), 12.0)
    assert audio.seconds == pytest.approx(0.5, abs=0.06)
    again = read_video(copied)
    assert (len(again.images), again.fps) == (6, Fraction(12))
    assert again.audio is not None


def test_a_video_without_sound_has_no_audio(nodes: Nodes) -> None:
    clip = VideoClip(picture(RED, (16, 16)) * 2, Fraction(2))

    assert nodes.values("GetVideoComponents", video=clip) == (clip.images, None, 2.0)


def test_a_video_with_sides_of_odd_length_fails_as_on_a_real_server(nodes: Nodes) -> None:
    clip = VideoClip(picture(RED, (63, 48)), Fraction(1))
    with pytest.raises(av.FFmpegError):
        nodes.result("SaveVideo", video=clip, filename_prefix="x", format="auto", codec="auto")


def test_sound_alone_is_no_video(nodes: Nodes) -> None:
    path = nodes.saved("SaveAudio", "audio", audio=tone([1] * 800), filename_prefix="x")
    with pytest.raises(NoVideoError):
        read_video(path)


def test_text_nodes(nodes: Nodes) -> None:
    assert nodes.values("PrimitiveString", value="x") == ("x",)
    assert nodes.values("StringConcatenate", string_a="a", string_b="b", delimiter="-") == ("a-b",)
    assert nodes.values("StringReplace", string="aXbX", find="X", replace="c") == ("acbc",)
    assert nodes.result("PreviewAny", source="hello").shown == {"text": ["hello"]}
    assert nodes.result("PreviewAny", source=7).shown == {"text": ["7"]}
    assert nodes.result("PreviewAny", source={"a": 1}).shown == {"text": ['{"a": 1}']}


def test_rotate_image_turns_clockwise(nodes: Nodes) -> None:
    upright = nodes.image("ImageRotate", image=two_colors(), rotation="90 degrees")
    assert upright.size == (4, 8)
    assert (upright.getpixel((0, 0)), upright.getpixel((0, 7))) == (RED, BLUE)

    mirrored = nodes.image("ImageRotate", image=two_colors(), rotation="180 degrees")
    assert mirrored.getpixel((0, 0)) == BLUE
    assert nodes.image("ImageRotate", image=two_colors(), rotation="none").size == (8, 4)


def test_resize_and_pad_image_fills_the_frame(nodes: Nodes) -> None:
    framed = nodes.image(
        "ResizeAndPadImage",
        image=picture(RED),
        target_width=16,
        target_height=16,
        padding_color="black",
        interpolation="area",
    )

    assert framed.size == (16, 16)
    assert [framed.getpixel((8, y)) for y in (3, 4, 11, 12)] == [BLACK, RED, RED, BLACK]


def test_masks_are_cropped_and_cut_at_a_threshold(nodes: Nodes) -> None:
    assert nodes.image("CropMask", mask=mask(9), x=6, y=1, width=9, height=2).size == (2, 2)
    for value, expected in ((127, 0), (128, 255)):
        assert (
            nodes.image("ThresholdMask", mask=mask(value), value=0.5).getpixel((0, 0)) == expected
        )


def test_volume_is_in_decibels(nodes: Nodes) -> None:
    (louder,) = nodes.values("AudioAdjustVolume", audio=tone([100, -20000]), volume=20)

    assert list(louder.values()) == [1000, -32768]


def test_preview_audio_is_temporary(nodes: Nodes) -> None:
    path = nodes.saved("PreviewAudio", "audio", audio=silence(0.5, 8000, 1))

    assert path.parent.name == "temp"
    assert read_audio(path).sample_rate == 8000


def levels(image: Image.Image) -> list[list[int]]:
    """The rows of a mask."""
    width, height = image.size
    data = image.tobytes()
    return [list(data[row * width : (row + 1) * width]) for row in range(height)]


def point_mask(size: int, at: tuple[int, int]) -> Batch:
    image = Image.new("L", (size, size), 0)
    image.putpixel(at, 255)
    return (image,)


@pytest.mark.parametrize(("is_tapered", "count"), [(True, 5), (False, 9)])
def test_a_mask_grows_and_shrinks_back(nodes: Nodes, is_tapered: bool, count: int) -> None:
    grown = nodes.image(
        "GrowMask", mask=point_mask(7, (3, 3)), expand=1, tapered_corners=is_tapered
    )
    shrunk = nodes.image("GrowMask", mask=(grown,), expand=-1, tapered_corners=is_tapered)

    assert grown.histogram()[255] == count
    assert shrunk.tobytes() == point_mask(7, (3, 3))[0].tobytes()


def test_a_mask_does_not_shrink_from_the_edges(nodes: Nodes) -> None:
    white = mask(255)
    assert nodes.image("GrowMask", mask=white, expand=-2, tapered_corners=True) == white[0]


def test_feathering_fades_the_sides_that_it_is_told(nodes: Nodes) -> None:
    image = nodes.image("FeatherMask", mask=mask(255, (6, 2)), left=3, top=0, right=2, bottom=0)

    assert levels(image) == [[85, 170, 255, 255, 255, 127]] * 2


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", [80, 80, 80]),
        ("add", [80, 255, 255]),
        ("subtract", [80, 0, 0]),
        ("and", [80, 0, 0]),
        ("or", [80, 255, 255]),
        ("xor", [80, 255, 255]),
    ],
)
def test_masks_are_combined_where_they_overlap(
    nodes: Nodes, operation: str, expected: list[int]
) -> None:
    image = nodes.image(
        "MaskComposite",
        destination=mask(80, (3, 1)),
        source=mask(255, (9, 9)),
        x=1,
        y=0,
        operation=operation,
    )

    assert levels(image) == [expected]


def test_a_mask_beside_another_changes_nothing(nodes: Nodes) -> None:
    image = nodes.image(
        "MaskComposite", destination=mask(80), source=mask(255), x=50, y=0, operation="add"
    )

    assert image == mask(80)[0]


@pytest.mark.parametrize("dither", ["none", "bayer-2"])
def test_a_quantized_picture_has_few_colours(nodes: Nodes, dither: str) -> None:
    gradient = Image.linear_gradient("L").convert("RGB")
    image = nodes.image("ImageQuantize", image=(gradient,), colors=4, dither=dither)

    assert 1 < len(image.getcolors() or []) <= 4


def test_sharpening_makes_an_edge_stronger(nodes: Nodes) -> None:
    grey = Image.new("RGB", (8, 4), (100, 100, 100))
    grey.paste((150, 150, 150), (4, 0, 8, 4))
    image = nodes.image("ImageSharpen", image=(grey,), sharpen_radius=2, sigma=2.0, alpha=1.0)
    darkest, lightest = image.convert("L").getextrema()

    assert (darkest < 100, lightest > 150) == (True, True)


def test_noise_is_the_same_for_the_same_seed(nodes: Nodes) -> None:
    first, again, other = (
        nodes.image("ImageAddNoise", image=picture(), seed=seed, strength=0.5) for seed in (1, 1, 2)
    )

    assert first == again != other
    assert nodes.image("ImageAddNoise", image=picture(), seed=1, strength=0.0) == picture()[0]


def test_a_padded_picture_has_a_border_and_a_mask_of_it(nodes: Nodes) -> None:
    images, masks = nodes.values(
        "ImagePadForOutpaint",
        image=picture(RED, (4, 4)),
        left=2,
        top=0,
        right=0,
        bottom=0,
        feathering=2,
    )

    assert [images[0].getpixel((x, 0)) for x in (0, 2)] == [(127, 127, 127), RED]
    assert levels(masks[0])[0] == [255, 255, 255, 64, 0, 0]


def test_an_animated_png_has_its_frames_and_metadata(nodes: Nodes) -> None:
    path = nodes.saved(
        "SaveAnimatedPNG",
        "images",
        images=picture(RED) + picture(BLUE),
        filename_prefix="film",
        fps=5.0,
        compress_level=4,
    )

    with Image.open(path) as image:
        assert isinstance(image, PngImageFile)
        assert (path.suffix, image.n_frames, image.info["duration"]) == (".png", 2, 200.0)
        assert json.loads(image.text["prompt"]) == PROMPT


@pytest.mark.parametrize(("codec", "expected"), [("vp9", "vp9"), ("av1", "av1")])
def test_a_webm_is_a_film(nodes: Nodes, codec: str, expected: str) -> None:
    path = nodes.saved(
        "SaveWEBM",
        "images",
        images=picture(RED, (64, 64)) * 4,
        filename_prefix="film",
        codec=codec,
        fps=8.0,
        crf=32.0,
    )

    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (path.suffix, stream.codec_context.codec.canonical_name) == (".webm", expected)
        assert len(list(container.decode(stream))) == 4


def test_an_opus_file_has_the_sound_at_its_own_rate(nodes: Nodes) -> None:
    path = nodes.saved(
        "SaveAudioOpus",
        "audio",
        audio=silence(1.0, 44100, 2),
        filename_prefix="a",
        quality="64k",
    )
    clip = read_audio(path)

    assert (path.suffix, clip.sample_rate, clip.channels) == (".opus", 48000, 2)
    assert clip.seconds == pytest.approx(1.0, abs=0.05)


def test_channels_are_split_and_joined_again(nodes: Nodes) -> None:
    stereo = tone([1, 2, 3, 4], channels=2)
    left, right = nodes.values("SplitAudioChannels", audio=stereo)
    (joined,) = nodes.values("JoinAudioChannels", audio_left=left, audio_right=right)

    assert (list(left.values()), list(right.values())) == ([1, 3], [2, 4])
    assert joined == stereo
    with pytest.raises(ValueError, match="stereo"):
        nodes.values("SplitAudioChannels", audio=left)


def test_a_style_and_a_masked_latent_are_made_of_what_was_given(nodes: Nodes) -> None:
    (vision,) = nodes.values("CLIPVisionLoader", clip_name="a")
    (style,) = nodes.values("StyleModelLoader", style_model_name="b")
    (text,) = nodes.values("CLIPTextEncode", text="a kite", clip=combine("clip"))
    (model,) = nodes.values(
        "LoraLoaderModelOnly", model=combine("m"), lora_name="l", strength_model=1.0
    )

    def styled(color: tuple[int, ...]) -> Ingredient:
        (seen,) = nodes.values(
            "CLIPVisionEncode", clip_vision=vision, image=picture(color), crop="none"
        )
        (result,) = nodes.values(
            "StyleModelApply",
            conditioning=text,
            style_model=style,
            clip_vision_output=seen,
            strength=1.0,
            strength_type="multiply",
        )
        assert isinstance(result, Ingredient)
        return result

    assert styled(RED) == styled(RED) != styled(BLUE)
    assert styled(RED).caption == "a kite"
    assert nodes.values("ConditioningZeroOut", conditioning=text)[0].caption == ""
    assert model != combine("m")
    (latent,) = nodes.values("SetLatentNoiseMask", samples=Latent(picture()), mask=mask(255))
    assert latent == Latent(picture(), mask(255))
    (encoded,) = nodes.values("CLIPLoader", clip_name="c", type="sd3", device="cpu")
    assert isinstance(encoded, Ingredient)
