"""The image nodes that make a picture coarser, sharper, noisier or larger."""

import math
import random

from PIL import Image, ImageDraw, ImageFilter

from local.comfyui.image_values import Batch, split_color
from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun

_GREY = 0x7F7F7F


def quantize_image(_run: NodeRun, *, image: Batch, colors: int, dither: str) -> NodeResult:
    """ImageQuantize: so many colours; any way to dither is Floyd and Steinberg's."""
    way = Image.Dither.NONE if dither == "none" else Image.Dither.FLOYDSTEINBERG
    reduced: list[Image.Image] = []
    for picture in image:
        opaque = picture.convert("RGB")
        # Pillow dithers towards the palette of another picture only.
        palette = opaque.quantize(colors)
        reduced.append(opaque.quantize(palette=palette, dither=way).convert("RGB"))
    return NodeResult((tuple(reduced),))


def sharpen_image(
    _run: NodeRun, *, image: Batch, sharpen_radius: int, sigma: float, alpha: float
) -> NodeResult:
    """ImageSharpen: edges made stronger."""
    sharpen = ImageFilter.UnsharpMask(min(float(sharpen_radius), sigma), round(alpha * 100), 0)
    return NodeResult((tuple(picture.filter(sharpen) for picture in image),))


def pad_image(
    _run: NodeRun, *, image: Batch, left: int, top: int, right: int, bottom: int, feathering: int
) -> NodeResult:
    """ImagePadForOutpaint: a grey border, and a mask of it that fades into the picture."""
    width, height = image[0].size
    size = (left + width + right, top + height + bottom)
    padded: list[Image.Image] = []
    for picture in image:
        frame = Image.new("RGB", size, split_color(_GREY))
        frame.paste(picture.convert("RGB"), (left, top))
        padded.append(frame)
    mask = Image.new("L", size, 255)
    draw = ImageDraw.Draw(mask)
    steps = min(feathering, width // 2, height // 2)
    for step in range(steps + 1):
        # Only a side that has a border fades.
        inner = (
            left + (step if left else 0),
            top + (step if top else 0),
            left + width - 1 - (step if right else 0),
            top + height - 1 - (step if bottom else 0),
        )
        draw.rectangle(inner, fill=round(255 * (1 - step / steps) ** 2) if steps else 0)
    return NodeResult((tuple(padded), (mask,)))


def add_noise(_run: NodeRun, *, image: Batch, seed: int, strength: float) -> NodeResult:
    """ImageAddNoise: the same noise for the same seed."""
    dice = random.Random(seed)
    noisy: list[Image.Image] = []
    for picture in image:
        noise = Image.frombytes("RGB", picture.size, dice.randbytes(3 * math.prod(picture.size)))
        noisy.append(Image.blend(picture.convert("RGB"), noise, strength))
    return NodeResult((tuple(noisy),))


IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "ImageQuantize": quantize_image,
    "ImageSharpen": sharpen_image,
    "ImagePadForOutpaint": pad_image,
    "ImageAddNoise": add_noise,
}
