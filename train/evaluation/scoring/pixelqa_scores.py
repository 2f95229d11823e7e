"""Figures of PixelQA: masks and answers about the same objects (UniPixel, section 4.2).

Shape letters: O objects, T frames, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unipixel.train.evaluation.answers.choice_scores import answer_text, choice_figures, list_empty_answers
from unipixel.train.evaluation.scoring.davis_measures import score_object
from unipixel.train.evaluation.scoring.mask_scores import prediction_masks, sample_masks
from unipixel.train.evaluation.scoring.scores import SampleFigures, ScoreProtocol, Scores, score_samples
from unipixel.train.evaluation.scoring.volume_overlap import volume_iou, volume_scores

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile


def score_pixelqa(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score masks and answers: J and F as means over all objects, J&F, and the accuracy.

    With `paper`, J and F are those of whole volumes, see `volume_overlap`; with `honest` those of DAVIS, means over
    frames.
    """
    scores = score_samples(
        samples,
        predictions,
        protocol=protocol,
        measure=measure_pixelqa,
        measure_failed=zero_pixelqa,
        summarize=summarize_pixelqa,
    )
    return list_empty_answers(scores)


def measure_pixelqa(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Return J and F of each object, the mean IoU of their volumes, and the verdict on the answer."""
    _, masks = sample_masks(sample)
    text = answer_text(prediction)
    predicted = prediction_masks(sample, prediction, size=masks.shape[2:], num_objects=len(masks))
    pairs = list(zip(predicted, masks, strict=True))
    if protocol == "paper":
        rows = [volume_scores(one, other) for one, other in pairs]
    else:
        rows = [score_object(zip(one, other, strict=True)).means for one, other in pairs]
    j, f = [row[0] for row in rows], [row[1] for row in rows]
    iou = float(np.mean([volume_iou(one, other) for one, other in pairs]))
    return {"J": j, "F": f, "iou": iou, **choice_figures(sample, text, protocol)}


def zero_pixelqa(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    """Return the figures of a sample that failed."""
    _, masks = sample_masks(sample)
    zeros = [0.0] * len(masks)
    return {"J": zeros, "F": zeros, "iou": 0.0, **choice_figures(sample, None, protocol)}


def summarize_pixelqa(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    """Return J, F and J&F over all objects, and the accuracy over all samples."""
    del protocol
    j, f = (float(np.mean([value for row in figures.values() for value in row[name]])) for name in ("J", "F"))
    correct = {name: row["verdict"] == "right" for name, row in figures.items()}
    return {"J": j, "F": f, "JF": (j + f) / 2, "accuracy": float(np.mean(list(correct.values())))}
