"""Figures of referring segmentation in images: RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO and ReasonSeg.

A sample that failed has an intersection of 0, and its truth stays in the unions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from unipixel.train.evaluation.scoring.generalized_referring import (
    GeneralizedScore,
    failed_score,
    score_generalized,
    summarize_generalized,
)
from unipixel.train.evaluation.scoring.mask_overlap import (
    MaskOverlap,
    cumulative_iou,
    is_box_hit,
    mean_iou,
    measure_overlap,
)
from unipixel.train.evaluation.scoring.mask_scores import prediction_masks, sample_masks
from unipixel.train.evaluation.scoring.scores import SampleFigures, ScoreProtocol, Scores, score_samples

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile

_WITHOUT_IGNORED = ("inter_without_ignored", "union_without_ignored")


def measure_image(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Return the overlap of one image sample and, where a box is annotated, whether the mask's box hits it."""
    truth, masks = sample_masks(sample)
    predicted = prediction_masks(sample, prediction, size=masks.shape[2:])[0, 0]
    figures = _overlap_figures(measure_overlap(predicted, masks[0, 0]))
    if truth.box_xyxy is not None:
        figures["hit"] = is_box_hit(predicted, truth.box_xyxy, is_published=protocol == "paper")
    if truth.ignored is not None:
        rest = measure_overlap(predicted, masks[0, 0], ignored=truth.ignored[0])
        figures |= dict(zip(_WITHOUT_IGNORED, (rest.intersection, rest.union), strict=True))
    return figures


def zero_image(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    """Return the figures of an image sample that failed."""
    del protocol
    truth, masks = sample_masks(sample)
    area = int(np.count_nonzero(masks))
    figures = {"inter": 0, "union": area, "iou": 0.0}
    if truth.box_xyxy is not None:
        figures["hit"] = False
    if truth.ignored is not None:
        figures |= dict(zip(_WITHOUT_IGNORED, (0, area), strict=True))
    return figures


def summarize_images(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    """Return cIoU and gIoU and, where boxes are annotated, Acc@0.5."""
    del protocol
    rows = list(figures.values())
    summary = {
        "cIoU": cumulative_iou([MaskOverlap(row["inter"], row["union"]) for row in rows]),
        "gIoU": mean_iou([row["iou"] for row in rows]),
    }
    hits = [row["hit"] for row in rows if "hit" in row]
    return summary | ({"acc@0.5": float(np.mean(hits))} if hits else {})


score_images = partial(score_samples, measure=measure_image, measure_failed=zero_image, summarize=summarize_images)
"""cIoU, gIoU and Acc@0.5 of RefCOCO, RefCOCO+ and RefCOCOg."""


def score_reason_seg(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score ReasonSeg: cIoU and gIoU.

    The published figures count a predicted pixel of a region labelled "ignore" as a false positive, as its code draws
    the region with -1 into bytes, which OpenCV saturates to 0. What they are without these pixels is in `others`.
    """
    scores = score_images(samples, predictions, protocol=protocol)
    overlaps = [MaskOverlap(*(row[name] for name in _WITHOUT_IGNORED)) for row in scores.samples.values()]
    ious = [0.0 if name in scores.failed else item.iou for name, item in zip(scores.samples, overlaps, strict=True)]
    without = {"cIoU": cumulative_iou(overlaps), "gIoU": mean_iou(ious)}
    return replace(scores, others={"without_ignored_pixels": without})


def score_grefcoco(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score gRefCOCO; see `generalized_referring`. Both protocols are the same.

    If a model has a label for "no target", the figures that empty masks alone give are in `others`.
    """
    score = partial(
        score_samples,
        samples,
        predictions,
        protocol=protocol,
        measure_failed=_zero_generalized,
        summarize=_summarize_generalized,
    )
    scores = score(measure=partial(_measure_generalized, has_label=True))
    has_labels = any((found := predictions.get(name)) and found.no_target is not None for name in predictions.names)
    if not has_labels:
        return scores
    without = score(measure=partial(_measure_generalized, has_label=False))
    return replace(scores, others={"no_label_from_empty_masks": dict(without.figures)})


def _measure_generalized(
    sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol, *, has_label: bool
) -> SampleFigures:
    del protocol
    truth, masks = sample_masks(sample)
    if prediction.masks is None and prediction.no_target:
        predicted = np.zeros(masks.shape[2:], bool)
    else:
        predicted = prediction_masks(sample, prediction, size=masks.shape[2:])[0, 0]
    score = score_generalized(
        predicted,
        masks[0, 0],
        has_target=not truth.fields["no_target"],
        is_declared_empty=prediction.no_target if has_label else None,
    )
    return _generalized_figures(score)


def _zero_generalized(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    del protocol
    truth, masks = sample_masks(sample)
    return _generalized_figures(failed_score(masks[0, 0], has_target=not truth.fields["no_target"]))


def _generalized_figures(score: GeneralizedScore) -> SampleFigures:
    return {
        **_overlap_figures(score.overlap),
        "iou": score.iou,
        "no_target": not score.has_target,
        "said_no_target": score.is_declared_empty,
    }


def _summarize_generalized(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    del protocol
    return summarize_generalized(
        [
            GeneralizedScore(
                MaskOverlap(row["inter"], row["union"]), row["iou"], not row["no_target"], row["said_no_target"]
            )
            for row in figures.values()
        ]
    )


def _overlap_figures(overlap: MaskOverlap) -> SampleFigures:
    return {"inter": overlap.intersection, "union": overlap.union, "iou": overlap.iou}
