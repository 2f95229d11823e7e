"""Figures of the DAVIS protocols: semi-supervised, and unsupervised as Ref-DAVIS17 uses it.

Shape letters: O objects, P predicted objects, T frames, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from unipixel.train.evaluation.scoring.davis_measures import ObjectScores, decay_of, recall_of, score_object
from unipixel.train.evaluation.scoring.label_folders import VOID_ID, read_label_image
from unipixel.train.evaluation.scoring.mask_scores import means_of, prediction_masks, sample_masks, score_tracks
from unipixel.train.evaluation.scoring.scores import SampleFaultError, ScoreProtocol, Scores, usable_prediction

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile

_ANNOTATORS = 4


def score_sequences(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score the semi-supervised task (arXiv:1704.00675): the first and the last frame are not scored.

    The figures are means over all objects of all sequences. Both protocols are the same.

    Raises:
        OSError: A mask cannot be read.
        ValueError: There is no sequence.
    """
    del protocol
    objects: dict[str, ObjectScores] = {}
    failed: dict[str, str] = {}
    for sample in samples:
        scores, reason = _score_sequence(sample, predictions)
        objects |= {f"{sample.name}_{number}": score for number, score in enumerate(scores, start=1)}
        if reason is not None:
            failed[sample.name] = reason
    if not objects:
        raise ValueError("the split has no sequence with an object")
    figures: dict[str, float] = {}
    for name, tracks in (
        ("J", [score.j for score in objects.values()]),
        ("F", [score.f for score in objects.values()]),
    ):
        for figure, measure in (("mean", np.mean), ("recall", recall_of), ("decay", decay_of)):
            figures[f"{name}_{figure}"] = float(np.mean([measure(track) for track in tracks]))
    figures["JF"] = (figures["J_mean"] + figures["F_mean"]) / 2
    samples_of = {name: dict(zip("JF", score.means, strict=True)) for name, score in objects.items()}
    return Scores(figures=figures, samples=samples_of, failed=failed)


def _score_sequence(sample: BenchmarkSample, predictions: PredictionFile) -> tuple[list[ObjectScores], str | None]:
    """Return the scores of the objects, and why the sequence failed or None."""
    if sample.problem is not None:
        return [ObjectScores.of([(0.0, 0.0)])], sample.problem
    _, masks = sample_masks(sample)
    scored = masks[:, 1:-1]
    try:
        predicted = _all_objects(sample, usable_prediction(sample, predictions), masks.shape)
    except SampleFaultError as fault:
        return [ObjectScores.of([(0.0, 0.0)] * scored.shape[1])] * len(masks), str(fault)
    return [
        score_object(zip(ours, true, strict=True)) for ours, true in zip(predicted[:, 1:-1], scored, strict=True)
    ], None


def _all_objects(sample: BenchmarkSample, prediction: Prediction, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Decode the masks (O, T, H, W); an object that was not predicted is empty."""
    count = len(prediction.masks or ())
    if count > shape[0]:
        raise SampleFaultError(f"{count} objects predicted, the first frame has {shape[0]}")
    predicted = np.zeros(shape, dtype=bool)
    predicted[:count] = prediction_masks(sample, prediction, size=(shape[2], shape[3]), num_objects=count)
    return predicted


def score_ref_davis(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
) -> Scores:
    """Score Ref-DAVIS17 by expression, and beside it, as `davis_protocol`, as most other publications do.

    There, the objects' masks of each of the four annotators are merged into one label map, which the unsupervised
    evaluation of DAVIS compares with the annotations; the four results are averaged.
    """
    scores = score_tracks(samples, predictions, protocol=protocol)
    davis = _davis_protocol(samples, predictions, scores.failed)
    others = {} if davis is None else {"davis_protocol": davis}
    return Scores(figures=scores.figures, samples=scores.samples, failed=scores.failed, others=others)


def _davis_protocol(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, failed: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return figures of each annotator and their mean; None if the annotations are not there."""
    videos: dict[str, list[BenchmarkSample]] = {}
    for sample in samples:
        videos.setdefault(sample.fields["video"], []).append(sample)
    annotators: list[dict[str, dict[str, float]]] = [{} for _ in range(_ANNOTATORS)]
    for video, expressions in videos.items():
        truth = None if expressions[0].truth is None else expressions[0].truth()
        folder = None if truth is None else truth.fields.get("labels")
        if not isinstance(folder, Path) or not folder.is_dir():
            return None
        labels = np.stack([read_label_image(folder / f"{frame}.png") for frame in expressions[0].frames])
        for annotator, objects in enumerate(annotators):
            merged = _merge(expressions[annotator::_ANNOTATORS], predictions, failed, shape=labels.shape)
            for number, score in enumerate(_score_unsupervised(merged, labels), start=1):
                objects[f"{video}_{number}"] = dict(zip("JF", score.means, strict=True))
    rows = [{**means_of(objects.values()), "objects": objects} for objects in annotators]
    return {"annotators": rows, "figures": means_of(rows)}


def _merge(
    expressions: Sequence[BenchmarkSample],
    predictions: PredictionFile,
    failed: Mapping[str, str],
    *,
    shape: tuple[int, ...],
) -> NDArray[np.bool_]:
    """Merge one annotator's objects into disjoint masks (P, T, H, W): the first object takes a pixel."""
    merged = np.zeros((len(expressions), *shape), dtype=bool)
    is_taken = np.zeros(shape, dtype=bool)
    for row, sample in enumerate(expressions):
        if sample.name not in failed:
            prediction = usable_prediction(sample, predictions)
            merged[row] = prediction_masks(sample, prediction, size=(shape[1], shape[2]))[0] & ~is_taken
            is_taken |= merged[row]
    return merged


def _score_unsupervised(predicted: NDArray[np.bool_], labels: NDArray[np.uint8]) -> list[ObjectScores]:
    """Match predicted masks (P, T, H, W) with the objects of labels (T, H, W) so that the mean J&F is the largest.

    All frames are scored, void pixels are excluded, and the objects are those of the first frame.
    """
    is_void = labels == VOID_ID
    num_objects = int(labels[0][~is_void[0]].max(initial=0))
    missing = np.zeros((max(num_objects - len(predicted), 0), *labels.shape), dtype=bool)
    candidates = np.concatenate([predicted & ~is_void, missing])
    scores = [
        [score_object(zip(candidate, labels == number, strict=True)) for number in range(1, num_objects + 1)]
        for candidate in candidates
    ]
    quality = np.asarray([[sum(score.means) for score in row] for row in scores])
    rows, columns = linear_sum_assignment(-quality)
    matched = {int(column): scores[row][column] for row, column in zip(rows, columns, strict=True)}
    return [matched[number] for number in range(num_objects)]
