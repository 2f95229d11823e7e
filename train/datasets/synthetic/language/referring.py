"""Segmentation questions: by attribute, relation, motion or reasoning, with one, several or no target."""

from __future__ import annotations

import numpy as np

from unipixel.processing.prompt_templates import (
    SegmentationForm,
    join_words,
    segmentation_answer,
    segmentation_question,
)
from unipixel.processing.special_tokens import SEG
from unipixel.train.datasets.samples import QuestionAnswer
from unipixel.train.datasets.synthetic.labels import SceneLabels
from unipixel.train.datasets.synthetic.language.phrases import (
    Rows,
    capitalize,
    draw_generator,
    noun_phrase,
    unique_traits,
)
from unipixel.train.datasets.synthetic.language.predicates import (
    Predicate,
    attribute_predicate,
    motion_predicate,
    question,
    reference,
    relation_predicate,
)
from unipixel.train.datasets.synthetic.language.reasoning import reasoning_predicate

KINDS = ("attribute", "relation", "motion", "reasoning")


def order_targets(labels: SceneLabels, targets: Rows) -> Rows:
    """Order objects for an answer: by the first frame where they are visible, then left to right, top to bottom."""

    def key(index: int) -> tuple[int, float, float]:
        first = int(labels.is_visible[index].argmax())
        x, y = labels.centres[index, first]
        return first, float(x), float(y)

    return tuple(sorted(targets, key=key))


def find_predicate(
    rng: np.random.Generator,
    labels: SceneLabels,
    *,
    kind: str,
    count: int,
    forbidden: frozenset[tuple[str, str]],
    num_tries: int = 40,
) -> Predicate | None:
    """Find a predicate of a kind that is true of a given number of objects.

    Args:
        rng: Source of randomness.
        labels: The clip.
        kind: One of `KINDS`.
        count: 0, 1, or 2 for several.
        forbidden: Held-out combinations, which are not named.
        num_tries: Maximum number of attempts.

    Returns:
        A decided predicate, or None.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    for _ in range(num_tries):
        if kind == "attribute":
            predicate = attribute_predicate(rng, labels, is_absent=count == 0, forbidden=forbidden)
        elif kind == "motion":
            predicate = motion_predicate(rng, labels, is_absent=count == 0, forbidden=forbidden)
        elif kind == "relation":
            predicate = relation_predicate(rng, labels, is_absent=count == 0)
        else:
            predicate = reasoning_predicate(rng, labels)
        if predicate is not None and predicate.is_decided and min(len(predicate.targets), 2) == count:
            return predicate
    return None


def segmentation_turn(
    rng: np.random.Generator,
    labels: SceneLabels,
    *,
    kind: str,
    forbidden: frozenset[tuple[str, str]],
    num_frames: int,
    is_fixed: bool,
    counts: tuple[float, float, float] = (0.14, 0.58, 0.28),
) -> QuestionAnswer | None:
    """Draft a segmentation question and its answer.

    Args:
        rng: Source of randomness.
        labels: The clip.
        kind: One of `KINDS`.
        forbidden: Held-out combinations, which are not named.
        num_frames: Number of frames of the clip.
        is_fixed: Whether to use the fixed evaluation templates.
        counts: Fractions of questions about no, one and several objects.

    Returns:
        A drafted turn, or None if no predicate of this kind and count was found.
    """
    count = int(rng.choice(3, p=counts))
    predicate = find_predicate(rng, labels, kind=kind, count=count, forbidden=forbidden)
    if predicate is None:
        return None
    targets = order_targets(labels, predicate.targets)
    text, answer = _question_and_answer(rng, labels, predicate, targets, num_frames=num_frames, is_fixed=is_fixed)
    return QuestionAnswer(text, answer, targets, kind=kind)


def _question_and_answer(
    rng: np.random.Generator,
    labels: SceneLabels,
    predicate: Predicate,
    targets: Rows,
    *,
    num_frames: int,
    is_fixed: bool,
) -> tuple[str, str]:
    """Word the question in one of the five published forms, and its answer."""
    count = len(targets)
    forms: list[SegmentationForm] = ["query", "sentence", "explanatory", "question", "description"]
    form = forms[int(rng.choice(len(forms), p=[0.5, 0.3, 0.08, 0.07, 0.05]))]
    answer = segmentation_answer(count, num_frames=num_frames)
    names = _names(rng, labels, targets) if form == "question" and count else None
    if form == "explanatory" and predicate.reason and count == 1:
        answer += f" This is because {predicate.reason}."
    elif names is not None:
        answer = f"{capitalize(names)} {join_words([SEG] * count)}."
    elif form not in ("query", "sentence") and not (form == "description" and count < 2):
        form = "query"
    if form == "query":
        text = reference(rng, predicate, count=count, is_definite=is_fixed)
    elif form == "description":
        text = capitalize(reference(rng, predicate, count=1)) + "."
    else:
        text = question(rng, predicate, count=count)
    generator = draw_generator(rng, is_fixed=is_fixed)
    return segmentation_question(text, form=form, num_frames=num_frames, generator=generator), answer


def _names(rng: np.random.Generator, labels: SceneLabels, targets: Rows) -> str | None:
    """Name the targets by their attributes; None if these do not identify one of them."""
    names = []
    for index in targets:
        traits = unique_traits(rng, labels, index)
        if traits is None:
            return None
        names.append(f"the {noun_phrase(rng, traits)}")
    return join_words(names)
