"""Overlap of masks in images: cIoU and gIoU of referring segmentation, and boxes of masks against annotated boxes.

cIoU is the sum of all intersections over the sum of all unions, gIoU the mean over samples of intersection over union,
1 where both masks are empty (LISA, arXiv:2308.00692, section 4.1). Acc@0.5 is the share of samples whose box has an
IoU of at least 0.5 with the annotated one (RefCOCO comprehension). Masks are (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.optimize import linear_sum_assignment

from unipixel.memory.rle import mask_box

_MIN_BOX_IOU = 0.5
# Smaller parts of a predicted mask are removed before its box is taken, in the published evaluation.
_MIN_PUBLISHED_PIXELS = 10


@dataclass(frozen=True, slots=True)
class MaskOverlap:
    """Overlap of a predicted mask with the true one, in pixels.

    Attributes:
        intersection: Pixels in both.
        union: Pixels in either.
    """

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both masks are empty."""
        return self.intersection / self.union if self.union else 1.0


def measure_overlap(
    predicted: NDArray[Any], truth: NDArray[Any], *, ignored: NDArray[Any] | None = None
) -> MaskOverlap:
    """Compare two masks.

    Args:
        predicted: (H, W).
        truth: (H, W).
        ignored: Pixels (H, W) that count neither in the intersection nor in the union.

    Raises:
        ValueError: The masks differ in size.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks must have one size, got {predicted.shape} and {truth.shape}")
    one, other = predicted.astype(bool), truth.astype(bool)
    if ignored is not None:
        counted = ~ignored.astype(bool)
        one, other = one & counted, other & counted
    return MaskOverlap(int(np.count_nonzero(one & other)), int(np.count_nonzero(one | other)))


def cumulative_iou(overlaps: Sequence[MaskOverlap]) -> float:
    """Return cIoU; 1 where no mask has a pixel.

    Raises:
        ValueError: There is no sample.
    """
    _require_samples(overlaps)
    union = sum(overlap.union for overlap in overlaps)
    return sum(overlap.intersection for overlap in overlaps) / union if union else 1.0


def mean_iou(ious: Sequence[float]) -> float:
    """Return gIoU.

    Raises:
        ValueError: There is no sample.
    """
    _require_samples(ious)
    return float(np.mean(ious))


def is_box_hit(mask: NDArray[Any], box_xyxy: Sequence[float], *, is_published: bool = False) -> bool:
    """Return whether the box of a predicted mask has an IoU of at least 0.5 with the annotated box.

    Args:
        mask: (H, W).
        box_xyxy: Left, top, right, bottom in pixels.
        is_published: As in the published evaluation: parts below 10 pixels (connected at sides or corners) are
            removed, and the predicted box ends at its last pixel, one short of the annotated convention.
    """
    box = published_box(mask) if is_published else mask_box(mask)
    return box is not None and box_iou(box, box_xyxy) >= _MIN_BOX_IOU


def published_box(mask: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Return the box that the published evaluation takes of a mask (H, W), or None if no part has 10 pixels."""
    parts, _ = label(mask.astype(bool), structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    kept = sizes >= _MIN_PUBLISHED_PIXELS
    kept[0] = False
    box = mask_box(kept[parts])
    return None if box is None else (box[0], box[1], box[2] - 1, box[3] - 1)


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the intersection over union of two boxes (left, top, right, bottom); 0 if neither has an area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    intersection = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - intersection
    return intersection / union if union > 0 else 0.0


def match_masks(predicted: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]) -> list[MaskOverlap]:
    """Assign predicted masks to targets one to one, so that the sum of IoU is largest; return the overlaps.

    A target without a prediction is compared with an empty mask, and so is a prediction without a target, unless it is
    empty itself.

    Args:
        predicted: Masks (H, W).
        targets: Masks (H, W).
    """
    table = [[measure_overlap(mask, target) for target in targets] for mask in predicted]
    pairs: list[tuple[int, int]] = []
    if predicted and targets:
        rows, columns = linear_sum_assignment([[overlap.iou for overlap in row] for row in table], maximize=True)
        pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    matched = [table[row][column] for row, column in pairs]
    alone = [mask for row, mask in enumerate(predicted) if mask.any() and row not in {pair[0] for pair in pairs}]
    alone += [mask for column, mask in enumerate(targets) if column not in {pair[1] for pair in pairs}]
    return matched + [MaskOverlap(0, int(np.count_nonzero(mask))) for mask in alone]


def _require_samples(samples: Sequence[Any]) -> None:
    if not len(samples):
        raise ValueError("a mean needs at least one sample, got none")
