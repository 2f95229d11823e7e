"""Synthetic clips written in the layouts of MeViS and ReVOS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unipixel.memory.rle import encode_rle
from unipixel.train.datasets.synthetic import Sample, generate

_FORMS = {
    "mevis": (re.compile(r"Please segment the (.+) in this video\."),),
    "revos": (
        re.compile(r"Please segment the (.+) in this video\."),
        re.compile(r"(.+\?) Please provide the segmentation mask\."),
    ),
}


def samples_with_expressions(benchmark: str, count: int, *, render_size: int, num_frames: int) -> list[Sample]:
    """Draw samples with one object or more, whose question is one that the benchmark's expressions lead to."""

    def draw() -> Iterator[Sample]:
        for seed in range(10_000):
            sample = generate(
                seed, split="test", task="segment/attribute", render_size=render_size, num_frames=num_frames
            )
            if sample.turns[0].target_ids and _expression(benchmark, sample) is not None:
                yield sample

    drawn = draw()
    return [next(drawn) for _ in range(count)]


def _expression(benchmark: str, sample: Sample) -> str | None:
    for form in _FORMS[benchmark]:
        if match := form.fullmatch(sample.turns[0].question):
            return match[1]
    return None


def export_clips(benchmark: str, samples: Sequence[Sample], folder: Path) -> Path:
    """Write samples as a benchmark's data folder; the images are PNG, so that no pixel changes."""
    frames_root = folder / "valid_u/JPEGImages" if benchmark == "mevis" else folder
    videos: dict[str, Any] = {}
    tracks: dict[str, Any] = {}
    foreground: dict[str, Any] = {}
    for number, sample in enumerate(samples):
        video, clip = f"SOURCE/clip{number}" if benchmark == "revos" else f"clip{number}", sample.clip
        names = [f"{index:05d}" for index in range(len(clip.frames))]
        for name, image in zip(names, clip.frames, strict=True):
            path = frames_root / video / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        ids = {object_id: str(len(tracks) + row) for row, object_id in enumerate(clip.object_ids)}
        for object_id, key in ids.items():
            tracks[key] = [encode_rle(mask) if mask.any() else None for mask in clip.masks_of(object_id)]
        union = np.any([clip.masks_of(object_id) for object_id in clip.object_ids], axis=0)
        foreground[video] = {"masks_rle": [encode_rle(mask) for mask in union]}
        targets = sample.turns[0].target_ids
        expression = {
            "exp": _expression(benchmark, sample),
            "obj_id": list(targets),
            "anno_id": [int(ids[object_id]) for object_id in targets],
            "type_id": 0,
        }
        videos[video] = {"frames": names, "expressions": {"0": expression}}
    root = folder / "valid_u" if benchmark == "mevis" else folder
    name = "meta_expressions.json" if benchmark == "mevis" else "meta_expressions_valid_.json"
    (root / name).write_text(json.dumps({"videos": videos}))
    (root / "mask_dict.json").write_text(json.dumps(tracks))
    (root / "mask_dict_foreground.json").write_text(json.dumps(foreground))
    return folder
