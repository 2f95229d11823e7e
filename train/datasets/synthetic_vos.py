"""Drawn clips as tracks of prompted objects, for the segmenter's own training.

Shape letters: L frames of a track, O objects, S image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unipixel.tracking.clip_features import normalise_frame
from unipixel.tracking.types import SegmentPrompt
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.synthetic import Sample, generate
from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt
from unipixel.train.losses import label_masks
from unipixel.train.memory_rollout import FirstFramePrompts
from unipixel.train.nano.dense_targets import ATTRIBUTE_SIZES, attribute_ids
from unipixel.train.segmenter_objective import TrackBatch

# Clips take long to draw, blobs longest: each clip of a pool is used this often, cut and coloured differently
# each time.
_POOL_SIZE = 48
_POOL_USES = {"image": 2, "clip": 4, "long_clip": 4, "vos_clip": 6, "vos_long_clip": 6, "vos_image": 6}
_CLIP_FRAMES = 12
_LONGEST_STRIDE = 3
_PROMPTS = {
    "image": {"point": 0.4, "box": 0.2, "place": 0.4},
    "clip": {"mask": 0.4, "point": 0.25, "box": 0.15, "place": 0.2},
    "long_clip": {"mask": 0.6, "point": 0.2, "box": 0.2},
    "vos_clip": {"mask": 0.6, "point": 0.25, "box": 0.15},
    "vos_long_clip": {"mask": 1.0},
    "vos_image": {"point": 0.6, "box": 0.4},
    # A box has one reading: from nothing, a segmenter comes to read prompts by boxes alone within some
    # hundred steps, and not at all where more is asked of it at the same time.
    "boxes": {"box": 1.0},
}
# Most is learned about memory from one frame to the next. On longer tracks a segmenter meets its own mistakes and as
# many memories as it has in use; only the last frames are learned from, or they would cost too much.
_LONG_FACTOR = 4
_ZOOM_SHARE = 0.3
# Share of the images that also get a box around nothing, so that the object score means something.
_NOTHING_SHARE = 0.3
# A place as the language model would give it: how unsure it may be, as a share of the frame's side, of how many
# boxes it takes the mean, how often it knows each attribute.
_SPREADS = (0.0, 0.03, 0.06, 0.12, 0.25, 0.5)
_NUM_GUESSES = 12
_SAID_SHARE = 0.6
_NO_LOOK = torch.zeros(len(ATTRIBUTE_SIZES), dtype=torch.long)


@dataclass(frozen=True)
class SyntheticVosSettings:
    """How clips are cut.

    Attributes:
        image_size: Side S of the segmenter's input in pixels.
        num_frames: Frames L of a track in the groups of clips; four times as many where they are followed for longer,
            the last L of which are learned from.
        render_size: Shorter side of drawn frames in pixels.
        max_objects: Objects of a clip that are used.
        seed: First seed of the drawn clips.
    """

    image_size: int
    num_frames: int
    render_size: int
    max_objects: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Track:
    """One clip with its prompted objects.

    Attributes:
        frames: (L, 3, S, S) normalised.
        labels: (O, L, S, S) bool.
        kinds: By object `point`, `box`, `mask`, or `place`, tokens as the language model would write them.
        coords: By object (P, 2) in pixels of the square frame, for a place (K, 2, 2), or None for a mask.
        looks: By object (A,) numbers of words that a place comes with.
        num_learned: How many of the last frames masks are learned from.
    """

    frames: Tensor
    labels: Tensor
    kinds: tuple[str, ...]
    coords: tuple[Tensor | None, ...]
    looks: tuple[Tensor, ...]
    num_learned: int = 1


class SyntheticVosDataset(Dataset):
    """The clips of a run, by their place in it."""

    def __init__(self, schedule: TaskBatchSampler, settings: SyntheticVosSettings) -> None:
        """Describe a run.

        Args:
            schedule: Order of the groups, see `draw_track`.
            settings: How clips are cut.
        """
        self._schedule = schedule
        self._settings = settings

    def __len__(self) -> int:
        """Clips of the run."""
        return len(self._schedule)

    def __getitem__(self, index: int) -> Track:
        """Draw clip `index`."""
        group, number = self._schedule.place(index)
        return draw_track(group, number, self._settings)


def draw_track(group: str, number: int, settings: SyntheticVosSettings) -> Track:
    """Draw one clip with prompts.

    Args:
        group: `image`, `boxes` (single frames with boxes alone), `clip`, `long_clip`, or the same in the style of
            video object segmentation data: `vos_image`, `vos_clip`, `vos_long_clip`.
        number: Number within the group; with the seed of the settings it decides everything.
        settings: How clips are cut.
    """
    groups = sorted(_PROMPTS)
    rng = np.random.default_rng([settings.seed, groups.index(group), number])
    length = 1 if group.endswith("image") or group == "boxes" else settings.num_frames
    length *= _LONG_FACTOR if group.endswith("long_clip") else 1
    turn, place = divmod(number, _POOL_SIZE * _POOL_USES.get(group, 1))
    pooled = settings.seed + turn * _POOL_SIZE + place % _POOL_SIZE
    if group.startswith("vos_"):
        # Single frames come from the pool of clips.
        sample = _draw(pooled, settings.render_size, _CLIP_FRAMES, "vos")
    else:
        drawn = 1 if length == 1 else max(length, _CLIP_FRAMES)
        sample = _draw(pooled + 4_000_000 * groups.index(group), settings.render_size, drawn, "shapes")
    return _cut(sample, group, length, rng, settings)


@lru_cache(maxsize=6 * _POOL_SIZE)
def _draw(seed: int, render_size: int, num_frames: int, style: str) -> Sample:
    return generate(
        seed, split="train", task="track", render_size=render_size, num_frames=num_frames, style=style, is_part=True
    )


def _cut(sample: Sample, group: str, length: int, rng: np.random.Generator, settings: SyntheticVosSettings) -> Track:
    """Choose frames in either direction, objects that are there on the first, and their prompts."""
    clip = sample.clip
    count = len(clip.frames)
    longest = min(_LONGEST_STRIDE, (count - 1) // (length - 1)) if length > 1 else 1
    steps = np.arange(length) * int(rng.integers(1, max(1, longest) + 1))
    chosen = np.minimum(int(rng.integers(max(1, count - steps[-1]))) + steps, count - 1)
    if rng.random() < 0.5:
        chosen = chosen[::-1]
    frames, masks = clip.frames[chosen], clip.masks[:, chosen]
    if group != "boxes":
        frames, masks = _vary(frames, masks, rng, is_recoloured=group.startswith("vos_"))
    side = settings.image_size
    labels = label_masks(torch.from_numpy(masks.reshape(-1, *masks.shape[2:])).float(), (side, side))
    labels = labels.unflatten(0, masks.shape[:2])
    visible = [row for row in rng.permutation(len(masks)) if labels[row, 0].any()]
    kinds, looks, rows = [], [], []
    coords: list[Tensor | None] = []
    shares = _PROMPTS[group]
    words = attribute_ids(sample)
    for row in visible[: settings.max_objects]:
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        said = _NO_LOOK
        if kind == "mask":
            coords.append(None)
        elif kind == "place" and words is not None:
            place, said = _jitter_box(_point_at(masks[row, :1], kind, side, rng), words, visible, row, side, rng)
            coords.append(place)
        else:
            coords.append(_point_at(masks[row, :1], kind, side, rng))
        kinds.append(kind)
        looks.append(said)
        rows.append(int(row))
    labels = labels[rows] if rows else labels[:0]
    if group.endswith("image") and rng.random() < _NOTHING_SHARE:
        nothing = _box_around_nothing(np.asarray(masks[:, 0].any(axis=0)), side, rng)
        if nothing is not None:
            kinds, coords = [*kinds, "place"], [*coords, nothing.expand(_NUM_GUESSES, 2, 2)]
            looks = [*looks, _NO_LOOK]
            labels = torch.cat([labels, torch.zeros(1, length, side, side, dtype=torch.bool)])
    pictures = torch.stack([normalise_frame(frame, image_size=side) for frame in frames])
    num_learned = min(length, settings.num_frames)
    return Track(pictures, labels, tuple(kinds), tuple(coords), tuple(looks), num_learned)


def _vary(
    frames: np.ndarray, masks: np.ndarray, rng: np.random.Generator, *, is_recoloured: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror a clip, zoom in on one of its objects and, where no colour is named, exchange the channels."""
    if rng.random() < 0.5:
        frames, masks = frames[:, :, ::-1], masks[..., ::-1]
    if is_recoloured and rng.random() < 0.7:
        frames = frames[..., rng.permutation(3)]
    seen = [row for row in range(len(masks)) if masks[row, 0].any()]
    if seen and rng.random() < _ZOOM_SHARE:
        window = _window_around(masks[seen[int(rng.integers(len(seen)))], 0], rng)
        frames, masks = frames[(slice(None), *window)], masks[(..., *window)]
    return frames, np.ascontiguousarray(masks)


def _window_around(mask: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
    """A part of the frame that holds an object: small objects alone would teach little at first."""
    share = float(rng.uniform(0.3, 1.0))
    window = []
    for axis, length in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=1 - axis))
        first, last = int(inside[0]), int(inside[-1]) + 1
        side = min(max(int(length * share), last - first + 2), length)
        start = int(rng.integers(max(0, last - side), min(first, length - side) + 1))
        window.append(slice(start, start + side))
    return window[0], window[1]


def _point_at(masks: np.ndarray, kind: str, side: int, rng: np.random.Generator) -> Tensor:
    """Coordinates (P, 2) in pixels of the square frame."""
    shown = "box" if kind == "place" else kind
    prompt = sample_prompt(rng, masks, kind=shown, is_fixed=False, frame=0)
    values = prompt.point if prompt.point is not None else prompt.box_xyxy
    return _squared(values, masks.shape[1:], side)


def _jitter_box(
    box: Tensor, words: Tensor, visible: Sequence[int], row: int, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Boxes (K, 2, 2) that somebody holds possible who is not sure, and the looks (A,) that they know.

    Who knows looks that no other object has may be very unsure of the place.
    """
    looks = torch.where(torch.from_numpy(rng.random(words.shape[1]) < _SAID_SHARE), words[row], 0)
    others = words[[other for other in visible if other != row]]
    is_unique = not bool(((others == looks) | (looks == 0)).all(dim=1).any())
    spread = float(rng.choice(_SPREADS if is_unique else _SPREADS[:2])) * side
    middle, half = box.mean(dim=0), (box[1] - box[0]) / 2
    guess = middle + torch.from_numpy(rng.normal(0, spread, 2)).float()
    middles = guess + torch.from_numpy(rng.normal(0, spread, (_NUM_GUESSES, 2))).float()
    growth = min(2 * spread / side, 0.4)
    grown = rng.normal(0, growth, (1, 2)) + rng.normal(0, growth, (_NUM_GUESSES, 2))
    halves = half * torch.from_numpy(np.exp(grown)).float()
    boxes = torch.stack([middles - halves, middles + halves], dim=1)
    return boxes.clamp(0, side), looks


def _box_around_nothing(taken: np.ndarray, side: int, rng: np.random.Generator) -> Tensor | None:
    """A box (2, 2) on the background alone, or None where none was found."""
    for _ in range(8):
        sides = [max(4, int(length * rng.uniform(0.1, 0.4))) for length in taken.shape]
        top, left = (int(rng.integers(max(1, length - own))) for length, own in zip(taken.shape, sides, strict=True))
        if not taken[top : top + sides[0], left : left + sides[1]].any():
            return _squared((left, top, left + sides[1], top + sides[0]), taken.shape, side)
    return None


def _squared(values: Sequence[float] | None, size: tuple[int, ...], side: int) -> Tensor:
    coords = torch.tensor(values, dtype=torch.float32).view(-1, 2)
    return coords * torch.tensor([side / size[1], side / size[0]])


def collate_tracks(tracks: Sequence[Track]) -> dict[str, TrackBatch]:
    """Join clips of one group into a batch, under the objective's keyword."""
    rows: dict[str, list[int]] = {"point": [], "box": [], "place": [], "mask": []}
    coords: list[Tensor | None] = []
    looks: list[Tensor] = []
    paths, first = [], 0
    for track in tracks:
        for place, kind in enumerate(track.kinds):
            rows[kind].append(len(coords))
            coords.append(track.coords[place])
            looks.append(track.looks[place])
            paths.append(torch.arange(first, first + len(track.frames)))
        first += len(track.frames)
    labels = torch.cat([track.labels for track in tracks])
    anchors = []
    given = {
        kind: torch.stack([value for value in (coords[row] for row in chosen) if value is not None])
        for kind, chosen in rows.items()
        if kind != "mask" and chosen
    }
    for kind, point_labels in (("point", (1,)), ("box", (2, 3))):
        if kind in given:
            prompt = SegmentPrompt(coords=given[kind], labels=torch.tensor([point_labels] * len(rows[kind])))
            anchors.append(FirstFramePrompts(torch.tensor(rows[kind]), prompt))
    if chosen := rows["mask"]:
        anchors.append(FirstFramePrompts(torch.tensor(chosen), masks=labels[chosen, 0]))
    length = len(tracks[0].frames)
    batch = TrackBatch(
        frames=torch.cat([track.frames for track in tracks]),
        tracks=torch.stack(paths) if paths else torch.empty(0, length, dtype=torch.long),
        labels=labels,
        anchors=tuple(anchors),
        place_rows=torch.tensor(rows["place"], dtype=torch.long),
        places=given.get("place", torch.empty(0, _NUM_GUESSES, 2, 2)),
        looks=torch.stack([looks[row] for row in rows["place"]]) if rows["place"] else _NO_LOOK.expand(0, -1),
        # Half of the clips are followed as a finite clip, half as a stream of unknown length.
        num_frames=length if int(labels.sum()) % 2 else None,
        first_step=length - tracks[0].num_learned,
    )
    return {"batch": batch}
