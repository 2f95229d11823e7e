"""Small pictures of objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.memory.rle import mask_box

_MARGIN = 0.15
_DIMMED = 0.35


def crop_object(image: NDArray[np.uint8], mask: NDArray[np.bool_], *, size: int) -> NDArray[np.uint8]:
    """Cut an object out of a frame as a square; what is not the object is dimmed.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W), not empty.
        size: Side of the square in pixels.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ValueError: The mask is empty, or the size below 1.
    """
    box = mask_box(mask)
    if box is None or size < 1:
        raise ValueError(f"a picture of an object needs a mask and a size of at least 1 pixel, got size {size}")
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top) * (1 + 2 * _MARGIN)) + 1
    shown = np.where(mask[..., None], image, (image * _DIMMED).astype(np.uint8))
    corner_x, corner_y = (left + right - side) // 2, (top + bottom - side) // 2
    # Pillow fills what lies outside the frame with black.
    square = Image.fromarray(shown).crop((corner_x, corner_y, corner_x + side, corner_y + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
