"""Masks of COCO polygons, within ceilings: pycocotools checks nothing and may end the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unipixel.memory.rle import MAX_MASK_PIXELS, decode_rle

MAX_COORDINATE = 100_000
"""Largest distance of a corner from the edges x = 0 and y = 0 of the image, in pixels."""
# Time and memory grow with it; that of a real object is far below.
_MAX_OUTLINE_PIXELS = 1_000_000


def fill_polygons(polygons: Sequence[Any], *, size: tuple[int, int], location: str) -> NDArray[np.bool_]:
    """Fill polygons as COCO does.

    Args:
        polygons: Lists `[x, y, x, y, ...]` of at least three points.
        size: (H, W) of the image.
        location: File and annotation, for error messages.

    Returns:
        (H, W), the union of the polygons.

    Raises:
        ValueError: One has another form, is far outside the image or extremely long, or the image is too large.
    """
    height, width = size
    if not (height > 0 and width > 0 and height * width <= MAX_MASK_PIXELS):
        raise ValueError(f"{location}: a mask has 1 to {MAX_MASK_PIXELS} pixels, got {width} x {height}")
    mask = np.zeros(size, bool)
    for polygon in polygons:
        # One at a time: pycocotools takes a first polygon of four numbers, and with it all others, for boxes.
        (filled,) = coco_mask.frPyObjects([_checked(polygon, location)], height, width)
        mask |= decode_rle({"size": filled["size"], "counts": filled["counts"].decode("ascii")})
    return mask


def _checked(polygon: Any, location: str) -> list[float]:
    is_long_enough = isinstance(polygon, (list, tuple)) and len(polygon) >= 6 and len(polygon) % 2 == 0
    if not is_long_enough or not all(map(_is_coordinate, polygon)):
        raise ValueError(
            f"{location}: a polygon must be at least three points [x, y, x, y, x, y] of at most {MAX_COORDINATE} "
            f"pixels, got {polygon!r:.80}"
        )
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    outline = float(np.abs(np.roll(points, 1, axis=0) - points).max(axis=1).sum())
    if outline > _MAX_OUTLINE_PIXELS:
        raise ValueError(
            f"{location}: the outline of a polygon is {outline:.0f} pixels long, the maximum is {_MAX_OUTLINE_PIXELS}"
        )
    return points.ravel().tolist()


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE
