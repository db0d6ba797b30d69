"""What models and sampling pass between nodes, of which a simulator has only what it came from."""

import hashlib
from dataclasses import dataclass

from local.comfyui.image_values import Batch


@dataclass(frozen=True)
class Ingredient:
    """Something that a picture is made with and that is not seen: weights, a prompt, noise.

    Equal recipes make equal pictures. The caption is what such a picture says of it, `denoise` how
    much of the picture before is given up, from 0 to 1.
    """

    recipe: str
    caption: str = ""
    denoise: float = 1.0


@dataclass(frozen=True)
class Latent:
    """Pictures in the form that is sampled, here at their full size; white of the mask changes."""

    images: Batch
    noise_mask: Batch | None = None


def combine(*parts: object, caption: str = "", denoise: float = 1.0) -> Ingredient:
    """Return what comes of other ingredients and plain values."""
    recipe = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return Ingredient(recipe, caption, denoise)
