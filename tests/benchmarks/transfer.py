"""Tracking accuracy of a model on real videos from the first masks, compared with copying these masks to every frame.

Run: python tests/benchmarks/transfer.py FOLDER --model unipixel-nano --json

FOLDER contains a folder per sequence, with frames in `images` and palette masks of the same names in `masks`, as in
DAVIS 2017. These are test data: do not select a model by the results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unipixel.checkpoints.segmenters import load_segmenter
from unipixel.processing.visual_prompts import MaskPrompt
from unipixel.session.video_objects import VideoObjects
from unipixel.train.evaluation.metrics import score_masks


def measure(folder: Path, model: str) -> dict[str, float]:
    """Return J&F of tracking and of copying for one sequence, the means over its objects."""
    ground_truth = np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "masks").glob("*.png"))])
    values = [int(value) for value in np.unique(ground_truth[0]) if value]
    # 255 marks ignored pixels if there are other ids, and is the only object otherwise.
    ids = [value for value in values if value != 255] or values
    scene = VideoObjects(load_segmenter(model), str(folder / "images"), memory_dtype=torch.bfloat16)
    for object_id in ids:
        scene.prompt(object_id, MaskPrompt(ground_truth[0] == object_id, frame_index=0))
    scene.track()
    found = scene.bank.masks_on(range(len(ground_truth)), object_ids=tuple(ids))

    def mean(masks: NDArray[np.bool_], object_id: int) -> float:
        return sum(score_masks(masks, ground_truth == object_id)) / 2

    first = [np.broadcast_to(ground_truth[0] == object_id, ground_truth.shape) for object_id in ids]
    return {
        "tracked": float(np.mean([mean(found[:, row], object_id) for row, object_id in enumerate(ids)])),
        "copied": float(np.mean([mean(first[row], object_id) for row, object_id in enumerate(ids)])),
    }


def main() -> None:
    """Measure every sequence and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="unipixel-nano")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = {
        path.name: measure(path, arguments.model) for path in sorted(arguments.folder.iterdir()) if path.is_dir()
    }
    figures["mean"] = {key: float(np.mean([own[key] for own in figures.values()])) for key in ("tracked", "copied")}
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, own in figures.items():
            print(f"{name}: J&F {own['tracked']:.3f}, copying {own['copied']:.3f}")


if __name__ == "__main__":
    main()
