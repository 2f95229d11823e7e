"""Drawn images with conversations in the formats of Pixel-SAIL (arXiv:2504.10465), the same in every process.

An image is one frame of a synthetic clip. Several turns are asked about it: referring segmentation with and without a
target, instance mode, regions that are described, questions about one or two regions, segmentation that refers to a
region ("visual-text"), and regions that are not in the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from unipixel.processing.chat_template import Turn
from unipixel.sail.patch_grid import RegionPrompt, mask_to_cells
from unipixel.sail.sail_config import MAX_PROMPTS
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.datasets.synthetic.attributes import SPLITS, Split
from unipixel.train.datasets.synthetic.rasterization import MIN_SIDE, RasterizedScene
from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt
from unipixel.train.sail.drawn_turns import SAIL_TASKS, TurnRequest, draft_turn
from unipixel.train.sail.sail_samples import NamedRegion, SailExample, SailSample, encode_sail

_PROMPT_KINDS = {"mask": 0.6, "box": 0.25, "point": 0.15}
_MAX_SCENES, _MAX_TRIES = 200, 6


@dataclass(frozen=True)
class DrawnImageSettings:
    """Settings of drawn images.

    Attributes:
        sizes: (height, width) in pixels that are drawn, equally often.
        max_turns: Turns about one image.
        tasks: Weight of each of `SAIL_TASKS` among the turns.
        split: Split of the drawn clips.
    """

    sizes: tuple[tuple[int, int], ...]
    max_turns: int
    tasks: Mapping[str, float]
    split: Split = "train"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.tasks) - set(SAIL_TASKS)):
            raise ValueError(f"unknown tasks {unknown}: allowed are {SAIL_TASKS}")
        if small := [size for size in self.sizes if min(size) < MIN_SIDE]:
            raise ValueError(f"drawn images have sides of at least {MIN_SIDE} pixels, got {list(small[0])}")


class DrawnImages(Dataset):
    """The drawn images of a run, encoded for a model."""

    def __init__(
        self,
        processor: SailProcessor,
        settings: DrawnImageSettings,
        *,
        num_samples: int,
        seed: int,
        max_tokens: int,
        has_images: bool = False,
        has_object_words: bool = False,
    ) -> None:
        """Describe a run.

        Args:
            processor: That of the model.
            settings: What is drawn.
            num_samples: Images of the run.
            seed: Seed of the run.
            max_tokens: Longest sequence.
            has_images: Whether examples contain their image, for teachers.
            has_object_words: Whether examples contain the words of the objects of patches and prompts.
        """
        self._processor, self._settings = processor, settings
        self._num_samples, self._seed, self._max_tokens = num_samples, seed, max_tokens
        self._has_images, self._has_object_words = has_images, has_object_words

    def __len__(self) -> int:
        """Images of the run."""
        return self._num_samples

    def __getitem__(self, index: int) -> SailExample:
        """Draw and encode image `index`.

        Raises:
            IndexError: The run has no such image.
        """
        if not 0 <= index < self._num_samples:
            raise IndexError(f"image {index} of a run of {self._num_samples}")
        sample = draw_sail_sample([self._seed, index], self._settings, processor=self._processor)
        return encode_sail(
            sample,
            self._processor,
            max_tokens=self._max_tokens,
            has_image=self._has_images,
            has_object_words=self._has_object_words,
        )


def draw_sail_sample(
    seed: list[int], settings: DrawnImageSettings, *, processor: SailProcessor | None = None
) -> SailSample:
    """Draw one image with its turns; the same arguments give the same sample in every process.

    Args:
        seed: Seed and number of the image.
        settings: What is drawn.
        processor: Of a model: regions that have no cell of its grid for themselves are not prompted.

    Raises:
        ValueError: No image with a valid turn was found.
    """
    rng = np.random.default_rng([SPLITS.index(settings.split), *seed, 31])
    for _ in range(_MAX_SCENES):
        size = settings.sizes[int(rng.integers(len(settings.sizes)))]
        scene = RasterizedScene.sample(
            rng, split=settings.split, render_size=size, num_frames=1, interaction_rate=0.3, event_rate=0.0
        )
        if scene is None:
            continue
        prompts = _draw_prompts(rng, scene, split=settings.split, processor=processor)
        drawn = _draw_turns(rng, scene, prompts, settings)
        if drawn.turns:
            image = scene.render(rng, split=settings.split)[0]
            return SailSample(
                image, tuple(drawn.turns), tuple(drawn.masks), tuple(prompts.values()), _name_regions(scene, prompts)
            )
    raise ValueError(f"no image with a turn of {dict(settings.tasks)} in {_MAX_SCENES} attempts")


def _name_regions(scene: RasterizedScene, prompts: Mapping[int, RegionPrompt]) -> tuple[NamedRegion, ...]:
    """Return the visible objects with their colour, shape, size and texture, as far as these can be recognised."""
    labels, regions = scene.labels, []
    for row, (own, size) in enumerate(zip(labels.objects, labels.size_names, strict=True)):
        mask = scene.view.masks[row, 0]
        texture = own.texture if labels.has_legible_texture[row] and own.texture != "plain" else None
        if mask.any():
            words = tuple(filter(None, (own.colour, own.shape, size, texture)))
            regions.append(NamedRegion(mask, words, prompts[row].prompt_id if row in prompts else None))
    return tuple(regions)


@dataclass(frozen=True)
class _DrawnTurns:
    turns: list[Turn]
    masks: list[NDArray[np.bool_]]


def _draw_turns(
    rng: np.random.Generator,
    scene: RasterizedScene,
    prompts: Mapping[int, RegionPrompt],
    settings: DrawnImageSettings,
) -> _DrawnTurns:
    request = TurnRequest(scene.labels, scene.view.masks[:, 0], prompts, settings.split)
    names = list(settings.tasks)
    shares = np.array([settings.tasks[name] for name in names], float)
    drawn = _DrawnTurns([], [])
    for _ in range(settings.max_turns):
        task = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        for _ in range(_MAX_TRIES):
            drafted = draft_turn(rng, request, task=task)
            if drafted is not None and drafted[0] not in (turn.question for turn in drawn.turns):
                question, answer, masks = drafted
                drawn.turns.append(Turn(question, answer))
                drawn.masks.extend(masks)
                break
    return drawn


def _draw_prompts(
    rng: np.random.Generator, scene: RasterizedScene, *, split: Split, processor: SailProcessor | None
) -> dict[int, RegionPrompt]:
    """Choose which objects are marked, by a mask, a box or a point, with random ids."""
    masks = scene.view.masks[:, 0]
    rows = [int(row) for row in rng.permutation(len(masks)) if masks[row].any()]
    rows = rows[: int(rng.integers(1, len(rows) + 1))]
    ids = rng.permutation(MAX_PROMPTS)[: len(rows)]
    regions = {}
    for row, prompt_id in zip(rows, ids, strict=True):
        kind = str(rng.choice(list(_PROMPT_KINDS), p=list(_PROMPT_KINDS.values())))
        regions[row] = RegionPrompt(int(prompt_id), _region(rng, masks[row], kind, split=split, processor=processor))
    return regions if processor is None else with_own_cells(regions, masks.shape[1:], processor)


def _region(
    rng: np.random.Generator, mask: NDArray[np.bool_], kind: str, *, split: Split, processor: SailProcessor | None
) -> NDArray[np.bool_]:
    """Return the region (H, W) that a prompt marks: a filled box, or the patch around a point."""
    prompt = sample_prompt(rng, mask[None], kind=kind, is_fixed=split != "train", frame=0)
    if prompt.mask is not None:
        return mask
    region = np.zeros_like(mask)
    if prompt.box_xyxy is not None:
        left, top, right, bottom = (round(value) for value in prompt.box_xyxy)
        region[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        return region
    x, y = (int(value) for value in prompt.point or (0, 0))
    half = 1 if processor is None else processor.config.patch_size // 2
    region[max(0, y - half) : y + half, max(0, x - half) : x + half] = True
    return region


def with_own_cells(
    regions: dict[int, RegionPrompt], image_size: tuple[int, ...], processor: SailProcessor
) -> dict[int, RegionPrompt]:
    """Drop regions of which smaller ones leave no cell, as the processor refuses them."""
    height, width = image_size
    size = processor.fit_size(height, width)
    taken = None
    kept = {}
    for row, region in sorted(regions.items(), key=lambda item: int(np.asarray(item[1].mask).sum())):
        cells = mask_to_cells(np.asarray(region.mask, dtype=np.bool_), size, patch=processor.config.patch_size)
        taken = np.zeros_like(cells) if taken is None else taken
        if (cells & ~taken).any():
            kept[row] = region
            taken = taken | cells
    # Of equally large regions the processor draws the last one on top: here the one that was kept first.
    return dict(reversed(kept.items()))
