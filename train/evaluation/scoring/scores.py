"""Figures of a split, and the rule for samples that failed.

A sample without a prediction, with an error, with a missing frame or with a mask of another size has failed. Every
figure of it is that of the worst answer, it stays in every mean, and it is listed with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile

ScoreProtocol = Literal["honest", "paper"]
"""`paper` computes as the published code does, with its quirks; `honest` without them."""

SampleFigures: TypeAlias = "dict[str, Any]"
MeasureSample: TypeAlias = "Callable[[BenchmarkSample, Prediction, ScoreProtocol], SampleFigures]"
MeasureFailed: TypeAlias = "Callable[[BenchmarkSample, ScoreProtocol], SampleFigures]"
Summarize: TypeAlias = "Callable[[Mapping[str, SampleFigures], ScoreProtocol], Mapping[str, float]]"


class SampleFaultError(ValueError):
    """A prediction cannot be scored; the message is the reason that is listed."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of a split.

    Attributes:
        figures: Figures of the whole split, fractions of 1 (or marks), by name.
        samples: Figures of each sample before any rounding, by sample name, in the order of the split.
        failed: Reason by name, of the samples that failed.
        others: Further results on the same predictions, such as another protocol's figures, by name.
    """

    figures: Mapping[str, float]
    samples: Mapping[str, SampleFigures]
    failed: Mapping[str, str]
    others: Mapping[str, Any] = field(default_factory=dict)


def score_samples(
    samples: Sequence[BenchmarkSample],
    predictions: PredictionFile,
    *,
    protocol: ScoreProtocol,
    measure: MeasureSample,
    measure_failed: MeasureFailed,
    summarize: Summarize,
) -> Scores:
    """Score each sample by itself, one at a time, and summarize.

    A row of the table binds the three functions with `functools.partial`.

    Args:
        samples: The samples of the split.
        predictions: The predictions.
        protocol: How to compute.
        measure: Figures of one sample; it raises SampleFaultError for a prediction that cannot be scored.
        measure_failed: Figures of a sample that failed.
        summarize: Figures of the split from those of its samples.

    Raises:
        OSError: A file of the truth cannot be read.
        ValueError: The truth has another form, or there is no sample.
    """
    if not samples:
        raise ValueError("the split has no sample")
    figures: dict[str, SampleFigures] = {}
    failed: dict[str, str] = {}
    for sample in samples:
        figures[sample.name], reason = _measured(sample, predictions, protocol, measure, measure_failed)
        if reason is not None:
            failed[sample.name] = reason
    return Scores(figures=summarize(figures, protocol), samples=figures, failed=failed)


def _measured(
    sample: BenchmarkSample,
    predictions: PredictionFile,
    protocol: ScoreProtocol,
    measure: MeasureSample,
    measure_failed: MeasureFailed,
) -> tuple[SampleFigures, str | None]:
    """Return the figures of a sample, and why it failed or None."""
    try:
        return measure(sample, usable_prediction(sample, predictions), protocol), None
    except SampleFaultError as fault:
        return measure_failed(sample, protocol), str(fault)


def usable_prediction(sample: BenchmarkSample, predictions: PredictionFile) -> Prediction:
    """Return the prediction for a sample.

    Raises:
        SampleFaultError: There is none, the sample cannot be asked, or it failed when it was asked.
    """
    if sample.problem is not None:
        raise SampleFaultError(sample.problem)
    prediction = predictions.get(sample.name)
    if prediction is None:
        raise SampleFaultError("no prediction")
    if prediction.error is not None:
        raise SampleFaultError(f"error: {prediction.error}")
    return prediction
