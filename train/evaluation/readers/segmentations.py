"""Masks of COCO annotations: polygons, run lengths, or a list of run lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unipixel.memory.rle import MAX_MASK_PIXELS, check_rle, decode_rle
from unipixel.train.datasets.coco_polygons import fill_polygons

# A polygon has at least three corners.
_MIN_NUMBERS = 6


def decode_segmentation(segmentation: Any, *, size: tuple[int, int], location: str) -> NDArray[np.bool_]:
    """Decode the mask (H, W) of an annotation, the union of its parts.

    Args:
        segmentation: A list of polygons `[x, y, x, y, ...]`, a list of run lengths, run lengths, or None.
        size: (H, W) of the image.
        location: File and annotation, for error messages.

    Raises:
        ValueError: It has another form, or another size than the image.
    """
    height, width = size
    if not (height > 0 and width > 0 and height * width <= MAX_MASK_PIXELS):
        raise ValueError(f"{location}: a mask has 1 to {MAX_MASK_PIXELS} pixels, got {width} x {height}")
    if isinstance(segmentation, Mapping):
        return decode_run_lengths(segmentation, size=size, location=location)
    if segmentation is not None and not isinstance(segmentation, list):
        raise ValueError(f"{location}: a segmentation is polygons or run lengths, got {segmentation!r:.80}")
    mask = np.zeros(size, bool)
    for part in segmentation or []:
        if isinstance(part, Mapping):
            mask |= decode_run_lengths(part, size=size, location=location)
        # Some annotations of COCO contain polygons of one or two points, which have no area.
        elif not isinstance(part, list) or len(part) >= _MIN_NUMBERS:
            mask |= fill_polygons([part], size=size, location=location)
    return mask


def decode_run_lengths(run_lengths: Any, *, size: tuple[int, int] | None, location: str) -> NDArray[np.bool_]:
    """Decode COCO run lengths (H, W), whose counts may be bytes.

    Args:
        run_lengths: `{"size": [H, W], "counts": ...}`.
        size: (H, W) that they must have; None for any.
        location: File and annotation, for error messages.

    Raises:
        ValueError: They are invalid, or of another size.
    """
    plain = plain_run_lengths(run_lengths, location=location)
    if size is not None and tuple(plain["size"]) != tuple(size):
        raise ValueError(f"{location}: the mask has (H, W) = {tuple(plain['size'])}, the image {tuple(size)}")
    return decode_rle(plain)


def plain_run_lengths(run_lengths: Any, *, location: str) -> dict[str, Any]:
    """Check run lengths and return them with counts as text or a list.

    Raises:
        ValueError: They are invalid.
    """
    if not isinstance(run_lengths, Mapping):
        raise ValueError(f"{location}: expected run lengths with `size` and `counts`, got {run_lengths!r:.80}")
    counts = run_lengths.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    plain = {"size": run_lengths.get("size"), "counts": counts}
    try:
        check_rle(plain)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    return plain


def mask_area(run_lengths: Mapping[str, Any]) -> int:
    """Return the number of pixels of run lengths from `plain_run_lengths`, without decoding them."""
    counts = run_lengths["counts"]
    if isinstance(counts, str):
        return int(coco_mask.area({"size": run_lengths["size"], "counts": counts.encode("ascii")}))
    return int(sum(counts[1::2]))
