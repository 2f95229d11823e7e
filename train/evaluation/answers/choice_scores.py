"""Figures of multiple-choice questions: accuracy over all samples and by kind of question.

An answer without the letter of an option counts as wrong. An empty answer is also listed among the samples that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unipixel.train.evaluation.answers.choices import (
    bracketed_letter,
    first_letter,
    judge_choice,
    matches_mvbench,
    stated_option,
)
from unipixel.train.evaluation.scoring.scores import (
    SampleFaultError,
    SampleFigures,
    ScoreProtocol,
    Scores,
    score_samples,
)

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleTruth
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile

EMPTY_ANSWER = "the answer is empty"


def sample_answer(sample: BenchmarkSample) -> tuple[SampleTruth, str]:
    """Return the truth of a sample and the right answer.

    Raises:
        ValueError: The truth has no answer.
    """
    truth = sample.truth() if sample.truth is not None else None
    if truth is None or truth.answer is None:
        raise ValueError(f"{sample.name}: the truth has no answer")
    return truth, truth.answer


def choice_figures(sample: BenchmarkSample, text: str | None, protocol: ScoreProtocol) -> SampleFigures:
    """Return the verdict on an answer; None is that of a sample that failed."""
    truth, answer = sample_answer(sample)
    selected = None
    if text is not None and protocol == "paper":
        selected = first_letter(text, letters=truth.fields["letters"])
    elif text is not None:
        index = stated_option(text, sample.options)
        selected = None if index is None else truth.fields["letters"][index]
    return {"answer": answer, "response": text, "verdict": judge_choice(selected, answer)}


def answer_text(prediction: Prediction) -> str:
    """Return the text of a prediction.

    Raises:
        SampleFaultError: It has none.
    """
    if prediction.text is None:
        raise SampleFaultError("no answer: the prediction has no `text`")
    return prediction.text


def accuracy_figures(figures: Mapping[str, SampleFigures], kinds: Mapping[str, str]) -> dict[str, float]:
    """Return the accuracy over all samples, and that of each kind of question in alphabetical order.

    Args:
        figures: Verdicts by sample.
        kinds: Kind of question by sample.
    """
    return mean_by_kind({name: row["verdict"] == "right" for name, row in figures.items()}, kinds, total="accuracy")


def mean_by_kind(values: Mapping[str, bool], kinds: Mapping[str, str], *, total: str) -> dict[str, float]:
    """Return the share of true values over all samples, under the name `total`, and for each kind."""
    groups: dict[str, list[bool]] = {kind: [] for kind in sorted(set(kinds.values()))}
    for name, value in values.items():
        groups[kinds[name]].append(value)
    return {total: float(np.mean(list(values.values()))), **{kind: float(np.mean(row)) for kind, row in groups.items()}}


def list_empty_answers(scores: Scores) -> Scores:
    """List samples with an empty answer among those that failed, with their figures as they are."""
    empty = {name: EMPTY_ANSWER for name, row in scores.samples.items() if row["response"] == ""}
    return replace(scores, failed={**scores.failed, **empty})


def score_choices(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol, kind: str, second: str
) -> Scores:
    """Score multiple-choice questions.

    Args:
        samples: The samples.
        predictions: The predictions.
        protocol: `paper` reads the first letter as the published code of UniPixel, `honest` the option that is stated.
        kind: Field of a sample with the kind of its question.
        second: Another published rule on the same answers, whose figures are in `others`: `videorefer_repository` or
            `mvbench_repository`.
    """
    kinds = {sample.name: str(sample.fields[kind]) for sample in samples}
    scores = score_samples(
        samples,
        predictions,
        protocol=protocol,
        measure=_measure_choice,
        measure_failed=_zero_choice,
        summarize=lambda figures, _: accuracy_figures(figures, kinds),
    )
    return list_empty_answers(replace(scores, others={second: _SECOND_RULES[second](scores.samples, kinds)}))


def _measure_choice(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    return choice_figures(sample, answer_text(prediction), protocol)


def _zero_choice(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    return choice_figures(sample, None, protocol)


def _by_videorefer(figures: Mapping[str, SampleFigures], kinds: Mapping[str, str]) -> dict[str, Any]:
    verdicts = {name: bracketed_letter(row["response"] or "") == row["answer"] for name, row in figures.items()}
    return {"figures": mean_by_kind(verdicts, kinds, total="average"), "samples": verdicts}


def _by_mvbench(figures: Mapping[str, SampleFigures], kinds: Mapping[str, str]) -> dict[str, Any]:
    verdicts = {name: matches_mvbench(row["response"] or "", row["answer"]) for name, row in figures.items()}
    return {"figures": mean_by_kind(verdicts, kinds, total="accuracy"), "samples": verdicts}


_SECOND_RULES: dict[str, Callable[[Mapping[str, SampleFigures], Mapping[str, str]], dict[str, Any]]] = {
    "videorefer_repository": _by_videorefer,
    "mvbench_repository": _by_mvbench,
}
