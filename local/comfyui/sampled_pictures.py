"""Draws what a sampler makes: a picture that says what it was made with."""

import functools
import hashlib
import textwrap

from PIL import Image, ImageDraw, ImageFont

from local.comfyui.image_values import Batch, match_length, resize_batch
from local.comfyui.model_values import Ingredient, Latent

_SMALLEST_TEXT = 8
_LETTERS_IN_A_LINE = 30
_WHITE = (255, 255, 255)

# Dark enough for white letters.
_BRIGHTEST = 128


def sample_pictures(latent: Latent, made_with: Ingredient) -> Latent:
    """Return the pictures that come of a latent batch; each one of it differs."""
    masks: Batch | None = None
    if latent.noise_mask is not None:
        sized = resize_batch(latent.noise_mask, latent.images[0].size, "bilinear")
        masks = match_length(sized, latent.images)[0]
    sampled: list[Image.Image] = []
    for number, before in enumerate(latent.images):
        base = before.convert("RGB")
        drawn = draw_picture(base.size, f"{made_with.recipe} {number}", made_with.caption)
        mixed = Image.blend(base, drawn, made_with.denoise)
        if masks is not None:
            mixed = Image.composite(mixed, base, masks[number])
        sampled.append(mixed)
    return Latent(tuple(sampled), latent.noise_mask)


def draw_picture(size: tuple[int, int], recipe: str, caption: str) -> Image.Image:
    """Return a picture in the colour of its recipe with as much of its caption as there is room."""
    red, green, blue = (
        value % _BRIGHTEST for value in hashlib.sha256(recipe.encode()).digest()[:3]
    )
    picture = Image.new("RGB", size, (red, green, blue))
    height = max(_SMALLEST_TEXT, size[0] // _LETTERS_IN_A_LINE)
    lines = [
        line
        for paragraph in caption.encode("utf-8", "replace").decode().splitlines()
        for line in textwrap.wrap(paragraph, _LETTERS_IN_A_LINE)
    ]
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines[: size[1] // (2 * height)]):
        corner = (height, height // 2 + 2 * height * number)
        draw.text(corner, line, fill=_WHITE, font=_font(height))
    return picture


@functools.cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)
