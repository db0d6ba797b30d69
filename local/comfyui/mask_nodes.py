"""The mask nodes."""

from PIL import Image, ImageChops, ImageOps

from local.comfyui.image_files import read_channel
from local.comfyui.image_values import Batch, split_color
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


def _masks(batch: Batch) -> NodeResult:
    return NodeResult((batch,))


def _find_color(picture: Image.Image, color: int) -> Image.Image:
    wanted = Image.new("RGB", picture.size, split_color(color))
    red, green, blue = ImageChops.difference(picture.convert("RGB"), wanted).split()
    distance = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    # A table, not a function: Pillow would call a function for each of the 256 values anyway.
    return distance.point([255] + [0] * 255)


IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "LoadImageMask": load_image_mask,
    "SolidMask": make_solid_mask,
    "MaskToImage": convert_mask_to_image,
    "ImageToMask": convert_image_to_mask,
    "InvertMask": invert_mask,
    "CropMask": crop_mask,
    "ThresholdMask": threshold_mask,
    "ImageColorToMask": convert_color_to_mask,
}
