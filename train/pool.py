"""Clips that are drawn and seen once, and asked about again and again.

Where the vision transformer stays as it is, drawing a clip and running the transformer over it takes longer than all
that a question about it costs; what it made of the clip is kept instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from unipixel.clip import Clip
from unipixel.inputs import VideoFeatures, VideoInput
from unipixel.model import UniPixel
from unipixel.train.collate import BrokenExample
from unipixel.train.datasets.world import Sample
from unipixel.train.datasets.world.samples import DrawnScene
from unipixel.train.drawn import IMAGE_PREFIX, ask_on
from unipixel.train.examples import Example, ExampleBuilder
from unipixel.train.sight import ClipSight

# Questions that are tried about a clip before the next clip is taken.
_TRIES = 3
_MOST_CLIPS = 60


@dataclass(frozen=True)
class _Seen:
    scene: DrawnScene
    clip: Clip  # without its patches
    features: VideoFeatures
    sight: ClipSight | None


@dataclass(frozen=True)
class PoolSettings:
    """How clips are drawn.

    Attributes:
        size: Clips of the pool; as many single frames make another.
        seed: First seed.
        num_frames: Frames of a clip.
        render_size: Shorter side of the frames in pixels.
        max_turns: Questions about a clip at a time, where the task allows several.
    """

    size: int
    seed: int
    num_frames: int
    render_size: int
    max_turns: int


class ClipPool:
    """Examples about a fixed number of clips, each drawn when it is first needed."""

    def __init__(
        self, builder: ExampleBuilder, encode: Callable[[VideoInput], VideoFeatures], settings: PoolSettings
    ) -> None:
        """Prepare a pool.

        Args:
            builder: Turns samples into what the model reads.
            encode: The vision transformer, which does not change any more.
            settings: How clips are drawn.
        """
        self._builder, self._encode, self._settings = builder, encode, settings
        self._seen: dict[tuple[bool, int], _Seen] = {}

    def draw(self, group: str, number: int) -> Example | BrokenExample:
        """Return example `number` of a group, the same at every call: a task, or `image:TASK` for single frames."""
        is_image = group.startswith(IMAGE_PREFIX)
        task = group.removeprefix(IMAGE_PREFIX)
        rng = np.random.default_rng([self._settings.seed, sum(group.encode()), number])
        # Groups begin at different places, so that the pool fills evenly.
        first = number + self._settings.size * (sum(group.encode()) % 97) // 97
        for place in range(first, first + _MOST_CLIPS):
            seen = self._at(is_image, place % self._settings.size)
            for _ in range(_TRIES):
                sample = seen.scene.ask(rng, task=task)
                if sample is not None:
                    sample = ask_on(sample, rng, self._settings.max_turns, facts=seen.scene.facts)
                    return self._build(sample, seen, seed=int(rng.integers(2**31)))
        return BrokenExample(f"{group}/{number}", f"none of {_MOST_CLIPS} clips lends itself to the task")

    def _build(self, sample: Sample, seen: _Seen, *, seed: int) -> Example:
        example = self._builder.build(sample, seed=seed, seen=(seen.clip, seen.sight))
        inputs = replace(example.encoded.inputs, videos=(seen.features,))
        return replace(example, encoded=replace(example.encoded, inputs=inputs))

    def _at(self, is_image: bool, place: int) -> _Seen:
        key = is_image, place
        if key not in self._seen:
            settings = self._settings
            scene = DrawnScene.draw(
                settings.seed + place, split="train", render_size=settings.render_size,
                num_frames=1 if is_image else settings.num_frames,
            )  # fmt: skip
            sample = scene.ask(np.random.default_rng(place), task="track")
            if sample is None:
                raise RuntimeError("a clip without a question was refused")
            clip, sight = self._builder.see(sample)
            features = self._encode(clip.video)
            # New tensors: an empty part of the old would keep all of it.
            patches = clip.video.pixel_values
            clip = replace(clip, video=replace(clip.video, pixel_values=patches.new_empty(0, patches.shape[1])))
            # Only the shape of the frames is looked at from here on.
            blank = np.broadcast_to(np.zeros((), np.uint8), scene.frames.shape)
            self._seen[key] = _Seen(replace(scene, frames=blank), clip, features, sight)
        return self._seen[key]


def frozen_eyes(model: UniPixel) -> Callable[[VideoInput], VideoFeatures]:
    """Return a model's vision transformer for `ClipPool`: rows in half precision, and no tokens, which change."""

    @torch.no_grad()
    def encode(video: VideoInput) -> VideoFeatures:
        (features,) = model.encode_videos([video])
        tokens = features.tokens.new_empty(0, features.tokens.shape[1])
        return replace(features, tokens=tokens, pooling_rows=features.pooling_rows.half())

    return encode
