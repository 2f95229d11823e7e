"""Figures of predicted masks over time: J, F, J&F, and A and R of ReVOS.

Shape letters: O objects, T frames, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.rle import decode_rle
from unipixel.train.evaluation.scoring.davis_measures import score_object
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

# ReVOS: values of `type_id`; others enter no mean.
_REVOS_GROUPS = {0: "referring", 1: "reasoning"}
_REVOS_FIGURES = ("J", "F", "A", "R")


def prediction_masks(
    sample: BenchmarkSample, prediction: Prediction, *, size: tuple[int, int], num_objects: int = 1
) -> NDArray[np.bool_]:
    """Decode the masks (O, T, H, W) of a prediction.

    Raises:
        SampleFaultError: The number of objects or the size differs, a frame is missing, or run lengths are broken.
    """
    objects = prediction.masks or ()
    if len(objects) != num_objects:
        raise SampleFaultError(f"{len(objects)} object(s) predicted, {num_objects} expected")
    masks = np.zeros((num_objects, len(sample.frames), *size), dtype=bool)
    for row, frames in enumerate(objects):
        for column, name in enumerate(sample.frames):
            if name not in frames:
                raise SampleFaultError(f"frame {name} is missing")
            masks[row, column] = _frame_mask(frames[name], name=name, size=size)
    return masks


def _frame_mask(entry: Any, *, name: str, size: tuple[int, int]) -> NDArray[np.bool_] | bool:
    """Decode the mask of a frame; False stands for an empty one."""
    if entry is None:
        return False
    try:
        mask = decode_rle(entry)
    except (ValueError, AttributeError, TypeError) as error:
        raise SampleFaultError(f"frame {name}: the run lengths are broken ({error})") from error
    if mask.shape != size:
        raise SampleFaultError(f"frame {name}: the mask has {_shown(mask.shape)} pixels, the frame {_shown(size)}")
    return mask


def _shown(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


def sample_masks(sample: BenchmarkSample) -> tuple[SampleTruth, NDArray[np.bool_]]:
    """Return the truth of a sample, and its masks (O, T, H, W).

    Raises:
        ValueError: The truth is on a server, or has no masks.
        OSError: It cannot be read.
    """
    if sample.truth is None:
        raise ValueError(f"{sample.name}: only a server has the truth of this split: write a --submission instead")
    truth = sample.truth()
    if truth.masks is None:
        raise ValueError(f"{sample.name}: the truth has no masks")
    return truth, truth.masks


def measure_track(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Return J and F of the one object that a sample asks for, means over its frames."""
    del protocol
    _, masks = sample_masks(sample)
    predicted = prediction_masks(sample, prediction, size=masks.shape[2:])
    j, f = score_object(zip(predicted[0], masks[0], strict=True)).means
    return {"J": j, "F": f}


def zero_track(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    """Return the figures of a sample that failed."""
    del sample, protocol
    return {"J": 0.0, "F": 0.0}


def mean_track(figures: Mapping[str, SampleFigures], protocol: ScoreProtocol) -> dict[str, float]:
    """Return mean J, mean F and their mean over samples."""
    del protocol
    return means_of(figures.values())


def means_of(figures: Iterable[SampleFigures], *, prefix: str = "") -> dict[str, float]:
    """Return mean J, mean F and their mean J&F, called `JF`, with a prefix for a group of samples."""
    rows = list(figures)
    j, f = (float(np.mean([row[name] for row in rows])) for name in ("J", "F"))
    return {f"{prefix}J": j, f"{prefix}F": f, f"{prefix}JF": (j + f) / 2}


score_tracks = partial(score_samples, measure=measure_track, measure_failed=zero_track, summarize=mean_track)
"""J, F and J&F of referring segmentation in videos: each expression is a sample (MeViS and others)."""


def score_revos(samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol) -> Scores:
    """Score ReVOS (VISA, arXiv:2407.11325): J, F, accuracy A and robustness R, by kind of expression.

    The overall figures are the means of the referring and the reasoning mean.
    """
    groups = {sample.name: _revos_group(sample) for sample in samples}
    return score_samples(
        samples,
        predictions,
        protocol=protocol,
        measure=measure_revos,
        measure_failed=_zero_revos,
        summarize=partial(_summarize_revos, groups=groups),
    )


def _revos_group(sample: BenchmarkSample) -> str | None:
    kind = sample.fields.get("type_id")
    if not isinstance(kind, int):
        raise ValueError(f"{sample.name}: the field `type_id` must be 0 (referring) or 1 (reasoning), got {kind!r}")
    return _REVOS_GROUPS.get(kind)


def measure_revos(sample: BenchmarkSample, prediction: Prediction, protocol: ScoreProtocol) -> SampleFigures:
    """Return J, F, A and R of one expression.

    A is the share of pixels where truth and prediction agree, R `max(0, 1 - false positives / foreground)` of a frame,
    with all annotated objects of the clip as foreground; both are means over frames.
    """
    truth, masks = sample_masks(sample)
    predicted = prediction_masks(sample, prediction, size=masks.shape[2:])[0]
    j, f = score_object(zip(predicted, masks[0], strict=True)).means
    if truth.foreground is None:
        raise ValueError(f"{sample.name}: the truth has no foreground")
    if protocol == "paper":
        # The published script adds the masks of objects as bytes and compares the sum with predictions of 0 and 255:
        # no pixel of an object ever agrees, and a false positive weighs 255. Where k objects overlap, the product
        # (1 - k) * 255 wraps to k - 1.
        counts = np.asarray(truth.fields["object_counts"])
        agreement = (counts == 0) & ~predicted
        weights = np.where(counts == 0, 255, counts.astype(np.int64) - 1) * predicted
        foreground = np.asarray(truth.fields["foreground_counts"])
    else:
        agreement = masks[0] == predicted
        weights = predicted & ~masks[0]
        foreground = truth.foreground
    robustness = np.maximum(1 - weights.sum(axis=(1, 2)) / (foreground.sum(axis=(1, 2)) + 1e-6), 0)
    return {"J": j, "F": f, "A": float(agreement.mean()), "R": float(robustness.mean())}


def _zero_revos(sample: BenchmarkSample, protocol: ScoreProtocol) -> SampleFigures:
    del sample, protocol
    return dict.fromkeys(_REVOS_FIGURES, 0.0)


def _summarize_revos(
    figures: Mapping[str, SampleFigures], protocol: ScoreProtocol, *, groups: Mapping[str, str | None]
) -> dict[str, float]:
    summary: dict[str, float] = {}
    found = [group for group in _REVOS_GROUPS.values() if group in groups.values()]
    for group in found:
        rows = [row for name, row in figures.items() if groups[name] == group]
        for figure in _REVOS_FIGURES:
            values = [row[figure] for row in rows]
            if protocol == "paper":
                # The published script rounds the percentages of each expression.
                values = [round(100 * value, 2) / 100 for value in values]
            summary[f"{group}_{figure}"] = float(np.mean(values))
        summary[f"{group}_JF"] = (summary[f"{group}_J"] + summary[f"{group}_F"]) / 2
    for figure in (*_REVOS_FIGURES, "JF"):
        if found:
            summary[figure] = float(np.mean([summary[f"{group}_{figure}"] for group in found]))
    return summary
