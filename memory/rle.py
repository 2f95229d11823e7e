"""Masks as COCO run lengths, and their boxes.

Shape letters: H, W frame size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

MAX_MASK_PIXELS = 89_478_485
"""Maximum of height times width of a decoded mask: the size above which Pillow warns of a decompression bomb."""


def encode_rle(mask: NDArray[Any]) -> dict[str, Any]:
    """Encode a mask as COCO run lengths.

    Args:
        mask: Array (H, W), non-zero on the object.

    Returns:
        `{"size": [H, W], "counts": str}`, which JSON can store.

    Raises:
        ValueError: The mask is not two-dimensional, or empty in a dimension.
    """
    _check_plane(mask)
    # pycocotools compares raw values, so 1 next to 255 would start a new run.
    rle = coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return {"size": [int(side) for side in mask.shape], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode a mask (H, W) from COCO run lengths, compressed or as a list of counts.

    The run lengths may be untrusted: they are checked first, because pycocotools returns uninitialised
    memory for runs that do not fill the mask.

    Raises:
        ValueError: The mapping has another form, is too large, or its runs do not fill the mask.
    """
    (height, width), runs = _checked_runs(rle)
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def check_rle(rle: Mapping[str, Any]) -> None:
    """Check run lengths without decoding the mask.

    Raises:
        ValueError: `decode_rle` would refuse them.
    """
    _checked_runs(rle)


def mask_box(mask: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Return the tightest box around a mask (H, W), or None if the mask is empty.

    Returns:
        Left, top, right, bottom; right and bottom are one past the last pixel.
    """
    _check_plane(mask)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def rle_area(rle: Mapping[str, Any]) -> int:
    """Return the number of pixels of a mask, from checked run lengths, without decoding it."""
    return int(coco_mask.area(_packed(rle)))


def rle_box(rle: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """Return the same as `mask_box`, from checked run lengths, without decoding the mask."""
    left, top, width, height = (int(value) for value in coco_mask.toBbox(_packed(rle)))
    return (left, top, left + width, top + height) if width and height else None


def _packed(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.encode("ascii")} if isinstance(counts, str) else dict(rle)


def _check_plane(mask: NDArray[Any]) -> None:
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"a mask must be an array (H, W), got {type(mask).__name__}")
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f"a mask must have shape (H, W) with at least one pixel, got {mask.shape}")


def _checked_runs(rle: Mapping[str, Any]) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Parse size and runs, and check that the runs fill the mask."""
    if not isinstance(rle, Mapping):
        raise ValueError(f"run lengths require an object with `size` and `counts`, got {rle!r:.80}")
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(_is_count(side) for side in size):
        raise ValueError(f"run lengths require `size` [H, W] of two integers, got {size!r}")
    height, width = (int(side) for side in size)
    if height < 1 or width < 1 or height * width > MAX_MASK_PIXELS:
        raise ValueError(f"a mask has 1 to {MAX_MASK_PIXELS} pixels, `size` is {height} x {width}")
    if isinstance(counts, str):
        runs = _unpack_counts(counts)
    elif isinstance(counts, (list, tuple)) and all(_is_count(count) for count in counts):
        runs = np.asarray(counts, dtype=np.int64)
    else:
        raise ValueError(
            f"run lengths require `counts` as a compressed string or a list of integers, got {type(counts)}"
        )
    # Each run is checked before the sum, which could overflow to the right value.
    if runs.min(initial=0) < 0 or runs.max(initial=0) > height * width or runs.sum() != height * width:
        raise ValueError(f"run lengths of {len(runs)} runs do not fill a mask of {height} x {width} pixels")
    return (height, width), runs


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) <= MAX_MASK_PIXELS


def _unpack_counts(text: str) -> NDArray[np.int64]:
    """Decode COCO's compressed counts to runs.

    Each character has 5 bits, lowest first, a continuation flag and an offset of 48; from the fourth run
    on, the difference from the second to last run is stored.

    Raises:
        ValueError: A character is out of range, or a run is incomplete or too long.
    """
    codes = np.frombuffer(text.encode("utf-8", errors="replace"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise ValueError(
            "`counts` is not a compressed run-length string: a character is out of range or the end is missing"
        )
    ends = np.flatnonzero((codes & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise ValueError(f"`counts` has a run of {lengths.max()} characters, 8 are enough for any mask")
    bit_positions = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 0x1F) << (5 * bit_positions), starts)
    runs -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
