"""Drawing of labelled polygons (LabelMe, as in ReasonSeg) with OpenCV, whose pixels the published figures count.

The rule is that of LISA (arXiv:2308.00692): points are cut to integers, larger shapes are drawn first, each filled and
with an outline of one pixel. A label that contains "ignore" marks pixels to be ignored, the label "flag" is dropped,
and any other is the target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.rle import MAX_MASK_PIXELS

TARGET, IGNORED = 1, -1
# OpenCV computes edges in 16 fractional bits of 32-bit integers.
_MAX_COORDINATE = 32767


def draw_label_polygons(shapes: Sequence[Any], *, size: tuple[int, int], location: str) -> NDArray[np.int8]:
    """Draw the shapes of one image.

    Args:
        shapes: `{"label": text, "points": [[x, y], ...]}` each, in pixels.
        size: (H, W) of the image.
        location: File, for error messages.

    Returns:
        (H, W): 1 on the target, -1 where pixels are ignored, 0 elsewhere.

    Raises:
        ValueError: A shape has another form, or the image is too large.
        ImportError: OpenCV is not installed.
    """
    height, width = size
    if not 0 < height * width <= MAX_MASK_PIXELS:
        raise ValueError(f"{location}: an image has 1 to {MAX_MASK_PIXELS} pixels, got {width} x {height}")
    if not isinstance(shapes, (list, tuple)):
        raise ValueError(f"{location}: `shapes` must be a list, got {shapes!r:.80}")
    drawn = []
    for number, shape in enumerate(shapes):
        label, points = _checked_shape(shape, location=f"{location}, shape {number}")
        if label.lower() != "flag":
            value = IGNORED if "ignore" in label.lower() else TARGET
            mask = _fill(points, size)
            drawn.append((int(mask.sum()), value, mask))
    image = np.zeros(size, np.int8)
    # numpy's order of equal areas, reversed, is that of the published code.
    for index in np.argsort([area for area, _, _ in drawn])[::-1]:
        _, value, mask = drawn[int(index)]
        image[mask] = value
    return image


def _fill(points: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("polygons require OpenCV: pip install 'unipixel-agent[eval]'") from error
    mask = np.zeros(size, np.uint8)
    cv2.polylines(mask, [points], True, 1, 1)
    cv2.fillPoly(mask, [points], 1)
    return mask.astype(bool)


def _checked_shape(shape: Any, *, location: str) -> tuple[str, NDArray[np.int32]]:
    label = shape.get("label") if isinstance(shape, Mapping) else None
    points = shape.get("points") if isinstance(shape, Mapping) else None
    if not isinstance(label, str) or not isinstance(points, list) or not points:
        raise ValueError(f"{location}: a shape has a `label` and a list of `points`, got {shape!r:.80}")
    for point in points:
        if not isinstance(point, (list, tuple)) or len(point) != 2 or not all(map(_is_coordinate, point)):
            raise ValueError(
                f"{location}: a point is [x, y], each from -{_MAX_COORDINATE} to {_MAX_COORDINATE}, got {point!r:.80}"
            )
    return label, np.asarray(points, np.float64).astype(np.int32)


def _is_coordinate(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= _MAX_COORDINATE
