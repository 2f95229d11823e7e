"""Figures of a split, and the rule for samples that failed.

A sample without a prediction, with an error, with a missing frame or with a mask of another size has failed. Every
figure of it is that of the worst answer, it stays in every mean, and it is listed with its reason.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile

ScoreProtocol = Literal["honest", "paper"]
"""`paper` computes as the published code does, with its quirks; `honest` without them."""

SampleFigures: TypeAlias = "dict[str, Any]"
MeasureSample: TypeAlias = "Callable[[BenchmarkSample, Prediction, ScoreProtocol], SampleFigures]"
MeasureFailed: TypeAlias = "Callable[[BenchmarkSample, ScoreProtocol], SampleFigures]"
_Measured: TypeAlias = "tuple[SampleFigures, str | None]"
_MeasureChunk: TypeAlias = "Callable[[Sequence[BenchmarkSample]], list[_Measured]]"
Summarize: TypeAlias = "Callable[[Mapping[str, SampleFigures], ScoreProtocol], Mapping[str, float]]"

_num_processes: ContextVar[int] = ContextVar("scoring_processes", default=1)
# A process takes seconds to start: it must have some hundred samples to measure.
_MIN_SAMPLES_PER_PROCESS = 128
_CHUNKS_PER_PROCESS = 4


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
    chunk = partial(
        _measure_chunk, predictions=predictions, protocol=protocol, measure=measure, measure_failed=measure_failed
    )
    figures: dict[str, SampleFigures] = {}
    failed: dict[str, str] = {}
    for sample, (measured, reason) in zip(samples, _measure_all(samples, chunk), strict=True):
        figures[sample.name] = measured
        if reason is not None:
            failed[sample.name] = reason
    return Scores(figures=summarize(figures, protocol), samples=figures, failed=failed)


@contextmanager
def scoring_processes(count: int) -> Iterator[None]:
    """Measure the samples of large splits in several processes within the block; the figures are the same.

    Args:
        count: Number of processes.

    Raises:
        ValueError: It is below 1.
    """
    if count < 1:
        raise ValueError(f"the number of processes must be at least 1, got {count}")
    token = _num_processes.set(count)
    try:
        yield
    finally:
        _num_processes.reset(token)


def _measure_all(samples: Sequence[BenchmarkSample], measure_chunk: _MeasureChunk) -> Iterator[_Measured]:
    """Measure samples in order, in this process or in several."""
    num_processes = min(_num_processes.get(), len(samples) // _MIN_SAMPLES_PER_PROCESS)
    if num_processes < 2:
        for sample in samples:
            yield from measure_chunk([sample])
        return
    size = math.ceil(len(samples) / (num_processes * _CHUNKS_PER_PROCESS))
    chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
    # A fork would copy a process that may use a GPU and several threads.
    with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for measured in pool.map(measure_chunk, chunks):
            yield from measured


def _measure_chunk(
    samples: Sequence[BenchmarkSample],
    *,
    predictions: PredictionFile,
    protocol: ScoreProtocol,
    measure: MeasureSample,
    measure_failed: MeasureFailed,
) -> list[_Measured]:
    return [_measured(sample, predictions, protocol, measure, measure_failed) for sample in samples]


def _measured(
    sample: BenchmarkSample,
    predictions: PredictionFile,
    protocol: ScoreProtocol,
    measure: MeasureSample,
    measure_failed: MeasureFailed,
) -> _Measured:
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
