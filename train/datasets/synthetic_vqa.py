"""Synthetic clips with several questions each, because a further question costs less than another clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast
from zlib import crc32

import numpy as np

from unipixel.train.datasets.samples import resolve_ids
from unipixel.train.datasets.synthetic import QuestionAnswer, Sample, generate
from unipixel.train.datasets.synthetic.attributes import Split, held_out_pairs
from unipixel.train.datasets.synthetic.drawing.occlusion import compute_visibility, rasterize_object
from unipixel.train.datasets.synthetic.labels import SceneLabels, label_scene
from unipixel.train.datasets.synthetic.language.questions import pixelqa_turn, plain_turn
from unipixel.train.datasets.synthetic.language.referring import KINDS, segmentation_turn
from unipixel.train.datasets.synthetic.language.region_descriptions import regions_turn

# A task `image:TASK` shows one frame, any other a clip.
IMAGE_PREFIX = "image:"
_MAX_ATTEMPTS = 12
# Probabilities of further questions about no, one and several objects.
_TARGET_COUNTS = (0.3, 0.48, 0.22)


@dataclass(frozen=True)
class SyntheticVqa:
    """A seeded source of synthetic samples.

    Attributes:
        seed: Seed of the source.
        num_frames: Frames of a clip.
        render_size: Shorter side of the frames in pixels.
        max_turns: Most questions about one clip, where the task allows several.
        split: Split of the samples.
    """

    seed: int
    num_frames: int = 8
    render_size: int = 144
    max_turns: int = 1
    split: Split = "train"

    def draw(self, task: str, number: int) -> Sample:
        """Generate sample `number` of a task, the same at every call.

        Args:
            task: One of `synthetic.TASKS`, with the prefix `image:` for single frames.
            number: From 0.

        Raises:
            ValueError: The task is unknown.
        """
        seed = self.sample_seed(task, number)
        sample = generate(
            seed,
            split=self.split,
            task=task.removeprefix(IMAGE_PREFIX),
            render_size=self.render_size,
            num_frames=1 if task.startswith(IMAGE_PREFIX) else self.num_frames,
        )
        return add_turns(sample, np.random.default_rng([seed, 11]), self.max_turns)

    def sample_seed(self, task: str, number: int) -> int:
        """Return the seed of sample `number` of a task, in 64 bits."""
        sequence = np.random.SeedSequence([self.seed, crc32(task.encode()), number])
        return int(sequence.generate_state(1, np.uint64)[0])


def label_clip(sample: Sample) -> SceneLabels:
    """Derive the ground truth of a synthetic clip again.

    Raises:
        ValueError: The sample has no scene.
    """
    scene, clip = sample.scene, sample.clip
    if scene is None:
        raise ValueError(f"sample {sample.seed} has no scene to derive labels from")
    height, width = clip.frames.shape[1:3]
    shorter = min(height, width)
    times = np.asarray(clip.frame_indices) / (scene.num_frames - 1)
    layers = [rasterize_object(obj, times, pixels_per_unit=shorter) for obj in scene.objects]
    view = compute_visibility(layers, num_frames=len(times), height=height, width=width)
    return label_scene(scene, view, times, shorter=shorter)


def add_turns(sample: Sample, rng: np.random.Generator, max_turns: int, *, labels: SceneLabels | None = None) -> Sample:
    """Add questions about a clip where its task allows several, without repetitions.

    Args:
        sample: A clip with its first turn.
        rng: Source of randomness.
        max_turns: Most questions about the clip.
        labels: Ground truth of the clip; None derives it again.
    """
    count = int(rng.integers(1, max_turns + 1))
    if sample.task.startswith(("segment/", "plain")):
        turn_type = "plain"
    elif sample.task in ("pixelqa/mask", "pairs", "regions"):
        turn_type = sample.task.partition("/")[0]
    else:
        return sample
    if count <= len(sample.turns):
        return sample
    labels = label_clip(sample) if labels is None else labels
    ids = dict(enumerate(sample.clip.object_ids))
    turns = list(sample.turns)
    for _ in range(_MAX_ATTEMPTS):
        if len(turns) == count:
            break
        drafted = _draft(sample, labels, rng, turn_type)
        if drafted is None:
            continue
        turn = resolve_ids(drafted, ids)
        # A second answer about the same attribute of the same regions could be copied from the first.
        is_repeated = turn_type == "regions" and turn.kind in (other.kind for other in turns)
        if not is_repeated and turn.question not in (other.question for other in turns):
            turns.append(turn)
    return replace(sample, turns=tuple(turns))


def _draft(sample: Sample, labels: SceneLabels, rng: np.random.Generator, turn_type: str) -> QuestionAnswer | None:
    num_frames, forbidden = len(sample.clip.frames), held_out_pairs(cast(Split, sample.split))
    names = sample.clip.object_ids
    if turn_type == "regions":
        rows = tuple(names.index(name) for name in sorted(sample.prompts))
        return regions_turn(rng, labels, rows=rows, is_fixed=False)
    if turn_type in ("pixelqa", "pairs"):
        pool = tuple(row for row, name in enumerate(names) if name in sample.prompts)
        is_pair = turn_type == "pairs" or (len(pool) > 1 and rng.random() < 0.5)
        is_choice = bool(rng.random() < 0.6)
        found = pixelqa_turn(
            rng, labels, pool=pool, count=2 if is_pair else 1, is_choice=is_choice, forbidden=forbidden
        )
        return None if found is None else found[0]
    if rng.random() < 0.15:
        return plain_turn(rng, labels, num_frames=num_frames)
    kinds = KINDS if num_frames > 1 else ("attribute", "relation")
    kind = str(rng.choice(kinds))
    return segmentation_turn(
        rng, labels, kind=kind, forbidden=forbidden, num_frames=num_frames, is_fixed=False, counts=_TARGET_COUNTS
    )
