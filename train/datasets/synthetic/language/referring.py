"""Segmentation turns: by attribute, relation, motion or reasoning, with one, several or no target."""

from __future__ import annotations

import numpy as np

from unipixel.train.datasets.samples import QuestionAnswer
from unipixel.train.datasets.synthetic.labels import SceneLabels
from unipixel.train.datasets.synthetic.language import templates
from unipixel.train.datasets.synthetic.language.phrases import joined, noun_phrase, unique_traits
from unipixel.train.datasets.synthetic.language.predicates import (
    Predicate,
    attribute_claim,
    motion_claim,
    question,
    reference,
    relation_claim,
)
from unipixel.train.datasets.synthetic.language.reasoning import reasoning_claim

KINDS = ("attribute", "relation", "motion", "reasoning")


def in_reading_order(labels: SceneLabels, targets: tuple[int, ...]) -> tuple[int, ...]:
    """Order several targets: who is seen first, then from left to right, then from top to bottom.

    Args:
        labels: The clip.
        targets: Objects.

    Returns:
        The same objects in the order of their masks in an answer.
    """

    def key(index: int) -> tuple[int, float, float]:
        first = int(labels.is_visible[index].argmax())
        x, y = labels.centres[index, first]
        return first, float(x), float(y)

    return tuple(sorted(targets, key=key))


def propose(
    rng: np.random.Generator,
    labels: SceneLabels,
    *,
    kind: str,
    count: int,
    forbidden: frozenset[tuple[str, str]],
    num_tries: int = 40,
) -> Predicate | None:
    """Find a claim of a kind that holds of a wanted number of objects.

    Args:
        rng: Source of randomness.
        labels: The clip.
        kind: A word of `KINDS`.
        count: 0, 1, or 2 for several.
        forbidden: Held-out combinations, not to be named.
        num_tries: Draws before giving up.

    Returns:
        A decided claim, or None.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind {kind!r}; allowed are {', '.join(KINDS)}.")
    for _ in range(num_tries):
        if kind == "attribute":
            claim = attribute_claim(rng, labels, is_absent=count == 0, forbidden=forbidden)
        elif kind == "motion":
            claim = motion_claim(rng, labels, is_absent=count == 0, forbidden=forbidden)
        elif kind == "relation":
            claim = relation_claim(rng, labels, is_absent=count == 0)
        else:
            claim = reasoning_claim(rng, labels)
        if claim is not None and claim.is_decided and min(len(claim.targets), 2) == count:
            return claim
    return None


def _name(rng: np.random.Generator, labels: SceneLabels, targets: tuple[int, ...]) -> str | None:
    """Names of the targets by their looks, or None where one cannot be told from the others."""
    names = []
    for index in targets:
        traits = unique_traits(rng, labels, index)
        if traits is None:
            return None
        names.append(f"the {noun_phrase(rng, traits)}")
    return joined(names)


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
        kind: A word of `KINDS`.
        forbidden: Held-out combinations, not to be named.
        num_frames: Frames shown.
        is_fixed: Whether to use the fixed evaluation questions.
        counts: Shares of questions about none, one and several objects.

    Returns:
        A drafted turn, or None where the clip does not lend itself to it.
    """
    count = int(rng.choice(3, p=counts))
    claim = propose(rng, labels, kind=kind, count=count, forbidden=forbidden)
    if claim is None:
        return None
    targets = in_reading_order(labels, claim.targets)
    text, answer = _worded(rng, labels, claim, targets, num_frames=num_frames, is_fixed=is_fixed)
    return QuestionAnswer(text, answer, targets, kind=kind)


def _worded(
    rng: np.random.Generator,
    labels: SceneLabels,
    claim: Predicate,
    targets: tuple[int, ...],
    *,
    num_frames: int,
    is_fixed: bool,
) -> tuple[str, str]:
    """Question and answer in one of the five published forms."""
    count = len(targets)
    form = rng.choice(["query", "sentence", "explanatory", "question", "description"], p=[0.5, 0.3, 0.08, 0.07, 0.05])
    noun, plain = templates.visual(num_frames), templates.response(count=count, num_frames=num_frames)

    def ask(pool: tuple[str, ...]) -> str:
        return templates.draw(rng, pool, is_fixed=is_fixed)

    if form == "explanatory" and claim.reason and count == 1:
        return ask(templates.EXPLANATORY).format(
            question(rng, claim, count=count)
        ), f"{plain} This is because {claim.reason}."
    if form == "question" and count:
        name = _name(rng, labels, targets)
        if name is not None:
            named = f"{name[0].upper()}{name[1:]} {joined([templates.SEG] * count)}."
            return ask(templates.QUESTION).format(question(rng, claim, count=count)), named
    if form == "description" and count < 2:
        described = reference(rng, claim, count=1)
        return ask(templates.DESCRIPTION).format(described[0].upper() + described[1:] + "."), plain
    if form == "sentence":
        return ask(templates.SENTENCE).format(question(rng, claim, count=count)), plain
    query = reference(rng, claim, count=count, is_definite=is_fixed)
    return templates.fill(ask(templates.QUERY), query, noun), plain
