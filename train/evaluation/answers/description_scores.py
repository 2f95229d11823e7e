"""Figures of VideoRefer-Bench-D: four marks of 0 to 5 that a judge gives each description, and their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unipixel.train.evaluation.answers.choice_scores import EMPTY_ANSWER
from unipixel.train.evaluation.answers.judge_marks import (
    DIMENSIONS,
    parse_marks,
    parse_marks_strictly,
    summarize_marks,
)
from unipixel.train.evaluation.scoring.scores import (
    SampleFaultError,
    SampleFigures,
    ScoreProtocol,
    Scores,
    score_samples,
)

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile


def score_descriptions(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score descriptions from the judge's replies that are stored with the predictions.

    With `paper`, a mark that is not written as `N. NAME: MARK` leaves the mean of its dimension; with `honest` other
    usual forms are read too, and a mark that is still missing counts 0. Samples without a mark are listed.
    """
    scores = score_samples(
        samples,
        predictions,
        protocol=protocol,
        measure=_measure,
        measure_failed=_zero_marks,
        summarize=_summarize,
    )
    counts = {name: sum(name in row for row in scores.samples.values()) for name in DIMENSIONS}
    missing = {
        name: f"the judge's reply has no mark for {', '.join(absent)}"
        for name, row in scores.samples.items()
        if (absent := [dimension for dimension in DIMENSIONS if dimension not in row])
    }
    return replace(scores, failed={**missing, **scores.failed}, others={"counts": counts})


def _measure(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    del sample
    if prediction.text == "":
        raise SampleFaultError(EMPTY_ANSWER)
    if prediction.judge is None:
        raise SampleFaultError("no reply of a judge: configure one with --judge-url and --judge-model")
    parse = parse_marks if protocol == "paper" else parse_marks_strictly
    return dict(parse(prediction.judge))


def _zero_marks(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    del sample, protocol
    return dict.fromkeys(DIMENSIONS, 0.0)


def _summarize(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    return summarize_marks(list(figures.values()), is_missing_zero=protocol == "honest")
