"""Synthetic clips that are drawn once and asked about again and again.

Every clip follows from the seed of the run, the worker, its group and its number, so that a resumed run draws the same
ones. Shape letters: T frames, H, W size of the frames as the model sees them, N cells of a clip, A attributes,
P positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unipixel.processing.clip_layout import ClipInput
from unipixel.processing.image_processing import fit_size, resize_frame
from unipixel.processing.processor import Processor
from unipixel.train.datasets.preprocessing import ExampleBuilder
from unipixel.train.datasets.synthetic.sample_generation import SyntheticScene
from unipixel.train.nano.dense_targets import ClipTargets
from unipixel.train.nano.pretraining_recipe import PretrainingData

# Clips are also drawn larger than they are seen, as real footage is.
_SCALES = (1.0, 1.0, 1.35)
_MAX_CLIPS_PER_GROUP = 1_000_000


@dataclass(frozen=True)
class ClipGroup:
    """Clips or single frames that share a token grid.

    Attributes:
        size: (height, width) in pixels of a frame.
        num_frames: Frames; 1 is a single frame.
        weight: Fraction of the batches.
    """

    size: tuple[int, int]
    num_frames: int
    weight: float

    @property
    def is_image(self) -> bool:
        """Whether these are single frames."""
        return self.num_frames == 1


def clip_groups(data: PretrainingData) -> tuple[ClipGroup, ...]:
    """Return the groups of a recipe."""
    clip_weight = (1 - data.image_fraction) / len(data.clip_sizes)
    image_weight = data.image_fraction / len(data.image_sizes)
    clips = [ClipGroup((height, width), data.num_frames, clip_weight) for height, width in data.clip_sizes]
    images = [ClipGroup((height, width), 1, image_weight) for height, width in data.image_sizes]
    return (*clips, *images)


@dataclass(frozen=True)
class ClipArrays:
    """What training keeps of a clip on its device.

    Attributes:
        clip_id: Number of the clip in the run.
        frames: (T, H, W, 3) uint8.
        attributes: (N, A) int8, see `DenseTargets`.
        positions: (N, P) float16, see `DenseTargets`.
    """

    clip_id: int
    frames: NDArray[np.uint8]
    attributes: NDArray[np.int8]
    positions: NDArray[np.float16]


@dataclass(frozen=True)
class PooledClip:
    """What a worker keeps of a clip to ask about it.

    Attributes:
        clip_id: Number of the clip in the run.
        scene: The clip without its frames.
        clip: Its layout, without patches.
        targets: Attributes and positions of its cells.
    """

    clip_id: int
    scene: SyntheticScene
    clip: ClipInput
    targets: ClipTargets


class ClipPool:
    """Clips of one worker process, drawn when they are first asked for."""

    def __init__(
        self, processor: Processor, builder: ExampleBuilder, groups: tuple[ClipGroup, ...], *, seed: int, worker: int
    ) -> None:
        """Prepare to draw.

        Args:
            processor: That of the model.
            builder: Prepares clips with their targets.
            groups: The groups of the run.
            seed: Seed of the run.
            worker: Number of the process.
        """
        self._processor, self._builder, self._groups = processor, builder, groups
        self._seed, self._worker = seed, worker
        self._clips: dict[int, PooledClip] = {}

    def clip(self, group: int, number: int) -> tuple[PooledClip, ClipArrays | None]:
        """Return a clip and, where it is asked for the first time, what training keeps of it.

        Args:
            group: Row of the group.
            number: From 0, within the group.
        """
        clip_id = (self._worker * len(self._groups) + group) * _MAX_CLIPS_PER_GROUP + number
        if clip_id in self._clips:
            return self._clips[clip_id], None
        pooled, arrays = self._draw(clip_id, group, number)
        self._clips[clip_id] = pooled
        return pooled, arrays

    def _draw(self, clip_id: int, group: int, number: int) -> tuple[PooledClip, ClipArrays]:
        rng = np.random.default_rng([self._seed, self._worker, group, number])
        own = self._groups[group]
        seen_size = self._seen_size(own.size, own.num_frames)
        scale = 1.0 if own.is_image else float(rng.choice(_SCALES))
        size = round(own.size[0] * scale), round(own.size[1] * scale)
        # All clips of a group share its grid; where the larger one would be seen on another, it is drawn as it is.
        size = size if self._seen_size(size, own.num_frames) == seen_size else own.size
        seed = int(rng.integers(2**62))
        scene = SyntheticScene.generate(seed, split="train", render_size=size, num_frames=own.num_frames)
        sample = scene.ask(rng, task="track")
        if sample is None:
            raise RuntimeError(f"clip {seed} cannot be tracked, which every clip can")
        clip, targets = self._builder.prepare_clip(sample)
        if targets is None:
            raise RuntimeError("the builder gives no dense targets: build it with has_dense_targets")
        frames = np.stack([resize_frame(frame, seen_size) for frame in scene.frames])
        patches = clip.video.pixel_values
        clip = replace(clip, video=replace(clip.video, pixel_values=patches.new_empty(0, patches.shape[1])))
        # The model reads the frames on its device; a conversation needs their shape alone.
        blank = np.broadcast_to(np.zeros((), np.uint8), scene.frames.shape)
        cells = targets.dense
        arrays = ClipArrays(
            clip_id, frames, cells.attributes.numpy().astype(np.int8), cells.positions.numpy().astype(np.float16)
        )
        return PooledClip(clip_id, replace(scene, frames=blank), clip, targets), arrays

    def _seen_size(self, size: tuple[int, int], num_frames: int) -> tuple[int, int]:
        budget = self._processor.budget
        return fit_size(
            *size,
            cell=self._processor.sizes.cell,
            min_tokens=budget.min_tokens,
            max_tokens=budget.max_tokens_of(num_frames),
        )
