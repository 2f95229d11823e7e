"""Choice of the samples that a gallery shows: the best, the worst, and random ones."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unipixel.train.evaluation.scoring.scores import Scores

_SEED = 0
_VERDICTS = {"right": 1.0, "wrong": 0.0, "not an option": 0.0}


@dataclass(frozen=True)
class RankedSample:
    """A sample of a gallery.

    Attributes:
        name: Name of the sample.
        quality: Its figure in [0, 1] or in marks; None where it has none.
    """

    name: str
    quality: float | None


def sample_quality(figures: Mapping[str, Any]) -> float | None:
    """Return one number for the figures of a sample: J&F, IoU, right or wrong, or the mean of its marks.

    Args:
        figures: Figures of the sample, as in `Scores.samples`.
    """
    if "J" in figures and "F" in figures:
        return _mean([figures["J"], figures["F"]])
    for name in ("iou", "IoU"):
        if name in figures:
            return _mean([figures[name]])
    if figures.get("verdict") in _VERDICTS:
        return _VERDICTS[figures["verdict"]]
    return _mean([value for value in figures.values() if _is_number(value)])


def select_samples(names: Sequence[str], scores: Scores, *, count: int) -> dict[str, list[RankedSample]]:
    """Choose samples by their figures; no sample is chosen twice.

    Args:
        names: Names of all samples.
        scores: Scores of the split.
        count: Samples of each group.

    Returns:
        The groups `worst`, `best` and `random`, without empty ones. Failed samples are among the worst.

    Raises:
        ValueError: The count is below 1.
    """
    if count < 1:
        raise ValueError(f"--gallery must be at least 1, got {count}")
    ranked = [RankedSample(name, _quality_of(name, scores)) for name in names]
    with_quality = sorted((item for item in ranked if item.quality is not None), key=lambda item: item.quality or 0.0)
    worst = with_quality[:count]
    best = [item for item in with_quality[::-1][:count] if item not in worst]
    rest = [item for item in ranked if item not in worst and item not in best]
    drawn = random.Random(_SEED).sample(rest, min(count, len(rest)))
    groups = {"worst": worst, "best": best, "random": drawn}
    return {name: items for name, items in groups.items() if items}


def _quality_of(name: str, scores: Scores) -> float | None:
    if name in scores.samples:
        return sample_quality(scores.samples[name])
    # DAVIS scores each object of a sequence separately, as SEQUENCE_ID.
    own = [sample_quality(figures) for key, figures in scores.samples.items() if key.rpartition("_")[0] == name]
    return _mean([value for value in own if value is not None])


def _mean(values: Sequence[Any]) -> float | None:
    numbers: list[float] = []
    for value in values:
        numbers += [float(item) for item in value] if isinstance(value, list | tuple) else [float(value)]
    finite = [value for value in numbers if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
