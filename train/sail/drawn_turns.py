"""Turns about a drawn image, in the text forms of Pixel-SAIL (arXiv:2504.10465).

Shape letters: O objects, H, W image in pixels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unipixel.processing.chat_template import Turn
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.sail_config import MAX_PROMPTS, SEG_TOKEN
from unipixel.sail.sail_processor import to_prompt_tokens
from unipixel.train.datasets.samples import QuestionAnswer, resolve_ids
from unipixel.train.datasets.synthetic.attributes import Split, held_out_pairs
from unipixel.train.datasets.synthetic.labels import TRUE, UNKNOWN, SceneLabels
from unipixel.train.datasets.synthetic.language.answers import describe
from unipixel.train.datasets.synthetic.language.phrases import pick, plural_noun
from unipixel.train.datasets.synthetic.language.questions import pixelqa_turn
from unipixel.train.datasets.synthetic.language.referring import segmentation_turn

SAIL_TASKS = (
    "attribute", "relation", "reasoning", "no_target", "instances", "visual_text", "region", "regions", "question",
    "pair", "missing_prompt",
)  # fmt: skip
REFERRING_ANSWERS = (
    f"It is {SEG_TOKEN}.",
    f"Sure, {SEG_TOKEN}.",
    f"Sure, it is {SEG_TOKEN}.",
    f"Sure, the segmentation result is {SEG_TOKEN}.",
    f"{SEG_TOKEN}.",
)
NO_TARGET_ANSWER = f"No target {SEG_TOKEN}."
_DESCRIPTIONS = (
    "Can you provide me with a detailed description of the region in the picture marked by {}?",
    "What can you tell me about the region marked by {}?",
    "Describe the region {} in the image.",
    "Describe {} in detail.",
    "Describe {}.",
    "What is {}? Please describe it.",
    "Please give me a short description of {}.",
)
_SHORT_DESCRIPTIONS = ("Describe {} in detail.", "Describe {}.", "What are {}?")
_MAX_DESCRIBED = 4
_SEGMENT = ("Please segment {} in this image.", "Segment {}.", "Can you segment {} in this image?")
_INSTANCE_MODE = "Segmentation in the instance mode."


@dataclass(frozen=True)
class TurnRequest:
    """What the drafting of one turn needs.

    Attributes:
        labels: Ground truth of the image.
        masks: (O, H, W) visible part of each object.
        prompts: Region of each prompted row.
        split: Split of the image.
    """

    labels: SceneLabels
    masks: NDArray[np.bool_]
    prompts: Mapping[int, RegionPrompt]
    split: Split

    @property
    def is_fixed(self) -> bool:
        """Whether questions have the wordings of the evaluation."""
        return self.split != "train"

    def tag(self, row: int) -> str:
        """Return the prompt token of a row."""
        return f"<Prompt{self.prompts[row].prompt_id}>"

    def union(self, rows: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the union (H, W) of masks."""
        united: NDArray[np.bool_] = np.asarray(self.masks[list(rows)].any(axis=0), np.bool_)
        return united


DraftedTurn = tuple[str, str, tuple[NDArray[np.bool_], ...]]
"""Question, answer, and one mask per `[SEG]` of the answer."""


def draft_turn(rng: np.random.Generator, request: TurnRequest, *, task: str) -> DraftedTurn | None:
    """Draft a question and its answer, or None if this attempt failed; `task` is one of `SAIL_TASKS`."""
    return _DRAFTERS[task](rng, request)


def _referring(kind: str, counts: tuple[float, float, float]) -> Callable[..., DraftedTurn | None]:
    def draft(rng: np.random.Generator, request: TurnRequest) -> DraftedTurn | None:
        turn = segmentation_turn(
            rng,
            request.labels,
            kind=kind,
            forbidden=held_out_pairs(request.split),
            num_frames=1,
            is_fixed=request.is_fixed,
            counts=counts,
        )
        if turn is None:
            return None
        if not turn.target_ids:
            return turn.question, NO_TARGET_ANSWER, (np.zeros(request.masks.shape[1:], np.bool_),)
        return turn.question, pick(rng, REFERRING_ANSWERS), (request.union(turn.target_ids),)

    return draft


def _draft_instances(rng: np.random.Generator, request: TurnRequest) -> DraftedTurn | None:
    """Ask for all objects of a shape, one mask each, from left to right."""
    shapes = [obj.shape for obj in request.labels.objects]
    shape = pick(rng, sorted(set(shapes)))
    rows = [row for row, other in enumerate(shapes) if other == shape and request.masks[row].any()]
    if not rows:
        return None
    rows.sort(key=lambda row: int(request.masks[row].any(axis=0).argmax()))
    question = f"{pick(rng, _SEGMENT).format(f'all the {plural_noun(shape)}')} {_INSTANCE_MODE}"
    answer = " ".join(f"{shape}-{number} {SEG_TOKEN}" for number in range(1, len(rows) + 1))
    return question, f"{answer}.", tuple(request.masks[row] for row in rows)


def _draft_visual_text(rng: np.random.Generator, request: TurnRequest) -> DraftedTurn | None:
    """Ask for the objects that have a relation to a marked one, or for the marked one itself."""
    if not request.prompts:
        return None
    row = _pick_number(rng, sorted(request.prompts))
    tag, objects = request.tag(row), request.labels.objects
    kind = pick(rng, ("self", "colour", "shape", "left_of", "right_of", "above", "below"))
    if kind == "self":
        return pick(rng, _SEGMENT).format(tag), pick(rng, REFERRING_ANSWERS), (request.masks[row],)
    if kind in ("colour", "shape"):
        own = getattr(objects[row], kind)
        rows = tuple(other for other, obj in enumerate(objects) if other != row and getattr(obj, kind) == own)
        phrase = f"the objects with the same {kind} as {tag}"
    else:
        truth = request.labels.directions_at["start"][kind][:, row]
        others = np.delete(truth, row)
        if (others == UNKNOWN).any():
            return None
        rows = tuple(int(other) for other in np.flatnonzero(truth == TRUE) if other != row)
        phrase = f"the objects {kind.replace('_', ' ').replace('left', 'to the left').replace('right', 'to the right')}"
        phrase = f"{phrase} {tag}"
    if not rows:
        return None
    return pick(rng, _SEGMENT).format(phrase), pick(rng, REFERRING_ANSWERS), (request.union(rows),)


def _draft_region(rng: np.random.Generator, request: TurnRequest) -> DraftedTurn | None:
    if not request.prompts:
        return None
    row = _pick_number(rng, sorted(request.prompts))
    question = (_DESCRIPTIONS[0] if request.is_fixed else pick(rng, _DESCRIPTIONS)).format(request.tag(row))
    return question, f"{request.tag(row)}: {describe(rng, request.labels, row)}.", ()


def _draft_regions(rng: np.random.Generator, request: TurnRequest) -> DraftedTurn | None:
    """Ask for a description of each of several regions."""
    if len(request.prompts) < 2:
        return None
    count = int(rng.integers(2, min(len(request.prompts), _MAX_DESCRIBED) + 1))
    rows = [int(row) for row in rng.permutation(sorted(request.prompts))[:count]]
    tags = [request.tag(row) for row in rows]
    named = f"{', '.join(tags[:-1])} and {tags[-1]}"
    question = (_SHORT_DESCRIPTIONS[0] if request.is_fixed else pick(rng, _SHORT_DESCRIPTIONS)).format(named)
    answers = (f"{tag}: {describe(rng, request.labels, row)}." for tag, row in zip(tags, rows, strict=True))
    return question, " ".join(answers), ()


def _questions(count: int) -> Callable[..., DraftedTurn | None]:
    def draft(rng: np.random.Generator, request: TurnRequest) -> DraftedTurn | None:
        found = draw_region_question(rng, request.labels, request.prompts, split=request.split, count=count)
        return None if found is None else (found.question, found.answer, ())

    return draft


def draw_region_question(
    rng: np.random.Generator,
    labels: SceneLabels,
    prompts: Mapping[int, RegionPrompt],
    *,
    split: Split,
    count: int,
) -> QuestionAnswer | None:
    """Draft a question about marked regions, which question and answer name as `<PromptK>`.

    Args:
        rng: Source of randomness.
        labels: Ground truth of the image.
        prompts: Region of each marked row.
        split: Split of the image.
        count: 1 or 2 regions.

    Returns:
        The turn, or None if no question was found.
    """
    if len(prompts) < count:
        return None
    found = pixelqa_turn(
        rng,
        labels,
        pool=tuple(sorted(prompts)),
        count=count,
        is_choice=bool(rng.random() < 0.5),
        forbidden=held_out_pairs(split),
    )
    if found is None:
        return None
    turn = resolve_ids(found[0], {row: prompt.prompt_id for row, prompt in prompts.items()})
    return _with_prompt_tokens(turn)


def _with_prompt_tokens(turn: QuestionAnswer) -> QuestionAnswer:
    def renamed(text: str) -> str:
        return to_prompt_tokens(text, num_prompts=MAX_PROMPTS)

    return replace(
        turn,
        question=renamed(turn.question),
        answer=renamed(turn.answer),
        options=tuple(renamed(option) for option in turn.options),
    )


def _pick_number(rng: np.random.Generator, numbers: list[int]) -> int:
    return numbers[int(rng.integers(len(numbers)))]


def _draft_missing_prompt(rng: np.random.Generator, request: TurnRequest) -> DraftedTurn | None:
    used = {prompt.prompt_id for prompt in request.prompts.values()}
    unused = [number for number in range(MAX_PROMPTS) if number not in used]
    tag = f"<Prompt{_pick_number(rng, unused)}>"
    return pick(rng, _DESCRIPTIONS).format(tag), f"{tag} is not in the image.", ()


def missing_prompt_turn(used: Collection[int], generator: random.Random) -> Turn | None:
    """Ask about the first prompt that marks nothing; None where all are used."""
    unused = next((number for number in range(MAX_PROMPTS) if number not in used), None)
    if unused is None:
        return None
    tag = f"<Prompt{unused}>"
    return Turn(generator.choice(_DESCRIPTIONS).format(tag), f"{tag} is not in the image.")


_DRAFTERS: dict[str, Callable[[np.random.Generator, TurnRequest], DraftedTurn | None]] = {
    "attribute": _referring("attribute", (0.0, 0.75, 0.25)),
    "relation": _referring("relation", (0.0, 0.8, 0.2)),
    "reasoning": _referring("reasoning", (0.0, 0.75, 0.25)),
    "no_target": _referring("attribute", (1.0, 0.0, 0.0)),
    "instances": _draft_instances,
    "visual_text": _draft_visual_text,
    "region": _draft_region,
    "regions": _draft_regions,
    "question": _questions(1),
    "pair": _questions(2),
    "missing_prompt": _draft_missing_prompt,
}
