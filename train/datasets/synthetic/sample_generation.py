"""Samples from seeds: one clip, its masks and its language, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.samples import Clip, PromptAnnotation, QuestionAnswer, Sample, resolve_ids
from unipixel.train.datasets.synthetic.attributes import SPLITS, Split, held_out_pairs
from unipixel.train.datasets.synthetic.drawing.occlusion import Layer, Visibility, compute_visibility, rasterize_object
from unipixel.train.datasets.synthetic.drawing.rendering import (
    apply_camera_effects,
    composite_layer,
    render_background,
    sample_materials,
)
from unipixel.train.datasets.synthetic.labels import SceneLabels, label_scene
from unipixel.train.datasets.synthetic.language.conversations import conversation
from unipixel.train.datasets.synthetic.language.questions import caption_turn, pixelqa_turn, plain_turn
from unipixel.train.datasets.synthetic.language.referring import KINDS, segmentation_turn
from unipixel.train.datasets.synthetic.scene import Scene, sample_scene
from unipixel.train.datasets.synthetic.visual_prompt_sampling import PROMPT_KINDS, sample_prompt
from unipixel.train.datasets.synthetic.vos_style import sample_vos_clip

PIXELQA = ("pixelqa/point", "pixelqa/box", "pixelqa/mask", "pixelqa/mixed")
TASKS = (*(f"segment/{kind}" for kind in KINDS), *PIXELQA, "caption", "plain", "conversation", "track")
DEFAULT_MIXTURE: dict[str, float] = {
    "segment/attribute": 0.12,
    "segment/relation": 0.12,
    "segment/motion": 0.13,
    "segment/reasoning": 0.15,
    "pixelqa/point": 0.07,
    "pixelqa/box": 0.07,
    "pixelqa/mask": 0.1,
    "pixelqa/mixed": 0.06,
    "caption": 0.06,
    "plain": 0.04,
    "conversation": 0.08,
}
STYLES = ("shapes", "vos")
MAX_ATTEMPTS = 200


@dataclass(frozen=True)
class _Draft:
    """Language of a sample in terms of rows: turns, rows in the order of their ids, rows that get a prompt."""

    turns: tuple[QuestionAnswer, ...]
    rows: tuple[int, ...]
    pointed: tuple[int, ...] = ()
    prompt: str = "mask"


@dataclass(frozen=True)
class _Stage:
    """A scene placed on a raster."""

    scene: Scene
    labels: SceneLabels
    layers: Sequence[Layer]
    view: Visibility
    indices: NDArray[np.int64]
    moments: NDArray[np.float64]
    height: int
    width: int


def frame_sizes(rng: np.random.Generator, render_size: tuple[int, int] | int | None) -> tuple[int, int]:
    """Decide the height and width of a clip.

    Args:
        rng: Source of randomness.
        render_size: (height, width); the length of the shorter side, for a random aspect; or None for a
            random size from 128 to 640 pixels.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: A side is shorter than 32 pixels.
    """
    if isinstance(render_size, tuple):
        height, width = render_size
    else:
        aspect = float(np.exp(rng.uniform(-1, 1) * np.log(16 / 9))) if rng.random() < 0.7 else 1.0
        if render_size is None:
            longest = int(640 / max(aspect, 1 / aspect))
            shorter = int(rng.integers(128, longest + 1))
        else:
            shorter = render_size
        height = shorter if aspect >= 1 else round(shorter / aspect)
        width = round(shorter * aspect) if aspect >= 1 else shorter
    if min(height, width) < 32:
        raise ValueError(f"A frame of {height} x {width} pixels is too small; at least 32 x 32 is needed.")
    return height, width


def sample_frame_indices(
    num_source: int, num_frames: int | None, *, part_by: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Evenly spaced frames.

    Args:
        num_source: Frames of the full clip.
        num_frames: Wanted number, or None for all.
        part_by: Chooses a part of the clip and a stride; without it the first and the last frame are included.

    Returns:
        Increasing indices (N,); all frames where the clip has no more than wanted.
    """
    if num_frames is None or num_frames >= num_source:
        return np.arange(num_source)
    if part_by is not None:
        stride = int(part_by.integers(1, max(1, (num_source - 1) // max(num_frames - 1, 1)) + 1))
        return int(part_by.integers(num_source - stride * (num_frames - 1))) + stride * np.arange(num_frames)
    if num_frames == 1:
        return np.array([num_source // 2])
    return np.round(np.arange(num_frames) * (num_source - 1) / (num_frames - 1)).astype(np.int64)


def _set_stage(
    rng: np.random.Generator,
    *,
    split: Split,
    render_size: tuple[int, int] | int | None,
    num_frames: int | None,
    encounters: float,
    events: float,
    is_part: bool = False,
) -> _Stage | None:
    """Draw a scene; None where an object can hardly be seen."""
    height, width = frame_sizes(rng, render_size)
    shorter = min(height, width)
    scene = sample_scene(
        rng, split=split, frame=(width / shorter, height / shorter), interaction_rate=encounters, event_rate=events
    )
    indices = sample_frame_indices(scene.num_frames, num_frames, part_by=rng if is_part else None)
    moments = indices / (scene.num_frames - 1)
    layers = [rasterize_object(obj, moments, pixels_per_unit=shorter) for obj in scene.objects]
    view = compute_visibility(layers, num_frames=len(indices), height=height, width=width)
    labels = label_scene(scene, view, moments, shorter=shorter)
    least = min(3, len(indices))
    if (labels.is_visible.sum(axis=1) < least).any():
        return None
    return _Stage(scene, labels, layers, view, indices, moments, height, width)


def _draft_pixelqa(rng: np.random.Generator, labels: SceneLabels, *, prompt: str, split: Split) -> _Draft | None:
    count = 1 if labels.num_objects == 1 or rng.random() < 0.5 else 2
    pool = tuple(range(labels.num_objects))
    found = pixelqa_turn(
        rng, labels, pool=pool, count=count, is_choice=bool(rng.random() < 0.65), forbidden=held_out_pairs(split)
    )
    if found is None:
        return None
    turn, rows = found
    # Ids follow the text, not the roles: "Which one is red, [1] or [2]?" must not always mean [1].
    rows = tuple(int(row) for row in rng.permutation(rows)) if rng.random() < 0.5 else rows
    return _Draft((turn,), rows, rows, prompt)


def _draft_caption(rng: np.random.Generator, labels: SceneLabels, *, is_fixed: bool) -> _Draft | None:
    count = 2 if labels.num_objects > 1 and rng.random() < 0.35 else 1
    rows = tuple(int(row) for row in rng.permutation(labels.num_objects)[:count])
    turn = caption_turn(rng, labels, row=rows[0], is_fixed=is_fixed, others=rows[1:])
    prompt = PROMPT_KINDS[int(rng.integers(3))]
    return None if turn is None else _Draft((turn,), rows, rows, prompt)


def _draft(rng: np.random.Generator, labels: SceneLabels, *, task: str, split: Split) -> _Draft | None:
    """Language for a task, or None where the clip does not lend itself to it."""
    num_frames, is_fixed = labels.is_visible.shape[1], split != "train"
    if task.startswith("segment/"):
        turn = segmentation_turn(
            rng,
            labels,
            kind=task.removeprefix("segment/"),
            forbidden=held_out_pairs(split),
            num_frames=num_frames,
            is_fixed=is_fixed,
        )
        return None if turn is None else _Draft((turn,), turn.target_ids)
    if task.startswith("pixelqa/"):
        return _draft_pixelqa(rng, labels, prompt=task.removeprefix("pixelqa/"), split=split)
    if task == "caption":
        return _draft_caption(rng, labels, is_fixed=is_fixed)
    if task == "plain":
        turn = plain_turn(rng, labels, num_frames=num_frames)
        return None if turn is None else _Draft((turn,), ())
    if task == "conversation":
        talk = conversation(rng, labels, forbidden=held_out_pairs(split), num_frames=num_frames, is_fixed=is_fixed)
        return None if talk is None else _Draft(tuple(talk[0]), tuple(talk[1]))
    rows = tuple(range(labels.num_objects))
    return _Draft((), rows, rows, PROMPT_KINDS[int(rng.integers(3))])


def _give_ids(rng: np.random.Generator, draft: _Draft, *, num_objects: int, split: Split) -> dict[int, int]:
    """Ids by row: from 1 in the order of mention; in a third of the training samples any of 0 to 15."""
    rest = [row for row in range(num_objects) if row not in draft.rows]
    rows = [*draft.rows, *rest]
    numbers = list(range(1, len(rows) + 1))
    if split == "train" and draft.pointed and rng.random() < 0.33:
        numbers = [int(number) for number in rng.permutation(16)[: len(rows)]]
    return dict(zip(rows, numbers, strict=True))


def _paint(rng: np.random.Generator, stage: _Stage, *, split: Split) -> NDArray[np.uint8]:
    looks = sample_materials(rng, stage.scene, stage.layers)
    frames = render_background(
        rng,
        split=split,
        moments=stage.moments,
        height=stage.height,
        width=stage.width,
        avoid=np.array([look.base for look in looks]),
    )
    for layer, look in zip(stage.layers, looks, strict=True):
        composite_layer(frames, layer, look)
    return apply_camera_effects(rng, frames)


def _prompts(
    rng: np.random.Generator, stage: _Stage, draft: _Draft, ids: Mapping[int, int], *, split: Split
) -> dict[int, PromptAnnotation]:
    result = {}
    for row in draft.pointed:
        kind = draft.prompt
        if kind == "mixed":
            kind = PROMPT_KINDS[int(rng.integers(2))]
        result[ids[row]] = sample_prompt(rng, stage.view.masks[row], kind=kind, is_fixed=split != "train")
    return result


def generate(
    seed: int,
    *,
    split: Split,
    task: str | None = None,
    render_size: tuple[int, int] | int | None = None,
    num_frames: int | None = None,
    style: str = "shapes",
    is_part: bool = False,
) -> Sample:
    """Make one sample; the same arguments give the same sample in every process.

    Args:
        seed: Not negative. Splits never share a stream, whatever the seed.
        split: "train", "val" or "test"; decides held-out combinations, wordings and jitter of prompts.
        task: One of `TASKS`, or None for a draw from `DEFAULT_MIXTURE`.
        render_size: (height, width) in pixels, or the shorter side with a random aspect, or None for a
            random size of 128 to 640 pixels.
        num_frames: Frames to draw, evenly spaced over the clip; None for all.
        style: "shapes" for the vocabulary's shapes, "vos" for deforming textured blobs, which have
            masks and visual prompts but no language.
        is_part: Draw frames of a random part of the clip, as near to each other as a tracker meets them, instead
            of frames over all of it. For the task `track` alone: language is about whole clips.

    Returns:
        The sample.

    Raises:
        ValueError: An argument is not allowed, or no clip for the task was found in `MAX_ATTEMPTS` draws.
        ImportError: scikit-image, whose pictures serve as backgrounds, is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; allowed are {', '.join(SPLITS)}.")
    if task is not None and task not in TASKS:
        raise ValueError(f"Unknown task {task!r}; allowed are {', '.join(TASKS)}.")
    if style not in STYLES:
        raise ValueError(f"Unknown style {style!r}; allowed are {', '.join(STYLES)}.")
    if is_part and task != "track":
        raise ValueError(f"Parts of clips have no language: the task must be 'track', not {task!r}.")
    root = np.random.SeedSequence([SPLITS.index(split), seed])
    rng = np.random.Generator(np.random.PCG64(root))
    if style == "vos":
        if task not in (None, "track"):
            raise ValueError(f"The vos style has no language: the task must be 'track', not {task!r}.")
        height, width = frame_sizes(rng, render_size)
        clip = sample_vos_clip(rng, split=split, height=height, width=width, num_frames=num_frames)
        kind = PROMPT_KINDS[int(rng.integers(3))]
        prompts = {
            number: sample_prompt(rng, clip.masks_of(number), kind=kind, is_fixed=split != "train")
            for number in clip.object_ids
        }
        return Sample(clip, "track", kind, (), prompts, seed, split)
    if task is None:
        task = str(rng.choice(list(DEFAULT_MIXTURE), p=list(DEFAULT_MIXTURE.values())))
    for _ in range(MAX_ATTEMPTS):
        encounters = 0.6 if task in ("segment/relation", "conversation") or task in PIXELQA else 0.3
        events = 0.5 if task == "segment/reasoning" else 0.15
        stage = _set_stage(
            rng, split=split, render_size=render_size, num_frames=num_frames, encounters=encounters, events=events,
            is_part=is_part,
        )  # fmt: skip
        draft = None if stage is None else _draft(rng, stage.labels, task=task, split=split)
        if stage is not None and draft is not None:
            return _assemble(rng, stage, draft, task=task, seed=seed, split=split)
    raise ValueError(
        f"No clip for task {task!r} in {MAX_ATTEMPTS} draws ({num_frames=}, {render_size=}); "
        "motion and events need at least four frames."
    )


@dataclass(frozen=True)
class SyntheticScene:
    """A drawn clip that can be asked about again and again.

    Attributes:
        labels: What is true of it.
        frames: (N, H, W, 3) uint8.
        seed: Seed it was made from.
        split: Its split.
    """

    labels: SceneLabels
    frames: NDArray[np.uint8]
    seed: int
    split: Split
    _stage: _Stage

    @classmethod
    def draw(
        cls, seed: int, *, split: Split, render_size: tuple[int, int] | int | None, num_frames: int | None
    ) -> SyntheticScene:
        """Draw a clip that lends itself to any task; arguments as for `generate`.

        Raises:
            ValueError: No clip was found in `MAX_ATTEMPTS` draws.
        """
        rng = np.random.default_rng([SPLITS.index(split), seed, 19])
        for _ in range(MAX_ATTEMPTS):
            stage = _set_stage(
                rng, split=split, render_size=render_size, num_frames=num_frames, encounters=0.45, events=0.25
            )
            if stage is not None:
                frames = _paint(rng, stage, split=split)
                # Layers are the larger part of a scene, and were for painting alone.
                return cls(stage.labels, frames, seed, split, replace(stage, layers=()))
        raise ValueError(f"No clip in {MAX_ATTEMPTS} draws ({num_frames=}, {render_size=}).")

    def ask(self, rng: np.random.Generator, *, task: str) -> Sample | None:
        """Say something about it, or None where it does not lend itself to the task."""
        draft = _draft(rng, self.labels, task=task, split=self.split)
        if draft is None:
            return None
        return _assemble(rng, self._stage, draft, task=task, seed=self.seed, split=self.split, frames=self.frames)


def _assemble(
    rng: np.random.Generator,
    stage: _Stage,
    draft: _Draft,
    *,
    task: str,
    seed: int,
    split: Split,
    frames: NDArray[np.uint8] | None = None,
) -> Sample:
    scene = stage.scene
    ids = _give_ids(rng, draft, num_objects=len(scene.objects), split=split)
    prompts = _prompts(rng, stage, draft, ids, split=split)
    clip = Clip(
        frames=_paint(rng, stage, split=split) if frames is None else frames,
        masks=stage.view.masks,
        object_ids=tuple(ids[row] for row in range(len(scene.objects))),
        frame_indices=tuple(int(index) for index in stage.indices),
        timestamps_seconds=tuple(float(index / scene.fps) for index in stage.indices),
        num_source_frames=scene.num_frames,
        fps=scene.fps,
    )
    turns = tuple(resolve_ids(turn, ids) for turn in draft.turns)
    kind = task.partition("/")[2] or (draft.prompt if task in ("track", "caption") else "")
    return Sample(clip, task, kind, turns, prompts, seed, split, scene)
