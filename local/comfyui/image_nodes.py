"""The image nodes."""

from typing import Any

from PIL import Image, ImageChops, ImageFilter, ImageOps

from local.comfyui.image_files import (
    read_image,
    write_animated_png,
    write_animated_webp,
    write_png,
)
from local.comfyui.image_values import Batch, match_length, resize_batch, split_color
from local.comfyui.media_folders import OUTPUT, TEMP, NewFile
from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun

# More than a server could allocate: a real one takes four bytes per value of each pixel.
MAX_BATCH_BYTES = 2**35
BYTES_PER_VALUE = 4

_SAVED_COMPRESSION = 4
_PREVIEW_COMPRESSION = 1

# Pillow turns the other way round.
_QUARTER_TURNS = {
    "90 degrees": Image.Transpose.ROTATE_270,
    "180 degrees": Image.Transpose.ROTATE_180,
    "270 degrees": Image.Transpose.ROTATE_90,
}

_STITCH_COLORS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
}


def load_image(run: NodeRun, *, image: str) -> NodeResult:
    """LoadImage: a picture and the mask of its transparency."""
    return NodeResult(read_image(run.folders.input_path(image)))


def make_empty_image(
    _run: NodeRun, *, width: int, height: int, batch_size: int, color: int
) -> NodeResult:
    """EmptyImage: pictures of one colour. Raises RuntimeError for more than a server's memory."""
    wanted = width * height * batch_size * BYTES_PER_VALUE
    if wanted > MAX_BATCH_BYTES:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            f"memory: you tried to allocate {wanted} bytes. Error code 12 (Cannot allocate memory)"
        )
    return _images((Image.new("RGB", (width, height), split_color(color)),) * batch_size)


def scale_image(
    _run: NodeRun, *, image: Batch, upscale_method: str, width: int, height: int, crop: str
) -> NodeResult:
    """ImageScale: a side of 0 follows the other one, both 0 leaves the picture as it is."""
    old_width, old_height = image[0].size
    if width == 0 and height == 0:
        return _images(image)
    size = (
        width or max(1, round(old_width * height / old_height)),
        height or max(1, round(old_height * width / old_width)),
    )
    return _images(resize_batch(image, size, upscale_method, crop=crop == "center"))


def scale_image_by(
    _run: NodeRun, *, image: Batch, upscale_method: str, scale_by: float
) -> NodeResult:
    """ImageScaleBy: both sides times a factor."""
    width, height = image[0].size
    size = (max(1, round(width * scale_by)), max(1, round(height * scale_by)))
    return _images(resize_batch(image, size, upscale_method))


def invert_image(_run: NodeRun, *, image: Batch) -> NodeResult:
    """ImageInvert: the negative."""
    return _images(tuple(ImageChops.invert(picture) for picture in image))


def batch_images(_run: NodeRun, *, image1: Batch, image2: Batch) -> NodeResult:
    """ImageBatch: both batches after each other, the second in the size of the first."""
    second = image2
    if image2[0].size != image1[0].size:
        second = resize_batch(image2, image1[0].size, "bilinear", crop=True)
    mode = "RGBA" if "RGBA" in (image1[0].mode, second[0].mode) else "RGB"
    return _images(tuple(picture.convert(mode) for picture in image1 + second))


def blend_images(
    _run: NodeRun, *, image1: Batch, image2: Batch, blend_factor: float, blend_mode: str
) -> NodeResult:
    """ImageBlend: the first picture mixed with what the mode makes of both."""
    second = image2
    if image2[0].size != image1[0].size:
        second = resize_batch(image2, image1[0].size, "bicubic", crop=True)
    pairs = zip(*match_length(image1, second), strict=True)
    return _images(
        tuple(
            _blend(lower.convert("RGB"), upper.convert("RGB"), blend_factor, blend_mode)
            for lower, upper in pairs
        )
    )


def blur_image(_run: NodeRun, *, image: Batch, blur_radius: int, sigma: float) -> NodeResult:
    """ImageBlur: a Gaussian blur, no wider than the radius."""
    blur = ImageFilter.GaussianBlur(min(float(blur_radius), sigma))
    return _images(tuple(picture.filter(blur) for picture in image))


def crop_image(
    _run: NodeRun, *, image: Batch, width: int, height: int, x: int, y: int
) -> NodeResult:
    """ImageCrop: a part, cut short where the picture ends."""
    full_width, full_height = image[0].size
    left, top = min(x, full_width - 1), min(y, full_height - 1)
    box = (left, top, min(left + width, full_width), min(top + height, full_height))
    return _images(tuple(picture.crop(box) for picture in image))


def flip_image(_run: NodeRun, *, image: Batch, flip_method: str) -> NodeResult:
    """ImageFlip: upside down, or mirrored."""
    turn = ImageOps.flip if flip_method.startswith("x") else ImageOps.mirror
    return _images(tuple(turn(picture) for picture in image))


def rotate_image(_run: NodeRun, *, image: Batch, rotation: str) -> NodeResult:
    """ImageRotate: by quarter turns, clockwise."""
    turn = _QUARTER_TURNS.get(rotation)
    if turn is None:
        return _images(image)
    return _images(tuple(picture.transpose(turn) for picture in image))


def resize_and_pad_image(
    _run: NodeRun,
    *,
    image: Batch,
    target_width: int,
    target_height: int,
    padding_color: str,
    interpolation: str,
) -> NodeResult:
    """ResizeAndPadImage: as large as the frame allows, in its middle."""
    width, height = image[0].size
    scale = min(target_width / width, target_height / height)
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    corner = ((target_width - size[0]) // 2, (target_height - size[1]) // 2)
    padded = []
    for picture in resize_batch(image, size, interpolation):
        frame = Image.new("RGB", (target_width, target_height), padding_color)
        frame.paste(picture.convert("RGB"), corner)
        padded.append(frame)
    return _images(tuple(padded))


def stitch_images(
    _run: NodeRun,
    *,
    image1: Batch,
    direction: str,
    match_image_size: bool,
    spacing_width: int,
    spacing_color: str,
    image2: Batch | None = None,
) -> NodeResult:
    """ImageStitch: the second picture beside the first, with a bar between them."""
    if image2 is None:
        return _images(image1)
    is_row = direction in ("left", "right")
    second = _fit_to_side(image2, image1[0].size, is_row) if match_image_size else image2
    stitched: list[Image.Image] = []
    for one, other in zip(*match_length(image1, second), strict=True):
        pair = (one, other) if direction in ("right", "down") else (other, one)
        # The bar's width is made even, as ComfyUI does for video encoders.
        bar = spacing_width + spacing_width % 2
        stitched.append(_join(pair, is_row, bar, _STITCH_COLORS[spacing_color]))
    return _images(tuple(stitched))


def composite_images(
    _run: NodeRun,
    *,
    destination: Batch,
    source: Batch,
    x: int,
    y: int,
    resize_source: bool,
    mask: Batch | None = None,
) -> NodeResult:
    """ImageCompositeMasked: the source laid upon the destination where the mask is white."""
    upper = resize_batch(source, destination[0].size, "bilinear") if resize_source else source
    masks = (Image.new("L", upper[0].size, 255),) if mask is None else mask
    lower, upper = match_length(destination, upper)
    masks, _ = match_length(resize_batch(masks, upper[0].size, "bilinear"), lower)
    results: list[Image.Image] = []
    for below, above, shape in zip(lower, upper, masks[: len(lower)], strict=True):
        result = below.copy()
        result.paste(above.convert(below.mode), (x, y), shape)
        results.append(result)
    return _images(tuple(results))


def get_image_size(run: NodeRun, *, image: Batch) -> NodeResult:
    """GetImageSize: width, height and number of pictures, which it also tells."""
    width, height = image[0].size
    run.tell_text(f"width: {width}, height: {height}\n batch size: {len(image)}")
    return NodeResult((*image[0].size, len(image)))


def repeat_image_batch(_run: NodeRun, *, image: Batch, amount: int) -> NodeResult:
    """RepeatImageBatch: the batch several times."""
    return _images(image * amount)


def take_image_from_batch(
    _run: NodeRun, *, image: Batch, batch_index: int, length: int
) -> NodeResult:
    """ImageFromBatch: a part of the batch, never empty."""
    start = min(batch_index, len(image) - 1)
    return _images(image[start : start + length])


def join_image_with_alpha(_run: NodeRun, *, image: Batch, alpha: Batch) -> NodeResult:
    """JoinImageWithAlpha: the mask's black becomes opaque, its white transparent."""
    resized = resize_batch(alpha, image[0].size, "bilinear")
    joined: list[Image.Image] = []
    for picture, mask in zip(image, resized, strict=False):
        result = picture.convert("RGBA")
        result.putalpha(ImageOps.invert(mask))
        joined.append(result)
    return _images(tuple(joined))


def split_image_with_alpha(_run: NodeRun, *, image: Batch) -> NodeResult:
    """SplitImageWithAlpha: the colours, and the transparency as a mask."""
    colors = tuple(picture.convert("RGB") for picture in image)
    masks = tuple(ImageOps.invert(picture.convert("RGBA").getchannel("A")) for picture in image)
    return NodeResult((colors, masks))


def save_image(run: NodeRun, *, images: Batch, filename_prefix: str) -> NodeResult:
    """SaveImage: numbered png files in the output folder."""
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now, images[0].size)
    return _write_pngs(run, images, place, OUTPUT, _SAVED_COMPRESSION)


def preview_image(run: NodeRun, *, images: Batch) -> NodeResult:
    """PreviewImage: png files in the temp folder under a random prefix."""
    place = run.folders.next_file(TEMP, run.temp_prefix(), run.now, images[0].size)
    return _write_pngs(run, images, place, TEMP, _PREVIEW_COMPRESSION)


def save_animated_webp(
    run: NodeRun,
    *,
    images: Batch,
    filename_prefix: str,
    fps: float,
    lossless: bool,
    quality: int,
    method: str,
) -> NodeResult:
    """SaveAnimatedWEBP: one animation of the whole batch."""
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now, images[0].size)
    name = place.name("webp")
    write_animated_webp(
        images,
        place.folder / name,
        run.metadata(),
        fps,
        lossless=lossless,
        quality=quality,
        method=method,
    )
    shown: dict[str, list[Any]] = {"images": [place.listed(name, OUTPUT)], "animated": [True]}
    return NodeResult(shown=shown)


def save_animated_png(
    run: NodeRun, *, images: Batch, filename_prefix: str, fps: float, compress_level: int
) -> NodeResult:
    """SaveAnimatedPNG: one animation of the whole batch."""
    place = run.folders.next_file(OUTPUT, filename_prefix, run.now, images[0].size)
    name = place.name("png")
    write_animated_png(images, place.folder / name, run.metadata(), fps, compress_level)
    shown: dict[str, list[Any]] = {"images": [place.listed(name, OUTPUT)], "animated": [True]}
    return NodeResult(shown=shown)


def _images(batch: Batch) -> NodeResult:
    return NodeResult((batch,))


def _write_pngs(
    run: NodeRun, images: Batch, place: NewFile, folder_type: str, compress_level: int
) -> NodeResult:
    listed: list[dict[str, str]] = []
    for offset, image in enumerate(images):
        run.check_interrupt()
        name = place.name("png", offset)
        write_png(image, place.folder / name, run.metadata(), compress_level)
        listed.append(place.listed(name, folder_type))
    return NodeResult(shown={"images": listed})


def _blend(lower: Image.Image, upper: Image.Image, factor: float, mode: str) -> Image.Image:
    if mode == "normal":
        mixed = upper
    elif mode == "multiply":
        mixed = ImageChops.multiply(lower, upper)
    elif mode == "screen":
        mixed = ImageChops.screen(lower, upper)
    elif mode == "overlay":
        mixed = ImageChops.overlay(lower, upper)
    elif mode == "soft_light":
        mixed = ImageChops.soft_light(lower, upper)
    else:
        # ComfyUI's difference is not the absolute one: what would be negative becomes black.
        mixed = ImageChops.subtract(lower, upper)
    return Image.blend(lower, mixed, factor)


def _fit_to_side(batch: Batch, size: tuple[int, int], is_row: bool) -> Batch:
    """Resize a batch, keeping its shape, until the stitched side has the wanted length."""
    width, height = batch[0].size
    if is_row:
        return resize_batch(batch, (max(1, round(width * size[1] / height)), size[1]), "lanczos")
    return resize_batch(batch, (size[0], max(1, round(height * size[0] / width))), "lanczos")


def _join(
    pair: tuple[Image.Image, Image.Image], is_row: bool, bar: int, color: tuple[int, int, int]
) -> Image.Image:
    first, second = pair
    if is_row:
        size = (first.width + bar + second.width, max(first.height, second.height))
        corner = (first.width + bar, 0)
    else:
        size = (max(first.width, second.width), first.height + bar + second.height)
        corner = (0, first.height + bar)
    mode = "RGBA" if "RGBA" in (first.mode, second.mode) else "RGB"
    joined = Image.new(mode, size, color)
    joined.paste(first, (0, 0))
    joined.paste(second, corner)
    return joined


IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "LoadImage": load_image,
    "EmptyImage": make_empty_image,
    "ImageScale": scale_image,
    "ImageScaleBy": scale_image_by,
    "ImageInvert": invert_image,
    "ImageBatch": batch_images,
    "ImageBlend": blend_images,
    "ImageBlur": blur_image,
    "ImageCrop": crop_image,
    "ImageFlip": flip_image,
    "ImageRotate": rotate_image,
    "ResizeAndPadImage": resize_and_pad_image,
    "ImageStitch": stitch_images,
    "ImageCompositeMasked": composite_images,
    "GetImageSize": get_image_size,
    "RepeatImageBatch": repeat_image_batch,
    "ImageFromBatch": take_image_from_batch,
    "JoinImageWithAlpha": join_image_with_alpha,
    "SplitImageWithAlpha": split_image_with_alpha,
    "SaveImage": save_image,
    "PreviewImage": preview_image,
    "SaveAnimatedWEBP": save_animated_webp,
    "SaveAnimatedPNG": save_animated_png,
}
