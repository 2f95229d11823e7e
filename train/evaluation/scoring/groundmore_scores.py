"""Figures of GroundMoRe: J and F of each question, overall and by type of question."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from unipixel.train.evaluation.scoring.davis_measures import score_object
from unipixel.train.evaluation.scoring.mask_scores import means_of, prediction_masks, sample_masks
from unipixel.train.evaluation.scoring.scores import SampleFigures, ScoreProtocol, score_samples

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction

_TYPES = ("Causal", "Sequential", "Counterfactual", "Descriptive")


def measure_question(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Return J and F of one question.

    The published script derives the file names of truth and prediction from the position of a frame, so that in clips
    whose frames are numbered otherwise it compares other frames, or none; `paper` does the same.
    """
    truth, masks = sample_masks(sample)
    predicted = prediction_masks(sample, prediction, size=masks.shape[2:])
    if protocol == "paper":
        by_name = dict(zip(sample.frames, predicted[0], strict=True))
        empty = np.zeros(masks.shape[2:], dtype=bool)
        predicted = np.stack([by_name.get(name, empty) for name in truth.fields["names_by_index"]])[None]
        masks = truth.fields["masks_by_index"]
    j, f = score_object(zip(predicted[0], masks[0], strict=True)).means
    return {"J": j, "F": f, "type": sample.fields["question_type"]}


def _zero_question(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    del protocol
    return {"J": 0.0, "F": 0.0, "type": sample.fields["question_type"]}


def _summarize(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    del protocol
    rows = list(figures.values())
    summary = means_of(rows)
    for name in _TYPES:
        if of_type := [row for row in rows if row["type"] == name]:
            summary |= means_of(of_type, prefix=f"{name.lower()}_")
    return summary


score_groundmore = partial(score_samples, measure=measure_question, measure_failed=_zero_question, summarize=_summarize)
"""J, F and J&F over all questions and by type."""
