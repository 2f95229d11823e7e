"""Figures of captions: METEOR and CIDEr of PerBench and of RefCOCOg region captions.

An answer that is missing or empty scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unipixel.train.evaluation.answers.captions import (
    JAVA_METEOR,
    cider,
    clean_perbench_caption,
    clean_region_caption,
    java_meteor,
    nltk_meteor,
    treebank_tokens,
)
from unipixel.train.evaluation.answers.choice_scores import answer_text, list_empty_answers, sample_answer
from unipixel.train.evaluation.scoring.scores import SampleFigures, ScoreProtocol, Scores, score_samples

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile


def measure_caption(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Return NLTK's METEOR of a caption; the published evaluation exchanges caption and reference."""
    _, reference = sample_answer(sample)
    text = clean_perbench_caption(answer_text(prediction))
    first, second = (reference, text) if protocol == "paper" else (text, reference)
    return {"METEOR": nltk_meteor([first], [second])[0], "response": text, "reference": reference}


def zero_caption(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    """Return the figures of a caption that failed."""
    del protocol
    return {"METEOR": 0.0, "response": None, "reference": sample_answer(sample)[1]}


def summarize_captions(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    """Return the mean METEOR, and CIDEr of the set."""
    rows = list(figures.values())
    texts = treebank_tokens([row["response"] or "" for row in rows])
    references = treebank_tokens([row["reference"] for row in rows])
    first, second = (references, texts) if protocol == "paper" else (texts, references)
    return {
        "METEOR": float(np.mean([row["METEOR"] for row in rows])),
        "CIDEr": cider(first, [[text] for text in second]),
    }


def score_region_captions(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score region captions by Meteor 1.5 and CIDEr of the COCO caption evaluation; both protocols are the same."""
    scores = score_samples(
        samples,
        predictions,
        protocol=protocol,
        measure=_measure_region,
        measure_failed=_zero_region,
        summarize=lambda figures, _: {},
    )
    texts = treebank_tokens([row["response"] or "" for row in scores.samples.values()])
    grouped = [_references(sample) for sample in samples]
    tokens = iter(treebank_tokens([text for group in grouped for text in group]))
    references = [[next(tokens) for _ in group] for group in grouped]
    meteor, each = java_meteor(texts, references)
    rows = {name: {**row, "METEOR": value} for (name, row), value in zip(scores.samples.items(), each, strict=True)}
    figures = {"METEOR": meteor, "CIDEr": cider(texts, references)}
    return list_empty_answers(
        replace(scores, figures=figures, samples=rows, others={"variants": {"METEOR": JAVA_METEOR}})
    )


def _measure_region(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    del sample, protocol
    return {"METEOR": 0.0, "response": clean_region_caption(answer_text(prediction))}


def _zero_region(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    del sample, protocol
    return {"METEOR": 0.0, "response": None}


def _references(sample: BenchmarkSample) -> list[str]:
    truth, _ = sample_answer(sample)
    return list(truth.fields["references"])
