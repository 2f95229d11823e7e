"""Draws tracks of prompted objects from pooled clips, in batches of one task that all have the same shape.

Every clip and every bucket of batches follows from the seed of the run, the worker and its number, so that a resumed
run draws the same ones.

Shape letters: T frames of a rendered clip, L frames of a track, O objects, H, W frame size, A attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.train.datasets.synthetic import generate
from unipixel.train.losses import label_masks
from unipixel.train.nano.dense_targets import attribute_ids
from unipixel.train.nano.loop.batch_feeding import Bucket
from unipixel.train.nano.segmenter.first_frame_prompts import ObjectPrompt, sample_object_prompt
from unipixel.train.nano.segmenter.segmenter_recipe import SegmenterData
from unipixel.train.nano.segmenter.track_batch import PackedTracks, TrackClip, TrackView, pack_tracks

# Fraction of each kind of prompt by task; `token` is a mask token as the language model writes it, `empty` one whose
# box contains no object.
_PROMPT_KINDS = {
    "image": {"point": 0.37, "box": 0.18, "token": 0.37, "empty": 0.08},
    "clip": {"mask": 0.4, "point": 0.25, "box": 0.15, "token": 0.2},
    "long_clip": {"mask": 0.6, "point": 0.2, "box": 0.2},
    "vos_clip": {"mask": 0.6, "point": 0.25, "box": 0.15},
    "vos_long_clip": {"mask": 1.0},
    "vos_image": {"point": 0.55, "box": 0.37, "empty": 0.08},
    # A box is not ambiguous: from random weights, a segmenter learns to use prompts from boxes alone within some
    # hundred steps, and not at all from all tasks together.
    "boxes": {"box": 1.0},
}
_STYLES = ("shapes", "vos")
_CLIP_FRAMES = 12
_MAX_STRIDE = 3
# Tracks of long clips contain accumulated errors and as many memories as inference uses. Only their last frames are
# trained: gradients through all of them would cost too much.
_LONG_FACTOR = 4
_ZOOM_PROBABILITY = 0.3
_MAX_CLIPS = 1_000_000
_MAX_ATTEMPTS = 40
# Set apart from the seeds of clips, which have four parts.
_BUCKET_STREAM = 1


@dataclass(frozen=True)
class _RenderedClip:
    """What a worker keeps of a clip.

    Attributes:
        clip_id: Number of the clip in the run.
        owners: (T, H, W), see `TrackClip`.
        num_objects: Objects of the clip.
        attributes: (O, A) numbers of their attributes; None where they are unknown.
    """

    clip_id: int
    owners: NDArray[np.uint8]
    num_objects: int
    attributes: Tensor | None


@dataclass(frozen=True)
class _Track:
    """Part of a clip before objects are chosen.

    Attributes:
        view: The part, without objects.
        masks: (O, H, W) masks on its first frame.
        visible: Rows of the objects that this frame shows, in random order.
        attributes: (O, A), see `_RenderedClip`.
    """

    view: TrackView
    masks: NDArray[np.bool_]
    visible: tuple[int, ...]
    attributes: Tensor | None


class TrackSampler:
    """Draws the buckets of one worker process."""

    def __init__(self, data: SegmenterData, *, side: int, seed: int, worker: int = 0, num_workers: int = 1) -> None:
        """Prepare to draw.

        Args:
            data: What is drawn.
            side: Side of the segmenter's input in pixels.
            seed: Seed of the run.
            worker: Number of this process.
            num_workers: Processes that draw; each has its own clips.
        """
        self._data, self._side = data, side
        self._seed, self._worker = seed, worker
        self._num_clips = max(1, data.num_clips // num_workers)
        total = sum(data.tasks.values())
        self._fractions = {task: weight / total for task, weight in data.tasks.items()}
        self._clips: dict[int, _RenderedClip] = {}

    def bucket(self, number: int) -> Bucket:
        """Draw a bucket.

        Raises:
            RuntimeError: No clip that shows an object was found.
        """
        rng = np.random.default_rng([self._seed, self._worker, number, _BUCKET_STREAM, 0])
        clips: list[TrackClip] = []
        task = str(rng.choice(list(self._fractions), p=list(self._fractions.values())))
        batches = tuple(self._batch(rng, task, number, clips) for _ in range(self._data.bucket_batches))
        return Bucket(tuple(clips), batches)

    def _batch(self, rng: np.random.Generator, task: str, bucket: int, clips: list[TrackClip]) -> PackedTracks:
        data = self._data
        length = 1 if task.endswith("image") or task == "boxes" else data.num_mask_frames
        length *= _LONG_FACTOR if task.endswith("long_clip") else 1
        num_clips = max(1, data.frames_per_batch // length)
        tracks = [self._track(rng, task, length, bucket, clips) for _ in range(num_clips)]
        counts = deal_objects([len(track.visible) for track in tracks], num_clips * data.objects_per_clip)
        kinds = iter(rng.permutation(prompt_kinds(_PROMPT_KINDS[task], sum(counts))))
        views, prompts = [], []
        for track, count in zip(tracks, counts, strict=True):
            own = [self._prompt(rng, track, number, str(next(kinds))) for number in range(count)]
            views.append(replace(track.view, rows=tuple(prompt.row for prompt in own)))
            prompts += own
        num_trained = min(length, data.num_mask_frames)
        return pack_tracks(views, prompts, num_trained=num_trained, is_stream=bool(rng.random() < 0.5))

    def _prompt(self, rng: np.random.Generator, track: _Track, number: int, kind: str) -> ObjectPrompt:
        # Where a clip has more prompts than objects, objects get several.
        row = track.visible[number % len(track.visible)]
        return sample_object_prompt(
            track.masks, row, kind, visible=track.visible, attributes=track.attributes, side=self._side, rng=rng
        )

    def _track(self, rng: np.random.Generator, task: str, length: int, bucket: int, clips: list[TrackClip]) -> _Track:
        """Choose a part of a clip whose first frame shows an object; clips that are new are added to the list."""
        data, style = self._data, int(task.startswith("vos_"))
        share = sum(weight for name, weight in self._fractions.items() if name.startswith("vos_") == bool(style))
        available = min(self._num_clips, data.initial_clips + data.clips_per_bucket * bucket)
        for _ in range(_MAX_ATTEMPTS):
            clip = self._clip(style, int(rng.integers(max(1, round(available * share)))), clips)
            view, masks = _sample_view(rng, clip, length, is_augmented=task != "boxes", has_free_colours=bool(style))
            # As they are compared with predictions.
            is_shown = label_masks(torch.from_numpy(masks).float(), (self._side, self._side)).flatten(1).any(dim=1)
            visible = tuple(int(row) for row in rng.permutation(clip.num_objects) if is_shown[row])
            if visible:
                return _Track(view, masks, visible, clip.attributes)
        raise RuntimeError(f"no clip that shows an object was found in {_MAX_ATTEMPTS} attempts for the task {task!r}")

    def _clip(self, style: int, number: int, clips: list[TrackClip]) -> _RenderedClip:
        """Return a clip of the pool, which is rendered where it is asked for the first time."""
        clip_id = (self._worker * len(_STYLES) + style) * _MAX_CLIPS + number
        if clip_id not in self._clips:
            rng = np.random.default_rng([self._seed, self._worker, style, number])
            sample = generate(
                int(rng.integers(2**62)),
                split="train",
                task="track",
                render_size=self._data.render_size,
                num_frames=max(_CLIP_FRAMES, _LONG_FACTOR * self._data.num_mask_frames),
                style=_STYLES[style],
                is_part=True,
            )
            masks = sample.clip.masks
            owners = (masks * np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None, None]).max(axis=0)
            clips.append(TrackClip(clip_id, sample.clip.frames, owners))
            self._clips[clip_id] = _RenderedClip(clip_id, owners, len(masks), attribute_ids(sample))
        return self._clips[clip_id]


def deal_objects(num_visible: Sequence[int], total: int) -> list[int]:
    """Return the number of prompts of each clip: `total` together, and more than it has objects only where all have."""
    num_turns = max(*num_visible, -(-total // len(num_visible)))
    turns = sorted((turn >= count, turn, clip) for clip, count in enumerate(num_visible) for turn in range(num_turns))
    dealt = [clip for _, _, clip in turns[:total]]
    return [dealt.count(clip) for clip in range(len(num_visible))]


def prompt_kinds(fractions: Mapping[str, float], total: int) -> list[str]:
    """Return `total` kinds of prompts in the given fractions, the same at every call."""
    limits = np.round(np.cumsum(list(fractions.values())) * total).astype(int)
    return [kind for kind, count in zip(fractions, np.diff(limits, prepend=0), strict=True) for _ in range(count)]


def _sample_view(
    rng: np.random.Generator, clip: _RenderedClip, length: int, *, is_augmented: bool, has_free_colours: bool
) -> tuple[TrackView, NDArray[np.bool_]]:
    """Choose evenly spaced frames in either direction and, in part, a crop, and return the first frame's masks."""
    count, height, width = clip.owners.shape
    max_stride = min(_MAX_STRIDE, (count - 1) // (length - 1)) if length > 1 else 1
    steps = np.arange(length) * int(rng.integers(1, max(1, max_stride) + 1))
    # Parts of short scenes have fewer frames: the last one is repeated.
    frames = np.minimum(int(rng.integers(max(1, count - steps[-1]))) + steps, count - 1)
    frames = frames[::-1] if rng.random() < 0.5 else frames
    masks = clip.owners[frames[0]] == np.arange(1, clip.num_objects + 1)[:, None, None]
    crop, channels, is_mirrored = (slice(0, height), slice(0, width)), np.arange(3), False
    if is_augmented:
        is_mirrored = bool(rng.random() < 0.5)
        if has_free_colours and rng.random() < 0.7:
            channels = rng.permutation(3)
        visible = np.flatnonzero(masks.any(axis=(1, 2)))
        if len(visible) and rng.random() < _ZOOM_PROBABILITY:
            crop = _crop_around(masks[int(rng.choice(visible))], rng)
            masks = masks[(..., *crop)]
        masks = masks[..., ::-1] if is_mirrored else masks
    view = TrackView(clip.clip_id, tuple(frames.tolist()), crop, is_mirrored, tuple(channels.tolist()), ())
    return view, np.ascontiguousarray(masks)


def _crop_around(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[slice, slice]:
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
