"""Metrics of gRefCOCO, whose expressions name any number of objects or none (ReLA, arXiv:2306.00968, section 5).

A sample without target that is recognised has an IoU of 1 and adds nothing to cIoU; one that is not has an IoU of 0,
and its predicted area joins the unions. A sample with a target that is declared to have none has an intersection of 0,
and its union still counts. N-acc is the share of samples without target that are recognised, T-acc the share of the
others that are not declared to have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.train.evaluation.scoring.mask_overlap import MaskOverlap, cumulative_iou, mean_iou, measure_overlap

PRECISION_THRESHOLDS = (0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class GeneralizedScore:
    """Score of one expression.

    Attributes:
        overlap: What it adds to cIoU.
        iou: What it adds to gIoU.
        has_target: Whether the expression names an object.
        is_declared_empty: Whether the model declares that it names none.
    """

    overlap: MaskOverlap
    iou: float
    has_target: bool
    is_declared_empty: bool


def score_generalized(
    predicted: NDArray[Any], truth: NDArray[Any], *, has_target: bool, is_declared_empty: bool | None = None
) -> GeneralizedScore:
    """Score one expression.

    Args:
        predicted: Mask (H, W).
        truth: Union (H, W) of the objects.
        has_target: Whether the expression names an object.
        is_declared_empty: The model's label that nothing matches; None takes an empty mask for it.
    """
    declared = not predicted.any() if is_declared_empty is None else is_declared_empty
    overlap = measure_overlap(predicted, truth)
    if not has_target:
        recognised = MaskOverlap(0, 0) if declared else MaskOverlap(0, overlap.union)
        return GeneralizedScore(recognised, float(declared), has_target, declared)
    if declared:
        return GeneralizedScore(MaskOverlap(0, overlap.union), 0.0, has_target, declared)
    return GeneralizedScore(overlap, overlap.iou, has_target, declared)


def failed_score(truth: NDArray[Any], *, has_target: bool) -> GeneralizedScore:
    """Return the score of a sample that failed: the IoU is 0 and so are its parts of N-acc and T-acc."""
    return GeneralizedScore(MaskOverlap(0, int(np.count_nonzero(truth))), 0.0, has_target, has_target)


def summarize_generalized(scores: Sequence[GeneralizedScore]) -> dict[str, float]:
    """Return cIoU, gIoU, N_acc, T_acc and the precision at IoU 0.7, 0.8 and 0.9, without those that no sample has.

    Raises:
        ValueError: There is no sample.
    """
    with_target = [score for score in scores if score.has_target]
    without = [score for score in scores if not score.has_target]
    shares = {
        "N_acc": [score.is_declared_empty for score in without],
        "T_acc": [not score.is_declared_empty for score in with_target],
        **{f"pr@{limit}": [score.iou > limit for score in with_target] for limit in PRECISION_THRESHOLDS},
    }
    return {
        "cIoU": cumulative_iou([score.overlap for score in scores]),
        "gIoU": mean_iou([score.iou for score in scores]),
        **{name: float(np.mean(values)) for name, values in shares.items() if values},
    }
