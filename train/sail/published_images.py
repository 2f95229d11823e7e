"""Samples of published sets in the text forms of Pixel-SAIL (arXiv:2504.10465), encoded for a model.

Shape letters: H, W image in pixels.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from unipixel.processing.chat_template import Turn
from unipixel.processing.prompt_templates import segmentation_answer
from unipixel.processing.special_tokens import SEG
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.sail_config import MAX_PROMPTS, SEG_TOKEN
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.datasets.mixture import SampleSource
from unipixel.train.datasets.samples import QuestionAnswer, Sample
from unipixel.train.sail.drawn_images import with_own_cells
from unipixel.train.sail.drawn_turns import NO_TARGET_ANSWER, REFERRING_ANSWERS, missing_prompt_turn
from unipixel.train.sail.sail_samples import SailExample, SailSample, encode_sail

DESCRIPTION_SETS = (
    "coco_category",
    "generated_captions",
    "osprey_detail_description",
    "pix2cap_description",
    "sam_captions",
)
"""Sets whose answers describe a region, and begin with the region."""
_MENTION = re.compile(r"\[(\d{1,4})\]")
_REFERRING_ANSWER = segmentation_answer(1, num_frames=1)
_ABSENT_ANSWER = segmentation_answer(0, num_frames=1)


class PublishedImages(Dataset):
    """The samples of a run, from published sets."""

    def __init__(
        self,
        processor: SailProcessor,
        source: SampleSource,
        sampler: TaskBatchSampler,
        *,
        seed: int,
        max_tokens: int,
        missing_prompt_rate: float = 0.05,
        has_images: bool = False,
    ) -> None:
        """Describe a run.

        Args:
            processor: That of the model.
            source: Draws the samples.
            sampler: Order of the sets.
            seed: Seed of ids and wordings.
            max_tokens: Longest sequence.
            missing_prompt_rate: See `to_sail_sample`.
            has_images: Whether examples contain their image, for teachers.
        """
        self._processor, self._source, self._sampler = processor, source, sampler
        self._seed, self._max_tokens = seed, max_tokens
        self._missing_prompt_rate, self._has_images = missing_prompt_rate, has_images

    def __len__(self) -> int:
        """Samples of the run."""
        return len(self._sampler)

    def __getitem__(self, index: int) -> SailExample | InvalidExample:
        """Return sample `index`, or why it is invalid."""
        task, number = self._sampler.locate(index)
        generator = random.Random(f"{self._seed}/{task}/{number}/sail")
        try:
            sample = to_sail_sample(
                self._source.draw(task, number),
                self._processor,
                generator=generator,
                missing_prompt_rate=self._missing_prompt_rate,
            )
            return encode_sail(sample, self._processor, max_tokens=self._max_tokens, has_image=self._has_images)
        except (ValueError, KeyError, OSError) as error:
            return InvalidExample(f"{task}/{number}", f"{type(error).__name__}: {error}")


def to_sail_sample(
    sample: Sample, processor: SailProcessor, *, generator: random.Random, missing_prompt_rate: float = 0.05
) -> SailSample:
    """Convert a sample of a published set.

    Regions get random prompt ids. A region that has no cell of the grid for itself is left out, with the turns that
    name it. A question whose target is absent is answered with an empty mask.

    Args:
        sample: One image, or a conversation without one.
        processor: That of the model.
        generator: Draws ids and wordings.
        missing_prompt_rate: Probability, before each turn about a region, of a turn about a prompt that marks nothing;
            at most one per sample.

    Raises:
        ValueError: The sample is a video or has too many regions, an answer has no mask for a `<|seg|>`, or no turn is
            left.
    """
    frames = sample.clip.frames
    if len(frames) > 1:
        raise ValueError(f"a clip of {len(frames)} frames: Pixel-SAIL is trained on images")
    if not len(frames):
        return SailSample(None, tuple(Turn(turn.question, turn.answer) for turn in sample.turns))
    prompts = _prompts(sample, processor, generator)
    turns: list[Turn] = []
    masks: list[NDArray[np.bool_]] = []
    has_missing = False
    for given in sample.turns:
        if any(number not in prompts for number in _mentions(given)):
            continue
        if prompts and not has_missing and generator.random() < missing_prompt_rate:
            missing = missing_prompt_turn({one.prompt_id for one in prompts.values()}, generator)
            has_missing = missing is not None
            turns.extend([missing] if missing is not None else [])
        turn, own = _convert(given, sample, {key: one.prompt_id for key, one in prompts.items()}, generator)
        turns.append(turn)
        masks.extend(own)
    if not turns:
        raise ValueError("no turn is left: the regions that they name have no cell of the grid for themselves")
    return SailSample(frames[0], tuple(turns), tuple(masks), tuple(prompts.values()))


def _prompts(sample: Sample, processor: SailProcessor, generator: random.Random) -> dict[int, RegionPrompt]:
    """Return the regions of a sample by its object ids, with random prompt ids."""
    if len(sample.prompts) > MAX_PROMPTS:
        raise ValueError(f"{len(sample.prompts)} regions, Pixel-SAIL has {MAX_PROMPTS} prompt ids")
    ids = generator.sample(range(MAX_PROMPTS), len(sample.prompts))
    regions = {
        key: RegionPrompt(number, sample.clip.masks_of(key)[0]) for key, number in zip(sample.prompts, ids, strict=True)
    }
    return with_own_cells(regions, sample.clip.frames.shape[1:3], processor)


def _mentions(turn: QuestionAnswer) -> set[int]:
    return {int(number) for number in _MENTION.findall(turn.question + turn.answer)}


def _convert(
    turn: QuestionAnswer, sample: Sample, ids: Mapping[int, int], generator: random.Random
) -> tuple[Turn, list[NDArray[np.bool_]]]:
    """Return a turn with prompt tokens, and the mask (H, W) of each `[SEG]`."""
    question, answer = (
        _MENTION.sub(lambda found: f"<Prompt{ids[int(found[1])]}>", text) for text in (turn.question, turn.answer)
    )
    if turn.answer == _ABSENT_ANSWER and not turn.target_ids:
        return Turn(question, NO_TARGET_ANSWER), [np.zeros(sample.clip.frames.shape[1:3], bool)]
    if sample.kind in DESCRIPTION_SETS and (named := _MENTION.search(turn.question)):
        answer = f"<Prompt{ids[int(named[1])]}>: {answer}"
    masks = [sample.clip.masks_of(number)[0] for number in turn.target_ids]
    if turn.answer == _REFERRING_ANSWER:
        # One mask shows all that is meant.
        return Turn(question, generator.choice(REFERRING_ANSWERS)), [np.any(masks, axis=0)]
    if answer.count(SEG) != len(masks):
        raise ValueError(f"the answer {answer[:60]!r} has {answer.count(SEG)} masks, the annotation {len(masks)}")
    return Turn(question, answer.replace(SEG, SEG_TOKEN)), masks
