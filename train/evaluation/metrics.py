"""Adds up what was measured and reports means."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unipixel.train.evaluation.davis import contour_accuracy, region_similarity

Key: TypeAlias = "str | tuple[str, str]"


def score_masks(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return J and F of one object over a clip, the means over its frames.

    Args:
        predicted: (N, H, W).
        truth: (N, H, W).
    """
    pairs = list(zip(predicted, truth, strict=True))
    region = float(np.mean([region_similarity(one, other) for one, other in pairs]))
    return region, float(np.mean([contour_accuracy(one, other) for one, other in pairs]))


class MetricAccumulator:
    """Mask scores and right answers by task and kind."""

    def __init__(self) -> None:
        self._masks: dict[Key, list[tuple[float, float]]] = defaultdict(list)
        self._shares: dict[Key, list[float]] = defaultdict(list)

    def masks(self, key: Key, scores: tuple[float, float]) -> None:
        """Note J and F of one object or query."""
        self._masks[key].append(scores)

    def hit(self, key: Key, is_right: bool) -> None:
        """Note an answer."""
        self._shares[key].append(float(is_right))

    def share(self, key: Key, value: float) -> None:
        """Note a probability."""
        self._shares[key].append(value)

    def report(self) -> dict[str, Any]:
        """Return all means, None where nothing was measured."""
        kinds = [key[1] for key in (*self._masks, *self._shares) if isinstance(key, tuple) and key[0] == "pixelqa"]
        return {
            "track": self._mask_figures("track"),
            "segment": self._mask_figures("segment"),
            "pixelqa": {
                kind: {"accuracy": self._mean(("pixelqa", kind)), **self._figures(("pixelqa", kind))}
                for kind in dict.fromkeys(kinds)
            },
            "no_target": {
                "answered_without_mask": self._mean("answered_without_mask"),
                "with_target_answered_with_mask": self._mean("answered_with_mask"),
            },
            "follow_up": {"accuracy": self._mean("follow_up")},
            "prefill": {"unforced": self._mean("unforced"), "fitting": self._mean("fitting")},
            "exchange": self._mean("exchange"),
            "baselines": {
                "random_object": self._mask_figures("random_object"),
                "guessing": self._accuracies("guessing"),
                "text_only": self._accuracies("text_only"),
            },
        }

    def _mask_figures(self, task: str) -> dict[str, dict[str, Any]]:
        return {key[1]: self._figures(key) for key in self._masks if isinstance(key, tuple) and key[0] == task}

    def _accuracies(self, task: str) -> dict[str, float | None]:
        return {key[1]: self._mean(key) for key in self._shares if isinstance(key, tuple) and key[0] == task}

    def _figures(self, key: Key) -> dict[str, Any]:
        scores = self._masks.get(key)
        if not scores:
            return {"J": None, "F": None, "JF": None, "num": 0}
        region, contour = (float(value) for value in np.mean(scores, axis=0))
        rounded = {"J": region, "F": contour, "JF": (region + contour) / 2}
        return {name: round(value, 4) for name, value in rounded.items()} | {"num": len(scores)}

    def _mean(self, key: Key) -> float | None:
        values = self._shares.get(key)
        return round(float(np.mean(values)), 4) if values else None
