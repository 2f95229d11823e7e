"""The recipe `nano/segmenter` with tiny batches, and batches of its tracks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from unipixel.train.nano.segmenter.segmenter_recipe import SegmenterRecipe
from unipixel.train.nano.segmenter.track_batch import DeviceTracks, PackedTracks, TrackClip
from unipixel.train.nano.segmenter.track_sampling import TrackSampler
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.segmenter_objective import TrackBatch

SIDE = 64


def segmenter_recipe(output: Path, *overrides: str) -> SegmenterRecipe:
    recipe = load_any_recipe(
        "nano/segmenter",
        [
            f"output={output}", "model.image_size=64", "data.render_size=64", "data.frames_per_batch=8",
            "data.num_mask_frames=2", "data.initial_clips=6", "data.num_workers=0", "training.max_steps=4",
            "training.precision=float32", "training.is_compiled=false", "training.log_every=1", *overrides,
        ],
    )  # fmt: skip
    assert isinstance(recipe, SegmenterRecipe)
    return recipe


def draw_tracks(recipe: SegmenterRecipe, task: str) -> tuple[dict[int, TrackClip], PackedTracks, TrackBatch]:
    """Draw the first batch of a task, and cut it from its clips."""
    bucket = TrackSampler(replace(recipe.data, tasks={task: 1.0}), side=SIDE, seed=3).bucket(0)
    store = DeviceTracks(torch.device("cpu"), side=SIDE)
    for clip in bucket.clips:
        store.add(clip)
    packed = bucket.batches[0]
    return {clip.clip_id: clip for clip in bucket.clips}, packed, store.join(store.send(packed))
