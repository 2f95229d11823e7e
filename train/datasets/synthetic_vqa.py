"""Drawn clips with several turns each: encoding a clip costs more than one more question about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from unipixel.train.datasets.samples import resolve_ids
from unipixel.train.datasets.synthetic import QuestionAnswer, Sample, generate
from unipixel.train.datasets.synthetic.attributes import Split, held_out_pairs
from unipixel.train.datasets.synthetic.drawing.occlusion import compute_visibility, rasterize_object
from unipixel.train.datasets.synthetic.labels import SceneLabels, label_scene
from unipixel.train.datasets.synthetic.language.questions import pixelqa_turn, plain_turn
from unipixel.train.datasets.synthetic.language.referring import KINDS, segmentation_turn
from unipixel.train.datasets.synthetic.language.region_descriptions import regions_turn

# A group named `image:TASK` shows one frame, any other the whole clip.
IMAGE_PREFIX = "image:"
_NO_TURN_AFTER = 12
# Shares of further questions about no, one and several objects.
_COUNTS = (0.3, 0.48, 0.22)


@dataclass(frozen=True)
class SyntheticVqa:
    """A seeded source of drawn samples.

    Attributes:
        seed: First seed; each group has its own range.
        num_frames: Frames of a clip.
        render_size: Shorter side of the frames in pixels.
        max_turns: Questions about one clip, where the task allows several.
        split: Split of the drawn world.
    """

    seed: int
    num_frames: int = 8
    render_size: int = 144
    max_turns: int = 1
    split: Split = "train"

    def draw(self, group: str, number: int) -> Sample:
        """Draw sample `number` of a group, the same at every call.

        Args:
            group: A task of the drawn world, with `image:` before it for single frames.
            number: From 0.

        Raises:
            ValueError: The world knows no such task.
        """
        task = group.removeprefix(IMAGE_PREFIX)
        seed = self.seed + number + 10_000_000 * (sum(group.encode()) % 97)
        num_frames = 1 if group.startswith(IMAGE_PREFIX) else self.num_frames
        sample = generate(seed, split=self.split, task=task, render_size=self.render_size, num_frames=num_frames)
        return add_turns(sample, np.random.default_rng([seed, 11]), self.max_turns)


def label_clip(sample: Sample) -> SceneLabels:
    """Work out again what is true of a drawn clip.

    Raises:
        ValueError: The sample shows no scene of the drawn world.
    """
    scene, clip = sample.scene, sample.clip
    if scene is None:
        raise ValueError(f"sample {sample.seed} has no scene, so that nothing can be said about it")
    height, width = clip.frames.shape[1:3]
    shorter = min(height, width)
    moments = np.asarray(clip.frame_indices) / (scene.num_frames - 1)
    layers = [rasterize_object(obj, moments, pixels_per_unit=shorter) for obj in scene.objects]
    view = compute_visibility(layers, num_frames=len(moments), height=height, width=width)
    return label_scene(scene, view, moments, shorter=shorter)


def add_turns(sample: Sample, rng: np.random.Generator, max_turns: int, *, labels: SceneLabels | None = None) -> Sample:
    """Ask more about a clip where its task allows several questions, none of them twice.

    Args:
        sample: A clip with its first turn.
        rng: Source of randomness.
        max_turns: Questions about the clip at most.
        labels: What is true of it; None works it out again.
    """
    count = int(rng.integers(1, max_turns + 1))
    if sample.task.startswith(("segment/", "plain")):
        manner = "plain"
    elif sample.task in ("pixelqa/mask", "pairs", "regions"):
        manner = sample.task.partition("/")[0]
    else:
        return sample
    if count <= len(sample.turns):
        return sample
    labels = label_clip(sample) if labels is None else labels
    ids = dict(enumerate(sample.clip.object_ids))
    turns = list(sample.turns)
    for _ in range(_NO_TURN_AFTER):
        if len(turns) == count:
            break
        drafted = _draft(sample, labels, rng, manner)
        if drafted is None:
            continue
        turn = resolve_ids(drafted, ids)
        if turn.question not in (other.question for other in turns):
            turns.append(turn)
    return replace(sample, turns=tuple(turns))


def _draft(sample: Sample, labels: SceneLabels, rng: np.random.Generator, manner: str) -> QuestionAnswer | None:
    num_frames, forbidden = len(sample.clip.frames), held_out_pairs(cast(Split, sample.split))
    names = sample.clip.object_ids
    if manner == "regions":
        rows = tuple(names.index(name) for name in sorted(sample.prompts))
        return regions_turn(rng, labels, rows=rows, is_fixed=False)
    if manner in ("pixelqa", "pairs"):
        pool = tuple(row for row, name in enumerate(names) if name in sample.prompts)
        both = manner == "pairs" or (len(pool) > 1 and rng.random() < 0.5)
        is_choice = bool(rng.random() < 0.6)
        found = pixelqa_turn(rng, labels, pool=pool, count=2 if both else 1, is_choice=is_choice, forbidden=forbidden)
        return None if found is None else found[0]
    if rng.random() < 0.15:
        return plain_turn(rng, labels, num_frames=num_frames)
    kinds = KINDS if num_frames > 1 else ("attribute", "relation")
    kind = str(rng.choice(kinds))
    return segmentation_turn(
        rng, labels, kind=kind, forbidden=forbidden, num_frames=num_frames, is_fixed=False, counts=_COUNTS
    )
