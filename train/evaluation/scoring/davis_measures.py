"""J and F of masks, as defined by the DAVIS benchmarks (arXiv:1704.00675, section 5).

J is the overlap of two regions (intersection over union), F the agreement of their contours within a tolerance. Masks
are (H, W) arrays, non-zero where the object is. The figures equal those of the official code (davis2017-evaluation) bit
by bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOUNDARY_TOLERANCE = 0.008
"""Tolerance of F as a fraction of the image's diagonal."""

_RECALL_THRESHOLD = 0.5
_DECAY_BINS = 4


def region_similarity(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return J, the intersection over union of two masks (H, W); 1 where both are empty.

    Raises:
        ValueError: The masks differ in size, or are not two-dimensional.
    """
    predicted, truth = _same_size(predicted, truth)
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0


def contour_accuracy(predicted: NDArray[Any], truth: NDArray[Any], *, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Return F, the harmonic mean of the contours' precision and recall.

    A contour pixel is matched where the other contour is within `ceil(tolerance * diagonal)` pixels.

    Args:
        predicted: Mask (H, W).
        truth: Mask (H, W).
        tolerance: Fraction of the diagonal; 1 or more is a radius in pixels.

    Raises:
        ValueError: The masks differ in size, or are not two-dimensional.
    """
    predicted, truth = _same_size(predicted, truth)
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*truth.shape))
    window = _window(predicted | truth)
    contours = [_window_boundary(mask, window) for mask in (predicted, truth)]
    # Rows are followed by empty columns, so that a shift within a row never reaches another one.
    row_bits = contours[0].shape[1] + math.floor(radius)
    bits_p, bits_t = (_as_integer(contour, row_bits) for contour in contours)
    count_p, count_t = bits_p.bit_count(), bits_t.bit_count()
    if count_p == 0 or count_t == 0:
        # Two empty contours agree; a single empty one has a precision or recall of 0.
        return 1.0 if count_p == count_t else 0.0
    precision = (bits_p & _dilate(bits_t, radius, row_bits)).bit_count() / count_p
    recall = (bits_t & _dilate(bits_p, radius, row_bits)).bit_count() / count_t
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the pixels (H, W) that differ from their right, lower or lower right neighbour.

    In the last row only the right neighbour counts, in the last column only the lower one.
    """
    boundary = np.zeros_like(mask)
    window = _window(mask)
    boundary[window] = _window_boundary(mask, window)
    return boundary


def _window_boundary(mask: NDArray[np.bool_], window: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Return the boundary map within a window that contains the mask with a margin of one pixel."""
    seg = mask[window]
    boundary = np.zeros_like(seg)
    boundary[:, :-1] |= seg[:, :-1] ^ seg[:, 1:]
    boundary[:-1] |= seg[:-1] ^ seg[1:]
    boundary[:-1, :-1] |= seg[:-1, :-1] ^ seg[1:, 1:]
    return boundary


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the box around a mask, extended by one pixel within the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2),
        slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2),
    )


def _as_integer(bits: NDArray[np.bool_], row_bits: int) -> int:
    """Return an image (H, W) as one integer, whose shifts and unions cost a few microseconds."""
    padded = np.zeros((bits.shape[0], row_bits), dtype=bool)
    padded[:, : bits.shape[1]] = bits
    return int.from_bytes(np.packbits(padded, bitorder="little").tobytes(), "little")


def _dilate(bits: int, radius: float, row_bits: int) -> int:
    """Dilate an image by a disk; bits outside the image may be set."""
    dilated, row, half_width = 0, bits, 0
    # From the narrowest row of the disk to the widest: each is at least as wide as the one before.
    for offset in range(math.floor(radius), -1, -1):
        while half_width < math.isqrt(math.floor(radius * radius) - offset * offset):
            half_width += 1
            row |= bits << half_width | bits >> half_width
        dilated |= row << offset * row_bits | row >> offset * row_bits
    return dilated


def _same_size(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.ndim != 2 or predicted.shape != truth.shape:
        raise ValueError(f"masks must be (H, W) and of one size, got {predicted.shape} and {truth.shape}")
    return predicted.astype(bool, copy=False), truth.astype(bool, copy=False)


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """J and F of one object in each frame.

    Attributes:
        j: (T,) J of each frame.
        f: (T,) F of each frame.
    """

    j: NDArray[np.float64]
    f: NDArray[np.float64]

    @classmethod
    def of(cls, frames: Sequence[tuple[float, float]]) -> ObjectScores:
        """Collect J and F of each frame.

        Raises:
            ValueError: There is no frame.
        """
        if not frames:
            raise ValueError("an object must have at least one frame to be scored")
        scores = np.asarray(frames, dtype=np.float64)
        return cls(scores[:, 0], scores[:, 1])

    @property
    def means(self) -> tuple[float, float]:
        """Mean J and mean F over the frames."""
        return float(np.mean(self.j)), float(np.mean(self.f))


def score_frame(pair: tuple[NDArray[Any], NDArray[Any]] | None) -> tuple[float, float]:
    """Return J and F of predicted and true mask (H, W) of one frame; None, a frame without prediction, scores 0.

    Raises:
        ValueError: The masks differ in size.
    """
    return (0.0, 0.0) if pair is None else (region_similarity(*pair), contour_accuracy(*pair))


def score_object(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]] | None]) -> ObjectScores:
    """Return J and F of one object in each frame.

    Args:
        pairs: See `score_frame`, of each frame.

    Raises:
        ValueError: Two masks differ in size, or there is no frame.
    """
    return ObjectScores.of([score_frame(pair) for pair in pairs])


def recall_of(values: NDArray[np.float64]) -> float:
    """Return the share of frames above 0.5 (DAVIS 2016, section 5)."""
    return float(np.mean(values > _RECALL_THRESHOLD))


def decay_of(values: NDArray[np.float64]) -> float:
    """Return the mean of the first quarter of the frames less that of the last (DAVIS 2016, section 5).

    The quarters share their border frames, as in the official code; a clip of fewer than four frames has quarters of
    single frames.
    """
    edges = np.round(np.linspace(1, len(values), _DECAY_BINS + 1) + 1e-10).astype(int) - 1
    quarters = [values[edges[index] : edges[index + 1] + 1] for index in (0, _DECAY_BINS - 1)]
    return float(np.mean(quarters[0]) - np.mean(quarters[1]))
