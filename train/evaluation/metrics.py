"""Accumulation of evaluation metrics and their means."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unipixel.train.evaluation.scoring.davis_measures import score_object

Key: TypeAlias = "str | tuple[str, str]"


def score_masks(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return J and F of one object over a clip, the means over its frames.

    Args:
        predicted: (N, H, W).
        truth: (N, H, W).
    """
    return score_object(zip(predicted, truth, strict=True)).means


class MetricAccumulator:
    """Collects mask scores and correct answers by task and kind."""

    def __init__(self) -> None:
        self._masks: dict[Key, list[tuple[float, float]]] = defaultdict(list)
        self._probabilities: dict[Key, list[float]] = defaultdict(list)

    def add_masks(self, key: Key, scores: tuple[float, float]) -> None:
        """Add J and F of one object or query."""
        self._masks[key].append(scores)

    def add_answer(self, key: Key, is_correct: bool) -> None:
        """Add an answer."""
        self._probabilities[key].append(float(is_correct))

    def add_probability(self, key: Key, value: float) -> None:
        """Add a probability."""
        self._probabilities[key].append(value)

    def report(self) -> dict[str, Any]:
        """Return all means, None where nothing was added."""
        kinds = [
            key[1] for key in (*self._masks, *self._probabilities) if isinstance(key, tuple) and key[0] == "pixelqa"
        ]
        return {
            "track": self._mask_means("track"),
            "segment": self._mask_means("segment"),
            "pixelqa": {
                kind: {"accuracy": self._mean(("pixelqa", kind)), **self._mask_mean(("pixelqa", kind))}
                for kind in dict.fromkeys(kinds)
            },
            "regions": self._accuracies("regions"),
            "no_target": {
                "answered_without_mask": self._mean("answered_without_mask"),
                "with_target_answered_with_mask": self._mean("answered_with_mask"),
            },
            "follow_up": {"accuracy": self._mean("follow_up")},
            "prefill": {"generated": self._mean("generated"), "accepted": self._mean("accepted")},
            "exchange": self._mean("exchange"),
            "baselines": {
                "random_object": self._mask_means("random_object"),
                "guessing": self._accuracies("guessing"),
                "text_only": self._accuracies("text_only"),
            },
        }

    def _mask_means(self, task: str) -> dict[str, dict[str, Any]]:
        return {key[1]: self._mask_mean(key) for key in self._masks if isinstance(key, tuple) and key[0] == task}

    def _accuracies(self, task: str) -> dict[str, float | None]:
        return {key[1]: self._mean(key) for key in self._probabilities if isinstance(key, tuple) and key[0] == task}

    def _mask_mean(self, key: Key) -> dict[str, Any]:
        scores = self._masks.get(key)
        if not scores:
            return {"J": None, "F": None, "JF": None, "num": 0}
        region, contour = (float(value) for value in np.mean(scores, axis=0))
        rounded = {"J": region, "F": contour, "JF": (region + contour) / 2}
        return {name: round(value, 4) for name, value in rounded.items()} | {"num": len(scores)}

    def _mean(self, key: Key) -> float | None:
        values = self._probabilities.get(key)
        return round(float(np.mean(values)), 4) if values else None
