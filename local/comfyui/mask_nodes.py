"""The mask nodes."""

from collections.abc import Callable

from PIL import Image, ImageChops, ImageOps

from local.comfyui.image_files import read_channel
from local.comfyui.image_values import Batch, match_length, split_color
from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun


def load_image_mask(run: NodeRun, *, image: str, channel: str) -> NodeResult:
    """LoadImageMask: one channel of a picture file."""
    return _masks(read_channel(run.folders.input_path(image), channel))


def make_solid_mask(_run: NodeRun, *, value: float, width: int, height: int) -> NodeResult:
    """SolidMask: one value everywhere."""
    return _masks((Image.new("L", (width, height), round(value * 255)),))


def convert_mask_to_image(_run: NodeRun, *, mask: Batch) -> NodeResult:
    """MaskToImage: the mask in grey."""
    return NodeResult((tuple(picture.convert("RGB") for picture in mask),))


def convert_image_to_mask(_run: NodeRun, *, image: Batch, channel: str) -> NodeResult:
    """ImageToMask: one channel of the picture, as it is."""
    letter = channel[0].upper()
    mode = "RGBA" if letter == "A" else "RGB"
    return _masks(tuple(picture.convert(mode).getchannel(letter) for picture in image))


def invert_mask(_run: NodeRun, *, mask: Batch) -> NodeResult:
    """InvertMask: white becomes black."""
    return _masks(tuple(ImageOps.invert(picture) for picture in mask))


def crop_mask(_run: NodeRun, *, mask: Batch, x: int, y: int, width: int, height: int) -> NodeResult:
    """CropMask: a part, cut short where the mask ends."""
    full_width, full_height = mask[0].size
    left, top = min(x, full_width - 1), min(y, full_height - 1)
    box = (left, top, min(left + width, full_width), min(top + height, full_height))
    return _masks(tuple(picture.crop(box) for picture in mask))


def threshold_mask(_run: NodeRun, *, mask: Batch, value: float) -> NodeResult:
    """ThresholdMask: white above the value, black elsewhere."""
    table = [255 if level / 255 > value else 0 for level in range(256)]
    return _masks(tuple(picture.point(table) for picture in mask))


def convert_color_to_mask(_run: NodeRun, *, image: Batch, color: int) -> NodeResult:
    """ImageColorToMask: white where the picture has exactly this colour."""
    return _masks(tuple(_find_color(picture, color) for picture in image))


def grow_mask(_run: NodeRun, *, mask: Batch, expand: int, tapered_corners: bool) -> NodeResult:
    """GrowMask: white grows by so many pixels, or shrinks by a negative number."""
    return _masks(tuple(_grow(picture, expand, tapered_corners) for picture in mask))


def feather_mask(
    _run: NodeRun, *, mask: Batch, left: int, top: int, right: int, bottom: int
) -> NodeResult:
    """FeatherMask: each side fades to black over so many pixels."""
    width, height = mask[0].size
    across = _ramp(width, left, right).resize((width, height), Image.Resampling.NEAREST)
    down = _ramp(height, top, bottom).transpose(Image.Transpose.TRANSPOSE)
    fade = ImageChops.multiply(across, down.resize((width, height), Image.Resampling.NEAREST))
    return _masks(tuple(ImageChops.multiply(picture, fade) for picture in mask))


def composite_masks(
    _run: NodeRun, *, destination: Batch, source: Batch, x: int, y: int, operation: str
) -> NodeResult:
    """MaskComposite: the source combined with what lies under it."""
    below, above = match_length(destination, source)
    results: list[Image.Image] = []
    for lower, upper in zip(below, above, strict=True):
        box = (x, y, min(x + upper.width, lower.width), min(y + upper.height, lower.height))
        result = lower.copy()
        if box[0] < box[2] and box[1] < box[3]:
            part = upper.crop((0, 0, box[2] - x, box[3] - y))
            result.paste(_OPERATIONS[operation](lower.crop(box), part), box)
        results.append(result)
    return _masks(tuple(results))


def _masks(batch: Batch) -> NodeResult:
    return NodeResult((batch,))


def _find_color(picture: Image.Image, color: int) -> Image.Image:
    wanted = Image.new("RGB", picture.size, split_color(color))
    red, green, blue = ImageChops.difference(picture.convert("RGB"), wanted).split()
    distance = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    # A table, not a function: Pillow would call a function for each of the 256 values anyway.
    return distance.point([255] + [0] * 255)


def _grow(picture: Image.Image, pixels: int, is_tapered: bool) -> Image.Image:
    if pixels < 0:
        # What lies outside counts as white then, so that nothing shrinks from the edges.
        return ImageOps.invert(_grow(ImageOps.invert(picture), -pixels, is_tapered))
    width, height = picture.size
    for _ in range(min(pixels, max(width, height))):
        row = _spread(picture, (1, 0))
        picture = ImageChops.lighter(row, _spread(picture if is_tapered else row, (0, 1)))
    return picture


def _spread(picture: Image.Image, step: tuple[int, int]) -> Image.Image:
    """Return the lightest of a picture and itself moved by a step there and back."""
    (width, height), (x, y) = picture.size, step
    there = picture.crop((x, y, x + width, y + height))
    back = picture.crop((-x, -y, width - x, height - y))
    return ImageChops.lighter(picture, ImageChops.lighter(there, back))


def _ramp(length: int, start: int, end: int) -> Image.Image:
    """Return a row that rises over its first pixels and falls over its last."""
    levels = [255] * length
    for count, places in ((start, range(length)), (end, range(length - 1, -1, -1))):
        steps = min(count, length)
        for step, place in zip(range(steps), places, strict=False):
            levels[place] = levels[place] * (step + 1) // steps
    return Image.frombytes("L", (length, 1), bytes(levels))


_HALF = [0] * 128 + [255] * 128

# The last three know black and white alone.
_OPERATIONS: dict[str, Callable[[Image.Image, Image.Image], Image.Image]] = {
    "multiply": ImageChops.multiply,
    "add": ImageChops.add,
    "subtract": ImageChops.subtract,
    "and": lambda lower, upper: ImageChops.darker(lower.point(_HALF), upper.point(_HALF)),
    "or": lambda lower, upper: ImageChops.lighter(lower.point(_HALF), upper.point(_HALF)),
    "xor": lambda lower, upper: ImageChops.difference(lower.point(_HALF), upper.point(_HALF)),
}

IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "LoadImageMask": load_image_mask,
    "SolidMask": make_solid_mask,
    "MaskToImage": convert_mask_to_image,
    "ImageToMask": convert_image_to_mask,
    "InvertMask": invert_mask,
    "CropMask": crop_mask,
    "ThresholdMask": threshold_mask,
    "ImageColorToMask": convert_color_to_mask,
    "GrowMask": grow_mask,
    "FeatherMask": feather_mask,
    "MaskComposite": composite_masks,
}
