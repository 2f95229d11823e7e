"""Images of frames and objects for the pages and the API."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.memory.rle import mask_box
from unipixel.output.overlay import PromptMark, draw_overlay, object_color
from unipixel.tracking.types import ObjectMask

_MARGIN = 0.15
_BACKGROUND_BRIGHTNESS = 0.35


def frame_jpeg(
    image: NDArray[np.uint8],
    masks: Mapping[int, NDArray[np.bool_]],
    *,
    prompts: Sequence[PromptMark] = (),
    quality: int = 88,
) -> bytes:
    """Return a frame with its objects and prompts as JPEG.

    Args:
        image: uint8 array (H, W, 3), RGB.
        masks: bool (H, W) by object id.
        prompts: Clicks and boxes on this frame.
        quality: Quality of the JPEG, 1 to 95.

    Raises:
        ValueError: The size of a mask differs from that of the frame.
    """
    objects = {object_id: ObjectMask(mask, 1.0, True) for object_id, mask in masks.items()}
    buffer = io.BytesIO()
    drawn = draw_overlay(image, objects, prompts=prompts) if objects or prompts else image
    Image.fromarray(drawn).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def color_tile(object_id: int, *, size: int = 48) -> NDArray[np.uint8]:
    """Return a tile, uint8 (size, size, 3), in an object's color, for an object without a visible mask."""
    return np.full((size, size, 3), object_color(object_id), dtype=np.uint8)


def crop_object(image: NDArray[np.uint8], mask: NDArray[np.bool_], *, size: int) -> NDArray[np.uint8]:
    """Crop an object from a frame to a square; pixels outside the mask are dimmed.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W), not empty.
        size: Side of the square in pixels.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ValueError: The mask is empty, or the size is below 1.
    """
    box = mask_box(mask)
    if box is None or size < 1:
        raise ValueError(f"a crop needs a mask that is not empty and a size of at least 1 pixel, got {size = }")
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top) * (1 + 2 * _MARGIN)) + 1
    dimmed = np.where(mask[..., None], image, (image * _BACKGROUND_BRIGHTNESS).astype(np.uint8))
    crop_left, crop_top = (left + right - side) // 2, (top + bottom - side) // 2
    # Pillow fills pixels outside the frame with black.
    square = Image.fromarray(dimmed).crop((crop_left, crop_top, crop_left + side, crop_top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
