"""Images and masks as they travel between nodes, and the operations that several nodes share.

An image is an RGB or RGBA picture of Pillow, a mask one in mode L (255 is ComfyUI's 1.0). A batch
is a non-empty tuple. Pictures are never changed in place, since the cache and other nodes hold the
same objects.
"""

from PIL import Image

Batch = tuple[Image.Image, ...]

_RESAMPLING = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize_batch(batch: Batch, size: tuple[int, int], method: str, *, crop: bool = False) -> Batch:
    """Return the batch in another size; with `crop` the middle is kept and nothing is distorted."""
    return tuple(_resize(picture, size, method, crop) for picture in batch)


def match_length(first: Batch, second: Batch) -> tuple[Batch, Batch]:
    """Repeat the last picture of the shorter batch until both are equally long."""
    length = max(len(first), len(second))
    return _extend(first, length), _extend(second, length)


def split_color(color: int) -> tuple[int, int, int]:
    """Return red, green and blue of a number such as 0xFF8000."""
    return (color >> 16) & 0xFF, (color >> 8) & 0xFF, color & 0xFF


def _resize(picture: Image.Image, size: tuple[int, int], method: str, crop: bool) -> Image.Image:
    box = _middle_box(picture.size, size) if crop else None
    return picture.resize(size, _RESAMPLING[method], box=box)


def _middle_box(old: tuple[int, int], new: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest centred part of the old size that has the new size's shape."""
    scale = min(old[0] / new[0], old[1] / new[1])
    width, height = new[0] * scale, new[1] * scale
    left, top = (old[0] - width) / 2, (old[1] - height) / 2
    return left, top, left + width, top + height


def _extend(batch: Batch, length: int) -> Batch:
    return batch + (batch[-1],) * (length - len(batch))
