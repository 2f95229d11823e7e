"""Samples for training from entries of published sets: frames and masks are read, and wordings drawn, each time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.formats.videorefer_files import strip_media_tags
from unipixel.train.datasets.published.definitions import SetDefinition
from unipixel.train.datasets.published.entries import Entry, Expression, MaskReference
from unipixel.train.datasets.published.entry_wording import (
    SHORT_CAPTION_QUESTIONS,
    category_turns,
    grounded_turn,
    name_objects,
    prefill_text,
    region_turns,
    segmentation_turn,
)
from unipixel.train.datasets.published.mask_decoding import decode_masks, fit_mask
from unipixel.train.datasets.published.sampled_frames import SampledFrames, sample_frames
from unipixel.train.datasets.published.source_files import resolve
from unipixel.train.datasets.samples import Clip, PromptAnnotation, QuestionAnswer, Sample
from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt
from unipixel.train.evaluation.scoring.label_folders import read_label_image

_MAX_RANDOM_ID = 15
_MAX_ATTEMPTS = 4
_OPTION_LETTERS = "ABCD"


class EntrySampler:
    """Draws samples from the entries of one set."""

    def __init__(self, definition: SetDefinition, root: Path, *, num_frames: int, max_turns: int) -> None:
        """Prepare to draw.

        Args:
            definition: The set.
            root: Folder of all data sets.
            num_frames: Most frames of a clip.
            max_turns: Most expressions of one image that become turns.
        """
        self._definition = definition
        self._root = root
        self._num_frames = num_frames
        self._max_turns = max_turns

    def draw(self, entry: Entry, *, number: int, generator: random.Random, prompt_kind: str | None = None) -> Sample:
        """Draw a sample of an entry.

        Args:
            entry: An entry of the set.
            number: Number of the sample, which identifies it.
            generator: Source of randomness.
            prompt_kind: "point" or "box", where objects are prompted; None draws it.

        Raises:
            OSError: A file is missing or cannot be decoded.
            ValueError: Masks are damaged, an object is visible on no frame, or a label image has no class.
        """
        if entry.media.is_empty:
            turns = tuple(QuestionAnswer(strip_media_tags(question), answer) for question, answer in entry.turns)
            return self._sample(_no_clip(), "plain", turns, number=number)
        if entry.task in ("segment", "classes"):
            return self._segment(entry, number, generator)
        if entry.task == "grounded":
            return self._ground(entry, number, generator)
        if entry.task == "converse":
            frames = self._frames(entry, generator)
            turns = tuple(QuestionAnswer(strip_media_tags(question), answer) for question, answer in entry.turns)
            return self._sample(_clip(frames, {}), "plain", turns, number=number)
        entry = _some_regions(entry, self._definition.max_regions, generator)
        frames, masks = self._visible_objects(entry, generator)
        if entry.task in ("region", "category"):
            return self._ask_about_regions(entry, frames, masks, number, generator)
        kind = prompt_kind or generator.choice(("point", "box"))
        return self._refer(entry, frames, masks, kind, number=number, generator=generator)

    def _segment(self, entry: Entry, number: int, generator: random.Random) -> Sample:
        frames = self._frames(entry, generator)
        size = frames.images.shape[1:3]
        masks: dict[int, NDArray[np.bool_]] = {}
        turns = []
        pairs: Sequence[tuple[Expression, NDArray[np.bool_] | None]]
        if entry.task == "classes":
            pairs = self._draw_classes(entry, (size[0], size[1]), generator)
        else:
            count = min(self._max_turns, len(entry.expressions))
            pairs = [(one, None) for one in generator.sample(entry.expressions, count)]
        for row, (expression, mask) in enumerate(pairs, start=1):
            reference = (entry.objects or {})[expression.object]
            turn = segmentation_turn(
                expression,
                object_id=row,
                num_frames=len(frames.images),
                has_target=reference.get("members") != [],
                generator=generator,
            )
            if turn.target_ids:
                masks[row] = self._masks(reference, entry, frames) if mask is None else mask[None]
            turns.append(turn)
        return self._sample(_clip(frames, masks), "segment", tuple(turns), number=number)

    def _ground(self, entry: Entry, number: int, generator: random.Random) -> Sample:
        frames = self._frames(entry, generator)
        rows = sorted(generator.sample(range(len(entry.turns)), min(self._max_turns, len(entry.turns))))
        masks: dict[int, NDArray[np.bool_]] = {}
        turns = []
        for row in rows:
            ids = range(len(masks) + 1, len(masks) + 1 + len(entry.targets[row]))
            for object_id, key in zip(ids, entry.targets[row], strict=True):
                masks[object_id] = self._masks((entry.objects or {})[key], entry, frames)
            turns.append(grounded_turn(entry.turns[row], target_ids=ids, generator=generator))
        return self._sample(_clip(frames, masks), "segment", tuple(turns), number=number)

    def _draw_classes(
        self, entry: Entry, size: tuple[int, int], generator: random.Random
    ) -> list[tuple[Expression, NDArray[np.bool_]]]:
        """Draw classes of a label image with their masks."""
        found = label_classes(entry, self._definition, self._root)
        if not found:
            raise ValueError(f"{(entry.objects or {})['classes']['labels'][0]} contains no class that is used")
        return [
            (expression, fit_mask(mask, size))
            for expression, mask in generator.sample(found, min(self._max_turns, len(found)))
        ]

    def _ask_about_regions(
        self,
        entry: Entry,
        frames: SampledFrames,
        masks: dict[int, NDArray[np.bool_]],
        number: int,
        generator: random.Random,
    ) -> Sample:
        if generator.random() < self._definition.single_frame_fraction:
            masks = _keep_one_frame(masks, generator)
        if entry.task == "category":
            classes = list(self._definition.class_names().values())
            turns = category_turns(entry, classes=classes, generator=generator)
        else:
            turns = region_turns(entry, object_id=next(iter(masks)), generator=generator)
        prompts = {key: _mask_prompt(mask) for key, mask in masks.items()}
        return self._sample(_clip(frames, masks), "region", tuple(turns), prompts, number=number)

    def _refer(
        self,
        entry: Entry,
        frames: SampledFrames,
        masks: dict[int, NDArray[np.bool_]],
        kind: str,
        *,
        number: int,
        generator: random.Random,
    ) -> Sample:
        rng = np.random.default_rng(generator.getrandbits(63))
        prompts = {key: sample_prompt(rng, mask, kind=kind, is_fixed=False) for key, mask in masks.items()}
        ((question, answer),) = entry.turns
        if entry.task == "refer":
            turn = QuestionAnswer(question or generator.choice(SHORT_CAPTION_QUESTIONS), answer)
            return self._sample(_clip(frames, masks), "caption", (turn,), prompts, number=number)
        # The templates of pre-filling end the question with a full stop.
        text = prefill_text(question, answer, letter=generator.choice(_OPTION_LETTERS)).removesuffix(".")
        turn = QuestionAnswer(name_objects(text, next(iter(masks))), answer)
        return self._sample(_clip(frames, masks), "prefill", (turn,), prompts, number=number)

    def _visible_objects(
        self, entry: Entry, generator: random.Random
    ) -> tuple[SampledFrames, dict[int, NDArray[np.bool_]]]:
        """Sample frames that show every object, and return its masks by id."""
        for _ in range(1 if entry.media.is_complete or entry.media.is_image else _MAX_ATTEMPTS):
            frames = self._frames(entry, generator)
            masks = {key: self._masks(reference, entry, frames) for key, reference in (entry.objects or {}).items()}
            hidden = [key for key, mask in masks.items() if not mask.any()]
            if not hidden:
                break
        else:
            raise ValueError(f"object {hidden[0]} of {entry.name} is visible on none of the sampled frames")
        if entry.has_ids:
            return frames, {int(key): mask for key, mask in masks.items()}
        (mask,) = masks.values()
        return frames, {generator.randint(0, _MAX_RANDOM_ID): mask}

    def _frames(self, entry: Entry, generator: random.Random) -> SampledFrames:
        return sample_frames(entry, self._root, num_frames=self._num_frames, generator=generator)

    def _masks(self, reference: MaskReference, entry: Entry, frames: SampledFrames) -> NDArray[np.bool_]:
        """Decode the masks (N, H, W) of an object on the sampled frames."""
        height, width = frames.images.shape[1:3]
        masks = np.zeros((len(frames.images), height, width), bool)
        rows = [row for row, position in enumerate(frames.mask_positions) if position is not None]
        masks[rows] = decode_masks(
            reference,
            self._root,
            positions=[position for position in frames.mask_positions if position is not None],
            num_frames=frames.num_masks,
            frame_size=(height, width),
            size=entry.size,
        )
        return masks

    def _sample(
        self,
        clip: Clip,
        task: str,
        turns: tuple[QuestionAnswer, ...],
        prompts: Mapping[int, PromptAnnotation] | None = None,
        *,
        number: int,
    ) -> Sample:
        return Sample(clip, task, self._definition.name, turns, prompts or {}, seed=number)


def label_classes(entry: Entry, definition: SetDefinition, root: Path) -> list[tuple[Expression, NDArray[np.bool_]]]:
    """Return an expression per class of a label image, with the mask (H, W) at the size of that image.

    Raises:
        OSError: The image cannot be read.
    """
    image = read_label_image(resolve(root, (entry.objects or {})["classes"]["labels"][0]))
    names = definition.class_names()
    return [
        (Expression(label, "query", names[label], "classes"), image == label)
        for label in np.unique(image).tolist()
        if label in names
    ]


def _some_regions(entry: Entry, maximum: int | None, generator: random.Random) -> Entry:
    """Return an entry with some of its turns, each of which asks about one region, and with their objects alone."""
    if maximum is None or len(entry.turns) <= maximum:
        return entry
    turns = [entry.turns[row] for row in sorted(generator.sample(range(len(entry.turns)), maximum))]
    keys = [question.strip("[]") for question, _ in turns]
    return replace(entry, turns=tuple(turns), objects={key: (entry.objects or {})[key] for key in keys})


def _clip(frames: SampledFrames, masks: Mapping[int, NDArray[np.bool_]]) -> Clip:
    empty = np.zeros((0, *frames.images.shape[:3]), bool)
    return Clip(
        frames=frames.images,
        masks=np.stack(list(masks.values())) if masks else empty,
        object_ids=tuple(masks),
        frame_indices=frames.indices,
        timestamps_seconds=tuple(float(index) for index in frames.indices),
        num_source_frames=frames.num_source_frames,
        fps=1.0,
    )


def _no_clip() -> Clip:
    return Clip(np.zeros((0, 1, 1, 3), np.uint8), np.zeros((0, 0, 1, 1), bool), (), (), (), 0, 1.0)


def _mask_prompt(masks: NDArray[np.bool_]) -> PromptAnnotation:
    frame = int(masks.any(axis=(1, 2)).argmax())
    return PromptAnnotation("mask", frame, mask=masks[frame])


def _keep_one_frame(masks: Mapping[int, NDArray[np.bool_]], generator: random.Random) -> dict[int, NDArray[np.bool_]]:
    """Keep the masks on one of the frames that show all objects, if there is one."""
    shared = np.flatnonzero(np.stack([mask.any(axis=(1, 2)) for mask in masks.values()]).all(axis=0)).tolist()
    if not shared:
        return dict(masks)
    kept: Sequence[int] = [generator.choice(shared)]
    single = {}
    for key, mask in masks.items():
        single[key] = np.zeros_like(mask)
        single[key][kept] = mask[kept]
    return single
