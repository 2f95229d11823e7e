"""Figures of PerBench (Pixel-SAIL, arXiv:2504.10465): captions, multiple choice, visual-text segmentation, overall."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unipixel.train.evaluation.answers.caption_scores import measure_caption, summarize_captions, zero_caption
from unipixel.train.evaluation.answers.captions import meteor_variant
from unipixel.train.evaluation.answers.choice_scores import answer_text, list_empty_answers, sample_answer
from unipixel.train.evaluation.answers.choices import contains_answer, judge_choice, option_letters, stated_option
from unipixel.train.evaluation.scoring.mask_overlap import MaskOverlap, match_masks, measure_overlap
from unipixel.train.evaluation.scoring.mask_scores import prediction_masks, sample_masks
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

_MAX_OPTIONS = 4


def score_perbench(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score the tasks that the samples have; with all three also the overall score."""
    tasks = {sample.name: str(sample.fields["task"]) for sample in samples}

    def summarize(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
        summary: dict[str, float] = {}
        for task, summarize_task in _SUMMARIES.items():
            rows = {name: row for name, row in figures.items() if tasks[name] == task}
            summary |= summarize_task(rows, protocol) if rows else {}
        if set(tasks.values()) == set(_SUMMARIES):
            summary["overall"] = overall_score(*(summary[name] for name in ("METEOR", "accuracy", "cIoU", "gIoU")))
        return summary

    scores = score_samples(
        samples, predictions, protocol=protocol, measure=_measure, measure_failed=_zero, summarize=summarize
    )
    variants = {"METEOR": meteor_variant()} if "captions" in tasks.values() else {}
    return list_empty_answers(replace(scores, others={"variants": variants} if variants else {}))


def _measure(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    return _MEASURES[str(sample.fields["task"])](sample, prediction, protocol)


def _zero(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    return _ZEROS[str(sample.fields["task"])](sample, protocol)


def overall_score(meteor: float, accuracy: float, ciou: float, giou: float) -> float:
    """Return the mean of the three tasks, where segmentation is the mean of cIoU and gIoU."""
    return (meteor + accuracy + (ciou + giou) / 2) / 3


def _measure_choice(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Judge an answer; as published, the right answer only has to occur anywhere in it."""
    _, answer = sample_answer(sample)
    text = answer_text(prediction)
    if protocol == "paper":
        return {"answer": answer, "response": text, "verdict": "right" if contains_answer(text, answer) else "wrong"}
    options = sample.options or _MAX_OPTIONS
    letters = option_letters(_MAX_OPTIONS)
    selected, right = (stated_option(each, options) for each in (text, answer))
    if right is None:
        raise ValueError(f"{sample.name}: the annotated answer {answer!r:.80} is none of the options")
    verdict = judge_choice(None if selected is None else letters[selected], letters[right])
    return {"answer": answer, "response": text, "verdict": verdict}


def _zero_choice(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    del protocol
    return {"answer": sample_answer(sample)[1], "response": None, "verdict": "not an option"}


def _summarize_choices(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    del protocol
    return {"accuracy": float(np.mean([row["verdict"] == "right" for row in figures.values()]))}


def _measure_masks(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Compare the masks of an answer with the targets.

    As published, only the first mask is compared with the first target, and an answer without a mask leaves cIoU.
    """
    _, targets = sample_masks(sample)
    count = len(prediction.masks or ())
    if not count:
        raise SampleFaultError("the answer has no mask")
    predicted = prediction_masks(sample, prediction, size=targets.shape[2:], num_objects=count)
    if protocol == "paper":
        overlaps = [measure_overlap(predicted[0, 0], targets[0, 0])]
        ious = [overlaps[0].iou, *[0.0] * (len(targets) - 1)]
    else:
        overlaps = match_masks(list(predicted[:, 0]), list(targets[:, 0]))
        ious = [overlap.iou for overlap in overlaps]
    return _mask_figures(overlaps, ious, prediction.text)


def _zero_masks(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    _, targets = sample_masks(sample)
    union = 0 if protocol == "paper" else int(np.count_nonzero(targets))
    return _mask_figures([MaskOverlap(0, union)], [0.0] * len(targets), None)


def _mask_figures(overlaps: Sequence[MaskOverlap], ious: Sequence[float], text: str | None) -> SampleFigures:
    return {
        "inter": sum(overlap.intersection for overlap in overlaps),
        "union": sum(overlap.union for overlap in overlaps),
        "ious": list(ious),
        "response": text or None,
    }


def _summarize_masks(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    del protocol
    rows = list(figures.values())
    ious = [iou for row in rows for iou in row["ious"]]
    union = sum(row["union"] for row in rows)
    # Without any pixel, cIoU is that of the samples: all empty and found so, or all failed.
    ciou = sum(row["inter"] for row in rows) / union if union else float(np.mean(ious))
    return {"cIoU": ciou, "gIoU": float(np.mean(ious))}


_MEASURES: dict[str, Callable[[BenchmarkSample, Prediction, ScoreProtocol], SampleFigures]] = {
    "captions": measure_caption,
    "mcq": _measure_choice,
    "vres": _measure_masks,
}
_ZEROS: dict[str, Callable[[BenchmarkSample, ScoreProtocol], SampleFigures]] = {
    "captions": zero_caption,
    "mcq": _zero_choice,
    "vres": _zero_masks,
}
_SUMMARIES: dict[str, Callable[[Mapping[str, SampleFigures], ScoreProtocol], dict[str, float]]] = {
    "captions": summarize_captions,
    "mcq": _summarize_choices,
    "vres": _summarize_masks,
}
