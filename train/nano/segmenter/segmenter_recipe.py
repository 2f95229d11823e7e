"""Settings of the segmenter's training, checked once; `unipixel.train.recipe_files` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unipixel.train.nano.loop.loop_settings import LoopSettings, PoolSettings
from unipixel.train.recipe import LossWeights, RunRecipe

TRACK_TASKS = ("boxes", "image", "vos_image", "clip", "vos_clip", "long_clip", "vos_long_clip")
"""Single frames with boxes alone, with all prompts, clips and clips of four times the length; `vos_` in the style of
video object segmentation data instead of shapes."""


@dataclass(frozen=True, kw_only=True)
class SegmenterData(PoolSettings):
    """What is drawn, and how it is batched.

    Attributes:
        tasks: Fraction of the batches of each of `TRACK_TASKS`; a batch is about one task.
        frames_per_batch: Frames of a batch: many single frames, or few clips.
        objects_per_clip: Prompted objects per clip on average; a batch always has this number times that of its clips.
        num_mask_frames: Frames of a clip; a long one has four times as many, of which the last ones are trained.
        render_size: Shorter side of synthetic frames in pixels.
    """

    tasks: Mapping[str, float]
    frames_per_batch: int = 192
    objects_per_clip: int = 3
    num_mask_frames: int = 3
    render_size: int = 208

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weights("tasks")
        if unknown := sorted(set(self.tasks) - set(TRACK_TASKS)):
            raise ValueError(f"[data] unknown tasks {unknown}: allowed are {TRACK_TASKS}")
        self._check_positive("frames_per_batch", "objects_per_clip", "num_mask_frames", "render_size")


@dataclass(frozen=True, kw_only=True)
class SegmenterRecipe(RunRecipe):
    """One training of a segmenter.

    Attributes:
        stage: `segmenter`.
        data: What is learned from.
        training: How the steps are taken.
        losses: Weights of the parts of the loss.
    """

    stage: Literal["segmenter"] = "segmenter"
    data: SegmenterData
    training: LoopSettings
    losses: LossWeights = field(default_factory=LossWeights)
