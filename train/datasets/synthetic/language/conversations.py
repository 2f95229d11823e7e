"""Conversations that use the memory: find an object, ask about it by id or pronoun, find another object."""

from __future__ import annotations

import numpy as np

from unipixel.processing.prompt_templates import segmentation_answer
from unipixel.train.datasets.samples import QuestionAnswer, placeholder
from unipixel.train.datasets.synthetic.labels import TRUE, SceneLabels
from unipixel.train.datasets.synthetic.language.phrases import (
    Traits,
    noun_phrase,
    pick,
    plural_noun,
    sample_traits,
    traits_truth,
)
from unipixel.train.datasets.synthetic.language.questions import pixelqa_turn
from unipixel.train.datasets.synthetic.language.referring import KINDS, order_targets, segmentation_turn


def _another(rng: np.random.Generator, labels: SceneLabels, known: list[int]) -> QuestionAnswer | None:
    """Ask for an object that was not found yet: "And the other star?", "And the blue one?"."""
    rest = [row for row in range(labels.num_objects) if row not in known]
    if not rest:
        return None
    row = rest[int(rng.integers(len(rest)))]
    shape = labels.objects[row].shape
    same_shape = [other for other in range(labels.num_objects) if labels.objects[other].shape == shape]
    remaining = tuple(other for other in same_shape if other not in known)
    if len(remaining) < len(same_shape) and rng.random() < 0.7:
        noun = shape if len(remaining) == 1 else plural_noun(shape)
        text = pick(rng, ("And the other {}?", "What about the other {}?", "Now segment the other {}."))
        targets = order_targets(labels, remaining)
        answer = segmentation_answer(len(targets), num_frames=len(labels.is_visible[0]))
        return QuestionAnswer(text.format(noun), answer, targets, kind="another")
    for _ in range(6):
        traits = sample_traits(rng, labels, row, least=1, most=2)
        truth = traits_truth(labels, traits)
        if (truth == TRUE).sum() == 1 and set(np.unique(truth)) <= {0, 1}:
            break
    else:
        return None
    phrase = noun_phrase(rng, traits)
    if traits == Traits(colour=traits.colour):
        phrase = f"{traits.colour} one"
    text = pick(rng, ("And the {}?", "What about the {}?", "Now segment the {}.", "Please also mark the {}."))
    answer = segmentation_answer(1, num_frames=len(labels.is_visible[0]))
    return QuestionAnswer(text.format(phrase), answer, (row,), kind="another")


def _follow_up(
    rng: np.random.Generator,
    labels: SceneLabels,
    known: list[int],
    last: tuple[int, ...],
    forbidden: frozenset[tuple[str, str]],
) -> QuestionAnswer | None:
    """Ask about objects that were found."""
    is_choice = bool(rng.random() < 0.35)
    if len(known) >= 2 and rng.random() < 0.5:
        found = pixelqa_turn(rng, labels, pool=tuple(known), count=2, is_choice=is_choice, forbidden=forbidden)
    elif len(last) == 1 and rng.random() < 0.5:
        found = pixelqa_turn(rng, labels, pool=last, count=1, is_choice=is_choice, forbidden=forbidden, name="it")
    else:
        found = pixelqa_turn(rng, labels, pool=tuple(known), count=1, is_choice=is_choice, forbidden=forbidden)
    return None if found is None else found[0]


def conversation(
    rng: np.random.Generator,
    labels: SceneLabels,
    *,
    forbidden: frozenset[tuple[str, str]],
    num_frames: int,
    is_fixed: bool,
) -> tuple[list[QuestionAnswer], list[int]] | None:
    """Draft a conversation of two to five turns.

    Args:
        rng: Source of randomness.
        labels: The clip.
        forbidden: Held-out combinations, which are not named.
        num_frames: Number of frames of the clip.
        is_fixed: Whether the first turn uses the fixed evaluation templates.

    Returns:
        Drafted turns and the objects in the order in which they were found; None if this attempt failed.
    """
    kind = pick(rng, KINDS)
    first = segmentation_turn(
        rng, labels, kind=kind, forbidden=forbidden, num_frames=num_frames, is_fixed=is_fixed, counts=(0.0, 0.78, 0.22)
    )
    if first is None or len(first.target_ids) > 3:
        return None
    turns, known, last = [first], list(first.target_ids), first.target_ids
    for _ in range(int(rng.integers(1, 5))):
        turn = _another(rng, labels, known) if rng.random() < 0.3 else _follow_up(rng, labels, known, last, forbidden)
        if turn is None or turn.question in (other.question for other in turns):
            continue
        turns.append(turn)
        if turn.target_ids:
            known += [row for row in turn.target_ids if row not in known]
            last = turn.target_ids
        elif any(placeholder(row) in turn.question for row in known):
            named = tuple(row for row in known if placeholder(row) in turn.question)
            last = named
    return (turns, known) if len(turns) > 1 else None
