"""Evaluation of Pixel-SAIL on drawn images that training does not show: masks, regions and absent objects."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unipixel.model.generation import GenerationSettings
from unipixel.processing.chat_template import Turn
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_conversation import SailConversation
from unipixel.sail.sail_processor import SailProcessor, from_prompt_tokens
from unipixel.train.datasets.synthetic.attributes import COLOURS, SHAPES, Split
from unipixel.train.evaluation.answer_accuracy import is_correct
from unipixel.train.evaluation.scoring.davis_measures import contour_accuracy
from unipixel.train.sail.drawn_images import DrawnImageSettings, draw_sail_sample
from unipixel.train.sail.drawn_turns import NO_TARGET_ANSWER, SAIL_TASKS
from unipixel.train.sail.sail_samples import SailSample

MASK_TASKS = ("attribute", "relation", "reasoning", "instances", "visual_text")
TEXT_TASKS = ("region", "regions", "question", "pair", "missing_prompt")
_SIZES = ((144, 192), (192, 144), (156, 192), (192, 192))
_MAX_NEW_TOKENS = 64
_SEED = 900_000
# Words that state each value of an attribute, and whether a description has to state one.
_ATTRIBUTE_WORDS: tuple[tuple[dict[str, set[str]], bool], ...] = (
    ({colour: {colour} for colour in COLOURS}, True),
    ({shape: {shape} for shape in SHAPES}, True),
    ({"small": {"small", "little"}, "medium": {"medium"}, "large": {"large", "big"}}, False),
    (
        {
            "plain": {"plain"},
            "striped": {"striped", "stripes"},
            "spotted": {"spotted", "spots"},
            "checkered": {"checkered"},
        },
        False,
    ),
)


@dataclass
class _MaskTotals:
    """Sums over the samples of one task.

    Attributes:
        intersection: Pixels in both masks.
        union: Pixels in either mask.
        ious: IoU of each sample.
        contours: F of each sample.
    """

    intersection: int = 0
    union: int = 0
    ious: list[float] = field(default_factory=list)
    contours: list[float] = field(default_factory=list)

    def add(self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Add the masks (H, W) of one sample."""
        both, either = int((predicted & truth).sum()), int((predicted | truth).sum())
        self.intersection += both
        self.union += either
        self.ious.append(both / either if either else 1.0)
        self.contours.append(contour_accuracy(predicted, truth))


def evaluate_sail(
    model: PixelSail,
    processor: SailProcessor,
    *,
    split: Split = "test",
    seed: int = 0,
    limit: int = 200,
    tasks: Sequence[str] = SAIL_TASKS,
) -> dict[str, Any]:
    """Ask a model one question about each of many drawn images.

    Args:
        model: In evaluation mode.
        processor: That of the model.
        split: `val` or `test`: combinations that training holds out are shown, wordings are fixed.
        seed: Seed of the images.
        limit: Number of images over all tasks, which alternate.
        tasks: Some of `SAIL_TASKS`.

    Returns:
        By task: `cIoU`, `gIoU`, the mean contour accuracy `F` and `num_samples` for masks (the union of all masks of an
        answer), `accuracy` for texts, of which those of `region` and `regions` are judged by `describes`; `no_target`
        has `N_acc`, the fraction of questions without a target that have an empty mask, and `T_acc`, the fraction of
        those with a target that have a mask (gRefCOCO, arXiv:2306.00968).

    Raises:
        ValueError: The limit is below 1, or a task is unknown.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    totals: dict[str, _MaskTotals] = defaultdict(_MaskTotals)
    texts: dict[str, list[bool]] = defaultdict(list)
    refusals: dict[str, list[bool]] = {"N_acc": [], "T_acc": []}
    for number in tqdm(range(limit), desc="images", unit="image", leave=False, disable=None):
        task = tasks[number % len(tasks)]
        settings = DrawnImageSettings(_SIZES, 1, {task: 1.0}, split=split)
        sample = draw_sail_sample([_SEED + seed, number], settings, processor=processor)
        text, mask = _answer(model, processor, sample)
        expected = sample.turns[0].answer or ""
        if task in TEXT_TASKS:
            texts[task].append(is_text_right(text, sample, task=task))
            continue
        truth = np.any(sample.masks, axis=0)
        if task in MASK_TASKS:
            totals[task].add(mask, truth)
        is_absent = expected == NO_TARGET_ANSWER
        if is_absent or task in ("attribute", "relation"):
            refusals["N_acc" if is_absent else "T_acc"].append(bool(mask.any()) != is_absent)
    report: dict[str, Any] = {
        task: {
            "cIoU": own.intersection / max(1, own.union),
            "gIoU": float(np.mean(own.ious)),
            "F": float(np.mean(own.contours)),
            "num_samples": len(own.ious),
        }
        for task, own in totals.items()
    }
    report |= {
        task: {"accuracy": float(np.mean(verdicts)), "num_samples": len(verdicts)} for task, verdicts in texts.items()
    }
    report["no_target"] = {name: float(np.mean(values)) for name, values in refusals.items() if values}
    return {**report, "num_samples": limit, "split": split, "seed": seed}


def summarise_sail(report: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a report that a training log shows, one per task and metric."""
    return {
        f"{task}/{name}": value
        for task, values in report.items()
        if isinstance(values, dict)
        for name, value in values.items()
        if name != "num_samples"
    }


def _answer(model: PixelSail, processor: SailProcessor, sample: SailSample) -> tuple[str, NDArray[np.bool_]]:
    """Return the text of an answer and the union (H, W) of its masks."""
    if sample.image is None:
        raise ValueError("a drawn sample has an image")
    conversation = SailConversation(
        model, processor, sample.image, settings=GenerationSettings(max_new_tokens=_MAX_NEW_TOKENS)
    )
    with torch.inference_mode():
        reply = conversation.ask(Turn(sample.turns[0].question), sample.prompts)
    masks = (reply.mask_tokens > 0).numpy()
    union: NDArray[np.bool_] = np.asarray(masks.any(axis=0), np.bool_)
    return reply.text, union if len(masks) else np.zeros(sample.image.shape[:2], np.bool_)


def is_text_right(text: str, sample: SailSample, *, task: str) -> bool:
    """Whether the answer to a question of one of `TEXT_TASKS` is right.

    Args:
        text: The answer, with `[k]` for the prompt k.
        sample: The image with the question and its true answer.
        task: Descriptions, of `region` and `regions`, are judged by `describes`; those of several regions name the
            prompts in the order of the question. Other answers are compared with the true one.
    """
    turn = sample.turns[0]
    if task == "region":
        return describes(text, next(iter(_words_of_prompts(sample).values())))
    if task == "regions":
        # Text before the first id, then ids and texts in turn.
        parts = re.split(r"\[(\d+)\]: ", text)[1:]
        named = _words_of_prompts(sample)
        is_complete = [int(number) for number in parts[::2]] == list(named)
        return is_complete and all(map(describes, parts[1::2], named.values()))
    options = turn.question.count("\n(")
    return is_correct(text, from_prompt_tokens(turn.answer or ""), options=options)


def _words_of_prompts(sample: SailSample) -> dict[int, tuple[str, ...]]:
    """Return the words of the object under each prompt that the question names, in order, by the id of the prompt."""
    prompts = {prompt.prompt_id: np.asarray(prompt.mask, dtype=np.bool_) for prompt in sample.prompts}
    words = {}
    for number in map(int, re.findall(r"<Prompt(\d+)>", sample.turns[0].question)):
        prompt = prompts[number]
        # A box contains pixels of its neighbours as well.
        overlaps = [(prompt & own.mask).sum() / (prompt | own.mask).sum() for own in sample.regions]
        words[number] = sample.regions[int(np.argmax(overlaps))].words
    return words


def describes(text: str, words: Sequence[str]) -> bool:
    """Whether a description names the colour and the shape of an object, and nothing else of it wrongly.

    The size and the texture may be left out, as in the answers of the training samples.

    Args:
        text: The description.
        words: True words of the object: its colour, its shape, and its size and texture where they are certain.
    """
    said = set(re.findall(r"[a-z]+", text.lower().replace("without a pattern", "plain")))
    for values, is_needed in _ATTRIBUTE_WORDS:
        named = {value for value, synonyms in values.items() if said & synonyms}
        true = set(words) & set(values)
        if is_needed and named != true:
            return False
        if named - true and (true or "plain" not in named):
            return False
    return True
