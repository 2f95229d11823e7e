"""Seeded samples: a clip with masks, visual prompts and language, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.samples import Clip, PromptAnnotation, QuestionAnswer, Sample, resolve_ids
from unipixel.train.datasets.synthetic.attributes import SPLITS, Split, held_out_pairs
from unipixel.train.datasets.synthetic.labels import SceneLabels
from unipixel.train.datasets.synthetic.language.conversations import conversation
from unipixel.train.datasets.synthetic.language.questions import caption_turn, pixelqa_turn, plain_turn
from unipixel.train.datasets.synthetic.language.referring import KINDS, segmentation_turn
from unipixel.train.datasets.synthetic.language.region_descriptions import MAX_REGIONS, MIN_REGIONS, regions_turn
from unipixel.train.datasets.synthetic.rasterization import RasterizedScene, sample_frame_size
from unipixel.train.datasets.synthetic.visual_prompt_sampling import PROMPT_KINDS, sample_prompt
from unipixel.train.datasets.synthetic.vos_style import sample_vos_clip

PIXELQA = ("pixelqa/point", "pixelqa/box", "pixelqa/mask", "pixelqa/mixed")
TASKS = (
    *(f"segment/{kind}" for kind in KINDS),
    *PIXELQA,
    "pairs",
    "regions",
    "caption",
    "plain",
    "conversation",
    "track",
)
DEFAULT_MIXTURE: dict[str, float] = {
    "segment/attribute": 0.1,
    "segment/relation": 0.1,
    "segment/motion": 0.11,
    "segment/reasoning": 0.13,
    "pixelqa/point": 0.06,
    "pixelqa/box": 0.06,
    "pixelqa/mask": 0.09,
    "pixelqa/mixed": 0.06,
    "pairs": 0.06,
    "regions": 0.08,
    "caption": 0.04,
    "plain": 0.04,
    "conversation": 0.07,
}
STYLES = ("shapes", "vos")
MAX_ATTEMPTS = 200


@dataclass(frozen=True)
class _Draft:
    """Language of a sample in terms of mask rows.

    Attributes:
        turns: Questions and answers, with placeholders for ids.
        rows: Rows that the turns mention, in the order of their ids.
        prompted: Rows that get a visual prompt.
        prompt: Kind of the prompts.
        has_ascending_ids: Whether the ids of `rows` ascend.
    """

    turns: tuple[QuestionAnswer, ...]
    rows: tuple[int, ...]
    prompted: tuple[int, ...] = ()
    prompt: str = "mask"
    has_ascending_ids: bool = False


def _draft_pixelqa(
    rng: np.random.Generator, labels: SceneLabels, *, prompt: str, split: Split, count: int | None = None
) -> _Draft | None:
    """Return a question about `count` objects; by default about one or two, equally often."""
    if count is None:
        count = 1 if labels.num_objects == 1 or rng.random() < 0.5 else 2
    if labels.num_objects < count:
        return None
    pool = tuple(range(labels.num_objects))
    found = pixelqa_turn(
        rng, labels, pool=pool, count=count, is_choice=bool(rng.random() < 0.65), forbidden=held_out_pairs(split)
    )
    if found is None:
        return None
    turn, rows = found
    # Random ids: the answer to "Which one is red, [1] or [2]?" must not always be [1].
    rows = tuple(int(row) for row in rng.permutation(rows)) if rng.random() < 0.5 else rows
    return _Draft((turn,), rows, rows, prompt)


def _draft_caption(rng: np.random.Generator, labels: SceneLabels, *, is_fixed: bool) -> _Draft | None:
    count = 2 if labels.num_objects > 1 and rng.random() < 0.35 else 1
    rows = tuple(int(row) for row in rng.permutation(labels.num_objects)[:count])
    turn = caption_turn(rng, labels, row=rows[0], is_fixed=is_fixed, others=rows[1:])
    prompt = PROMPT_KINDS[int(rng.integers(3))]
    return _Draft((turn,), rows, rows, prompt)


def _draft_regions(rng: np.random.Generator, labels: SceneLabels, *, is_fixed: bool) -> _Draft | None:
    if labels.num_objects < MIN_REGIONS:
        return None
    count = int(rng.integers(MIN_REGIONS, min(labels.num_objects, MAX_REGIONS) + 1))
    rows = tuple(int(row) for row in rng.permutation(labels.num_objects)[:count])
    turn = regions_turn(rng, labels, rows=rows, is_fixed=is_fixed)
    return None if turn is None else _Draft((turn,), rows, rows, "mask", has_ascending_ids=True)


def _draft(rng: np.random.Generator, labels: SceneLabels, *, task: str, split: Split) -> _Draft | None:
    """Return language for a task, or None where the clip has no valid sample for it."""
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
    if task == "pairs":
        return _draft_pixelqa(rng, labels, prompt="mask", split=split, count=2)
    if task == "regions":
        return _draft_regions(rng, labels, is_fixed=is_fixed)
    if task == "caption":
        return _draft_caption(rng, labels, is_fixed=is_fixed)
    if task == "plain":
        turn = plain_turn(rng, labels, num_frames=num_frames)
        return None if turn is None else _Draft((turn,), ())
    if task == "conversation":
        drafted = conversation(rng, labels, forbidden=held_out_pairs(split), num_frames=num_frames, is_fixed=is_fixed)
        return None if drafted is None else _Draft(tuple(drafted[0]), tuple(drafted[1]))
    rows = tuple(range(labels.num_objects))
    return _Draft((), rows, rows, PROMPT_KINDS[int(rng.integers(3))])


def _assign_ids(rng: np.random.Generator, draft: _Draft, *, num_objects: int, split: Split) -> dict[int, int]:
    """Return ids by row: from 1 in the order of mention; in a third of the training samples random ones of 0 to 15."""
    others = [row for row in range(num_objects) if row not in draft.rows]
    rows = [*draft.rows, *others]
    numbers = list(range(1, len(rows) + 1))
    if split == "train" and draft.prompted and rng.random() < 0.33:
        numbers = [int(number) for number in rng.permutation(16)[: len(rows)]]
    if draft.has_ascending_ids:
        numbers[: len(draft.rows)] = sorted(numbers[: len(draft.rows)])
    return dict(zip(rows, numbers, strict=True))


def _prompts(
    rng: np.random.Generator, scene: RasterizedScene, draft: _Draft, ids: Mapping[int, int], *, split: Split
) -> dict[int, PromptAnnotation]:
    result = {}
    for row in draft.prompted:
        kind = draft.prompt
        if kind == "mixed":
            kind = PROMPT_KINDS[int(rng.integers(2))]
        result[ids[row]] = sample_prompt(rng, scene.view.masks[row], kind=kind, is_fixed=split != "train")
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
    """Generate one sample; the same arguments give the same sample in every process.

    Args:
        seed: Not negative; the same seed gives different samples in different splits.
        split: "train", "val" or "test"; decides the held-out combinations, wordings and jitter of prompts.
        task: One of `TASKS`, or None for a random one by `DEFAULT_MIXTURE`.
        render_size: (height, width) in pixels, or the shorter side with a random aspect, or None for a
            random size of 128 to 640 pixels.
        num_frames: Frames to render, evenly spaced over the clip; None for all.
        style: "shapes" for shapes of the attribute vocabulary, "vos" for deforming textured blobs, which have masks
            and visual prompts but no language.
        is_part: Whether to render frames of a random part of the clip, at a stride that a tracker would see, instead of
            frames over all of it. Only for the task `track`: language is about whole clips.

    Returns:
        The sample.

    Raises:
        ValueError: An argument is not allowed, or no clip for the task was found in `MAX_ATTEMPTS` attempts.
        ImportError: scikit-image, whose photographs serve as backgrounds, is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}, got {task!r}")
    if style not in STYLES:
        raise ValueError(f"style must be one of {STYLES}, got {style!r}")
    if is_part and task != "track":
        raise ValueError(f"parts of clips have no language: the task must be 'track', got {task!r}")
    root = np.random.SeedSequence([SPLITS.index(split), seed])
    rng = np.random.Generator(np.random.PCG64(root))
    if style == "vos":
        if task not in (None, "track"):
            raise ValueError(f"the style 'vos' has no language: the task must be 'track', got {task!r}")
        height, width = sample_frame_size(rng, render_size)
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
        scene = RasterizedScene.sample(
            rng,
            split=split,
            render_size=render_size,
            num_frames=num_frames,
            interaction_rate=0.6 if task in ("segment/relation", "conversation", "pairs", *PIXELQA) else 0.3,
            event_rate=0.5 if task == "segment/reasoning" else 0.15,
            is_part=is_part,
        )
        draft = None if scene is None else _draft(rng, scene.labels, task=task, split=split)
        if scene is not None and draft is not None:
            return _assemble(rng, scene, draft, task=task, seed=seed, split=split)
    raise ValueError(
        f"no valid sample for the task {task!r} in {MAX_ATTEMPTS} attempts ({num_frames=}, {render_size=}); "
        "motion and events need at least four frames"
    )


@dataclass(frozen=True)
class SyntheticScene:
    """A rendered clip for several samples.

    Attributes:
        labels: Its ground truth.
        frames: (N, H, W, 3) uint8.
        seed: Seed that it was generated from.
        split: Its split.
    """

    labels: SceneLabels
    frames: NDArray[np.uint8]
    seed: int
    split: Split
    _scene: RasterizedScene

    @classmethod
    def generate(
        cls, seed: int, *, split: Split, render_size: tuple[int, int] | int | None, num_frames: int | None
    ) -> SyntheticScene:
        """Generate a clip for any task; arguments as for `generate`.

        Raises:
            ValueError: No clip was found in `MAX_ATTEMPTS` attempts.
        """
        rng = np.random.default_rng([SPLITS.index(split), seed, 19])
        for _ in range(MAX_ATTEMPTS):
            scene = RasterizedScene.sample(
                rng,
                split=split,
                render_size=render_size,
                num_frames=num_frames,
                interaction_rate=0.45,
                event_rate=0.25,
            )
            if scene is not None:
                frames = scene.render(rng, split=split)
                # Only rendering needs the layers, which take most of the memory.
                return cls(scene.labels, frames, seed, split, replace(scene, layers=()))
        raise ValueError(f"no clip in {MAX_ATTEMPTS} attempts ({num_frames=}, {render_size=})")

    def ask(self, rng: np.random.Generator, *, task: str) -> Sample | None:
        """Return a sample about the clip, or None where it has no valid one for the task."""
        draft = _draft(rng, self.labels, task=task, split=self.split)
        if draft is None:
            return None
        return _assemble(rng, self._scene, draft, task=task, seed=self.seed, split=self.split, frames=self.frames)


def _assemble(
    rng: np.random.Generator,
    scene: RasterizedScene,
    draft: _Draft,
    *,
    task: str,
    seed: int,
    split: Split,
    frames: NDArray[np.uint8] | None = None,
) -> Sample:
    objects, source = scene.scene.objects, scene.scene
    ids = _assign_ids(rng, draft, num_objects=len(objects), split=split)
    prompts = _prompts(rng, scene, draft, ids, split=split)
    clip = Clip(
        frames=scene.render(rng, split=split) if frames is None else frames,
        masks=scene.view.masks,
        object_ids=tuple(ids[row] for row in range(len(objects))),
        frame_indices=tuple(int(index) for index in scene.indices),
        timestamps_seconds=tuple(float(index / source.fps) for index in scene.indices),
        num_source_frames=source.num_frames,
        fps=source.fps,
    )
    turns = tuple(resolve_ids(turn, ids) for turn in draft.turns)
    kind = task.partition("/")[2] or (draft.prompt if task in ("track", "caption") else "")
    return Sample(clip, task, kind, turns, prompts, seed, split, source)
