"""Pictures of a region for a model that takes images only: the image with the region outlined, and a crop of it.

Shape letters: H, W image in pixels.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unipixel.memory.rle import mask_box

MAX_SIDE = 1024
"""Longer side in pixels of a picture that is sent."""
OUTLINE_COLOURS = {"red": (255, 0, 0), "cyan": (0, 255, 255), "yellow": (255, 255, 0), "magenta": (255, 0, 255)}
_MARGIN = 0.25
_MIN_CROP_SIDE = 224
_LINE = 0.004
_QUALITY = 90


def outline_colour(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """Return the name of the colour that differs most from the pixels (H, W, 3) around a region (H, W)."""
    left, top, right, bottom = _enlarged_box(mask, margin=0.1)
    near = pixels[top:bottom, left:right].reshape(-1, 3).astype(np.int64)
    step = max(1, len(near) // 10_000)
    distances = {
        name: np.abs(near[::step] - np.asarray(colour)).sum(axis=1).mean() for name, colour in OUTLINE_COLOURS.items()
    }
    return max(distances, key=lambda name: distances[name])


def outlined_picture(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], *, colour: str) -> str:
    """Return the image with the outline of a region, as a data URL.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        mask: (H, W).
        colour: One of `OUTLINE_COLOURS`.
    """
    image, region = Image.fromarray(pixels), Image.fromarray(mask.astype(np.uint8) * 255)
    scale = min(1.0, MAX_SIDE / max(image.size))
    if scale < 1:
        image, region = _resized(image, scale), _resized(region, scale)
    region = region.point(lambda value: 255 if value else 0)
    # Outside the region, whose own pixels stay visible.
    width = max(2, round(_LINE * max(image.size)))
    line = np.asarray(region.filter(ImageFilter.MaxFilter(2 * width + 1))) > np.asarray(region)
    drawn = np.array(image)
    drawn[line] = OUTLINE_COLOURS[colour]
    return _data_url(Image.fromarray(drawn))


def cropped_picture(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """Return the surroundings of a region without its outline, as a data URL; a small crop is enlarged."""
    left, top, right, bottom = _enlarged_box(mask, margin=_MARGIN)
    image = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    longer = max(image.size)
    scale = min(MAX_SIDE / longer, max(1.0, _MIN_CROP_SIDE / longer))
    return _data_url(image if scale == 1 else _resized(image, scale))


def _enlarged_box(mask: NDArray[np.bool_], *, margin: float) -> tuple[int, int, int, int]:
    """Return the box of a mask, enlarged on each side by a fraction of its longer side."""
    box = mask_box(mask)
    if box is None:
        raise ValueError("a region has at least one pixel")
    added = round(margin * max(box[2] - box[0], box[3] - box[1]))
    height, width = mask.shape
    return max(0, box[0] - added), max(0, box[1] - added), min(width, box[2] + added), min(height, box[3] + added)


def _resized(image: Image.Image, scale: float) -> Image.Image:
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _data_url(image: Image.Image) -> str:
    content = io.BytesIO()
    # Without subsampling, which would blur the colour of the line.
    image.save(content, format="JPEG", quality=_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
