"""Speed of J and F, compared with the official code (davis2017-evaluation), and whether the figures are equal.

Run: python tests/benchmarks/scoring.py DAVIS2017_EVALUATION [--frames 200] [--repeats 3]

DAVIS2017_EVALUATION is a checkout of that repository; its code requires OpenCV and scikit-image. The masks are drawn at
480x854: ellipses with a ragged contour that cover 1 to 40 per cent of the frame, predicted with an offset. Prints the
frames per second of both on one core, and the largest difference of their figures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.train.evaluation.scoring.davis_measures import score_object

_HEIGHT, _WIDTH = 480, 854


def draw_masks(num_frames: int, *, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw predicted and true masks (T, H, W)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    masks = np.zeros((2, num_frames, _HEIGHT, _WIDTH), dtype=bool)
    for frame in range(num_frames):
        radius = np.sqrt(rng.uniform(0.01, 0.4) * _HEIGHT * _WIDTH / np.pi)
        center = rng.uniform(0.2, 0.8, 2) * (_HEIGHT, _WIDTH)
        for row, offset in enumerate((np.zeros(2), rng.normal(0, 8, 2))):
            y, x = rows - center[0] - offset[0], columns - center[1] - offset[1]
            ragged = 1 + 0.1 * np.sin(9 * np.arctan2(y, x) + rng.uniform(0, 6))
            masks[row, frame] = np.hypot(y, x / 1.5) < radius * ragged / 1.2
    return masks[0], masks[1]


def best_rate(work: Callable[[], Any], num_frames: int, *, repeats: int) -> tuple[float, Any]:
    """Return the largest number of frames per second of some runs, and the result."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return num_frames / min(seconds), result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("official", type=Path, metavar="DAVIS2017_EVALUATION")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    np.bool = np.bool_  # type: ignore[misc]  # The official code uses the name that numpy removed and brought back.
    sys.path.insert(0, str(arguments.official))
    import cv2
    from davis2017.metrics import db_eval_boundary, db_eval_iou  # type: ignore[import-not-found]

    cv2.setNumThreads(1)
    predicted, truth = draw_masks(arguments.frames, seed=0)
    ours, scores = best_rate(
        lambda: score_object(zip(predicted, truth, strict=True)), len(truth), repeats=arguments.repeats
    )
    official, figures = best_rate(
        lambda: (db_eval_iou(truth, predicted), db_eval_boundary(truth, predicted)),
        len(truth),
        repeats=arguments.repeats,
    )
    difference = max(float(np.abs(scores.j - figures[0]).max()), float(np.abs(scores.f - figures[1]).max()))
    print(f"unipixel             {ours:8.1f} frames/s")
    print(f"davis2017-evaluation {official:8.1f} frames/s")
    print(f"ratio {ours / official:.2f}, largest difference {difference:g}")


if __name__ == "__main__":
    main()
