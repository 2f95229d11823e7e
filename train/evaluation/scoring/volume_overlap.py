"""Overlap of whole clips: J and F of PixelQA as the published code computes them, on one volume per object.

J is the intersection over union of an object's pixels in all frames, F the harmonic mean of precision and recall of
the same pixels (not of contours), each with 1e-6 in its denominators. An object that is nowhere and predicted nowhere
therefore has 0 in both (UniPixel, eval_pixelqa.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EPSILON = 1e-6


def volume_iou(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the intersection over union of one object's volumes (N, H, W); 1 where both are empty."""
    one, other = predicted.astype(bool), truth.astype(bool)
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0


def volume_scores(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """Return J and F of one object.

    Args:
        predicted: (N, H, W).
        truth: (N, H, W).

    Raises:
        ValueError: The volumes differ in size.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"volumes must have one size, got {predicted.shape} and {truth.shape}")
    one, other = predicted.astype(bool), truth.astype(bool)
    intersection = np.count_nonzero(one & other)
    union = np.count_nonzero(one | other)
    precision = intersection / (np.count_nonzero(one) + _EPSILON)
    recall = intersection / (np.count_nonzero(other) + _EPSILON)
    return intersection / (union + _EPSILON), 2 * precision * recall / (precision + recall + _EPSILON)
