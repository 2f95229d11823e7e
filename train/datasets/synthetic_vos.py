"""Synthetic clips of prompted objects for training the segmenter.

Shape letters: L frames of a track, O objects, S image size, K candidate boxes, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unipixel.tracking.clip_features import normalise_frame
from unipixel.tracking.types import SegmentPrompt
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.first_frame_prompts import NUM_BOXES, UNKNOWN_ATTRIBUTES, ObjectPrompt, sample_prompts
from unipixel.train.datasets.synthetic import Sample, generate
from unipixel.train.losses import label_masks
from unipixel.train.memory_rollout import FirstFramePrompts
from unipixel.train.segmenter_objective import TrackBatch

# Clips take long to generate, those of the VOS style longest: each clip of a group is used several times, with another
# crop and other colours.
_GROUP_SIZE = 48
_NUM_USES = {"image": 2, "clip": 4, "long_clip": 4, "vos_clip": 6, "vos_long_clip": 6, "vos_image": 6}
_CLIP_FRAMES = 12
_MAX_STRIDE = 3
# Probability of each kind of prompt by task; `token` is a mask token as the language model writes it.
_PROMPT_KINDS = {
    "image": {"point": 0.4, "box": 0.2, "token": 0.4},
    "clip": {"mask": 0.4, "point": 0.25, "box": 0.15, "token": 0.2},
    "long_clip": {"mask": 0.6, "point": 0.2, "box": 0.2},
    "vos_clip": {"mask": 0.6, "point": 0.25, "box": 0.15},
    "vos_long_clip": {"mask": 1.0},
    "vos_image": {"point": 0.6, "box": 0.4},
    # A box is not ambiguous: from random weights, a segmenter learns to use prompts from boxes alone within some
    # hundred steps, and not at all from all tasks together.
    "boxes": {"box": 1.0},
}
_KINDS = ("point", "box", "token", "mask")
# Tracks of long clips contain accumulated errors and as many memories as inference uses. Only their last frames are
# trained: gradients through all of them would cost too much.
_LONG_FACTOR = 4
_ZOOM_PROBABILITY = 0.3


@dataclass(frozen=True)
class SyntheticVosSettings:
    """Settings of the clips.

    Attributes:
        image_size: Side S of the segmenter's input in pixels.
        num_frames: Trained frames L of a track; long clips have four times as many, of which the last L are trained.
        render_size: Shorter side of rendered frames in pixels.
        max_objects: Most objects of a clip that are used.
        seed: First seed of the clips.
    """

    image_size: int
    num_frames: int
    render_size: int
    max_objects: int = 4
    seed: int = 0


@dataclass(frozen=True)
class PromptedClip:
    """One clip with its prompted objects.

    Attributes:
        frames: (L, 3, S, S) normalised.
        labels: (O, L, S, S) bool.
        prompts: Prompt of each object on the first frame.
        num_trained: Number of the last frames on which masks are trained.
        is_stream: Whether it is tracked as a stream of unknown length, not as a finite clip.
    """

    frames: Tensor
    labels: Tensor
    prompts: tuple[ObjectPrompt, ...]
    num_trained: int = 1
    is_stream: bool = False


class SyntheticVosDataset(Dataset):
    """The clips of a run in order."""

    def __init__(self, sampler: TaskBatchSampler, settings: SyntheticVosSettings) -> None:
        """Describe a run.

        Args:
            sampler: Order of the tasks, see `generate_clip`.
            settings: Settings of the clips.
        """
        self._sampler = sampler
        self._settings = settings

    def __len__(self) -> int:
        """Clips of the run."""
        return len(self._sampler)

    def __getitem__(self, index: int) -> PromptedClip:
        """Generate clip `index`; all clips of a batch are streams or none, however it is divided among processes."""
        task, number = self._sampler.locate(index)
        clip = generate_clip(task, number, self._settings)
        batch_rng = np.random.default_rng([self._settings.seed, 8, self._sampler.batch_number(index)])
        return replace(clip, is_stream=bool(batch_rng.random() < 0.5))


def generate_clip(task: str, number: int, settings: SyntheticVosSettings) -> PromptedClip:
    """Generate one clip with prompts, the same at every call.

    Args:
        task: `image`, `boxes` (single frames with boxes alone), `clip`, `long_clip`, or the same in the style of video
            object segmentation data: `vos_image`, `vos_clip`, `vos_long_clip`.
        number: Number of the clip within the task.
        settings: Settings of the clips.

    Raises:
        ValueError: The task is unknown.
    """
    if task not in _PROMPT_KINDS:
        raise ValueError(f"task must be one of {sorted(_PROMPT_KINDS)}, got {task!r}")
    task_number = sorted(_PROMPT_KINDS).index(task)
    rng = np.random.default_rng([settings.seed, task_number, number])
    length = 1 if task.endswith("image") or task == "boxes" else settings.num_frames
    length *= _LONG_FACTOR if task.endswith("long_clip") else 1
    group, offset = divmod(number, _GROUP_SIZE * _NUM_USES.get(task, 1))
    clip_number = settings.seed + group * _GROUP_SIZE + offset % _GROUP_SIZE
    if task.startswith("vos_"):
        # All tasks of this style share clips.
        sample = _generate(clip_number, settings.render_size, _CLIP_FRAMES, "vos")
    else:
        num_frames = 1 if length == 1 else max(length, _CLIP_FRAMES)
        sample = _generate(clip_number + 4_000_000 * task_number, settings.render_size, num_frames, "shapes")
    return _prompted_clip(sample, task, length, rng, settings)


@lru_cache(maxsize=6 * _GROUP_SIZE)
def _generate(seed: int, render_size: int, num_frames: int, style: str) -> Sample:
    return generate(
        seed, split="train", task="track", render_size=render_size, num_frames=num_frames, style=style, is_part=True
    )


def _prompted_clip(
    sample: Sample, task: str, length: int, rng: np.random.Generator, settings: SyntheticVosSettings
) -> PromptedClip:
    """Choose frames in either direction, objects that are visible on the first of them, and their prompts."""
    frames, masks = _sample_track(sample, length, rng)
    if task != "boxes":
        frames, masks = _augment(frames, masks, rng, has_free_colours=task.startswith("vos_"))
    side = settings.image_size
    labels = label_masks(torch.from_numpy(masks.reshape(-1, *masks.shape[2:])).float(), (side, side))
    labels = labels.unflatten(0, masks.shape[:2])
    visible = [int(row) for row in rng.permutation(len(masks)) if labels[row, 0].any()]
    prompts = sample_prompts(
        sample,
        masks[:, 0],
        visible,
        kinds=_PROMPT_KINDS[task],
        max_objects=settings.max_objects,
        side=side,
        has_empty_box=task.endswith("image"),
        rng=rng,
    )
    empty = torch.zeros(length, side, side, dtype=torch.bool)
    rows = [empty if prompt.row is None else labels[prompt.row] for prompt in prompts]
    return PromptedClip(
        frames=torch.stack([normalise_frame(frame, image_size=side) for frame in frames]),
        labels=torch.stack(rows) if rows else labels[:0],
        prompts=prompts,
        num_trained=min(length, settings.num_frames),
    )


def _sample_track(sample: Sample, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose evenly spaced frames and their masks, at a random stride in either direction."""
    clip = sample.clip
    count = len(clip.frames)
    max_stride = min(_MAX_STRIDE, (count - 1) // (length - 1)) if length > 1 else 1
    steps = np.arange(length) * int(rng.integers(1, max(1, max_stride) + 1))
    chosen = np.minimum(int(rng.integers(max(1, count - steps[-1]))) + steps, count - 1)
    if rng.random() < 0.5:
        chosen = chosen[::-1]
    return clip.frames[chosen], clip.masks[:, chosen]


def _augment(
    frames: np.ndarray, masks: np.ndarray, rng: np.random.Generator, *, has_free_colours: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror a clip, zoom in on one of its objects and, where no prompt depends on colours, permute the channels."""
    if rng.random() < 0.5:
        frames, masks = frames[:, :, ::-1], masks[..., ::-1]
    if has_free_colours and rng.random() < 0.7:
        frames = frames[..., rng.permutation(3)]
    visible = [row for row in range(len(masks)) if masks[row, 0].any()]
    if visible and rng.random() < _ZOOM_PROBABILITY:
        crop = _crop_around(masks[visible[int(rng.integers(len(visible)))], 0], rng)
        frames, masks = frames[(slice(None), *crop)], masks[(..., *crop)]
    return frames, np.ascontiguousarray(masks)


def _crop_around(mask: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
    """Choose a crop of the frame that contains an object."""
    fraction = float(rng.uniform(0.3, 1.0))
    crop = []
    for axis, length in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=1 - axis))
        first, last = int(inside[0]), int(inside[-1]) + 1
        side = min(max(int(length * fraction), last - first + 2), length)
        start = int(rng.integers(max(0, last - side), min(first, length - side) + 1))
        crop.append(slice(start, start + side))
    return crop[0], crop[1]


def collate_tracks(clips: Sequence[PromptedClip]) -> dict[str, TrackBatch]:
    """Join clips of one task into a batch, under the objective's keyword."""
    length = len(clips[0].frames)
    prompts = [prompt for clip in clips for prompt in clip.prompts]
    rows = {kind: [row for row, prompt in enumerate(prompts) if prompt.kind == kind] for kind in _KINDS}
    coords = {
        kind: torch.stack([prompts[row].coords for row in chosen])
        for kind, chosen in rows.items()
        if chosen and kind != "mask"
    }
    labels = torch.cat([clip.labels for clip in clips])
    first_frames = []
    for kind, point_labels in (("point", (1,)), ("box", (2, 3))):
        if kind in coords:
            prompt = SegmentPrompt(coords=coords[kind], labels=torch.tensor([point_labels] * len(rows[kind])))
            first_frames.append(FirstFramePrompts(torch.tensor(rows[kind]), prompt))
    if rows["mask"]:
        first_frames.append(FirstFramePrompts(torch.tensor(rows["mask"]), masks=labels[rows["mask"], 0]))
    starts = [number * length for number, clip in enumerate(clips) for _ in clip.prompts]
    attributes = [prompts[row].attributes for row in rows["token"]]
    batch = TrackBatch(
        frames=torch.cat([clip.frames for clip in clips]),
        tracks=torch.tensor(starts, dtype=torch.long)[:, None] + torch.arange(length),
        labels=labels,
        prompts=tuple(first_frames),
        token_rows=torch.tensor(rows["token"], dtype=torch.long),
        boxes_xyxy=coords.get("token", torch.empty(0, NUM_BOXES, 2, 2)),
        attributes=torch.stack(attributes) if attributes else UNKNOWN_ATTRIBUTES.expand(0, -1),
        samples=torch.tensor([number for number, clip in enumerate(clips) for _ in clip.prompts], dtype=torch.long),
        num_samples=len(clips),
        num_frames=None if clips[0].is_stream else length,
        first_step=length - clips[0].num_trained,
    )
    return {"batch": batch}
