"""Predicates: properties of objects, with their truth and their wording."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from unipixel.train.datasets.synthetic.attributes import COLOURS, SHAPES, SIZES, TEXTURES
from unipixel.train.datasets.synthetic.labels import FALSE, TRUE, UNKNOWN, SceneLabels, Truth, logical_and
from unipixel.train.datasets.synthetic.language.phrases import (
    Traits,
    Verb,
    motion_verb,
    noun_phrase,
    pick,
    sample_traits,
    traits_truth,
    unique_traits,
)


@dataclass(frozen=True)
class Predicate:
    """A property of objects, with its wording.

    Attributes:
        truth: Truth for each object (O,).
        traits: Attributes that the noun phrase names; `truth` includes them.
        verb: Clause after the noun ("moves left"), or None.
        is_phrase: Whether the participle can follow the noun directly ("the star moving left").
        prefix: Superlative or "only" before the noun, or "".
        reason: Explanation in an answer, or "".
    """

    truth: Truth
    traits: Traits = field(default_factory=Traits)
    verb: Verb | None = None
    is_phrase: bool = True
    prefix: str = ""
    reason: str = ""

    @property
    def is_decided(self) -> bool:
        """Whether it is true or false of every object, not UNKNOWN."""
        return not (self.truth == UNKNOWN).any()

    @property
    def targets(self) -> tuple[int, ...]:
        """Objects of which it is true."""
        return tuple(int(index) for index in np.flatnonzero(self.truth == TRUE))


def reference(rng: np.random.Generator, predicate: Predicate, *, count: int, is_definite: bool = False) -> str:
    """Word a predicate as a noun phrase with a determiner.

    Args:
        rng: Source of randomness.
        predicate: The predicate.
        count: Number of objects of which it is true; for 0 it is worded as for one or several.
        is_definite: Whether "the" is the only determiner.

    Returns:
        A phrase such as "the red star that moves left" or "all red stars moving left".
    """
    plural = count > 1 or (count == 0 and rng.random() < 0.25)
    style = "the"
    if is_definite:
        style = "the"
    elif plural:
        style = pick(rng, ("the", "all", "all the", "every", "the"))
    elif count == 0 and rng.random() < 0.2:
        style = "any"
    is_plural_noun = plural and style != "every"
    noun = noun_phrase(rng, predicate.traits, plural=is_plural_noun, prefix=predicate.prefix)
    if predicate.verb is None:
        return f"{style} {noun}"
    if predicate.is_phrase and rng.random() < 0.4:
        return f"{style} {noun} {predicate.verb.participle}"
    clause = predicate.verb.base if is_plural_noun else predicate.verb.third
    return f"{style} {noun} {pick(rng, ('that', 'that', 'which'))} {clause}"


def question(rng: np.random.Generator, predicate: Predicate, *, count: int) -> str:
    """Word a predicate as a question.

    Args:
        rng: Source of randomness.
        predicate: The predicate.
        count: Number of objects of which it is true.

    Returns:
        A question such as "Which star moves left?".
    """
    plural = count > 1 or (count == 0 and rng.random() < 0.25)
    if predicate.verb is None or rng.random() < 0.12:
        named = reference(rng, predicate, count=max(count, 1))
        is_many = count > 1 and not named.startswith("every")
        opening = (
            ("Where are", "Can you show me", "Which ones are")
            if is_many
            else ("Where is", "Can you show me", "Which one is")
        )
        return f"{pick(rng, opening)} {named}?"
    if predicate.traits.is_empty and not predicate.prefix and not plural and rng.random() < 0.3:
        return f"What {predicate.verb.third}?"
    noun = noun_phrase(rng, predicate.traits, plural=plural, prefix=predicate.prefix)
    return f"Which {noun} {predicate.verb.base if plural else predicate.verb.third}?"


def copula(rest: str) -> Verb:
    """Return a clause with "to be"."""
    return Verb(f"is {rest}", f"are {rest}", rest)


def attribute_predicate(
    rng: np.random.Generator, labels: SceneLabels, *, is_absent: bool, forbidden: frozenset[tuple[str, str]]
) -> Predicate | None:
    """Draw a predicate about shape, colour, texture and size.

    Args:
        rng: Source of randomness.
        labels: The clip.
        is_absent: Whether it should be false of all objects.
        forbidden: Held-out combinations, which are not named.

    Returns:
        The predicate, or None if this attempt failed.
    """
    index = int(rng.integers(labels.num_objects))
    traits = sample_traits(rng, labels, index, least=2 if is_absent else 1, most=3 if rng.random() < 0.8 else 4)
    if is_absent:
        values = {name: getattr(traits, name) for name in ("shape", "colour", "texture", "size")}
        name = pick(rng, [name for name, value in values.items() if value is not None])
        words = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES}[name]
        # Half of the wrong words are attributes of another object, whose presence alone must not suffice.
        present = [getattr(obj, name) for obj in labels.objects if name != "size"]
        values[name] = pick(rng, present) if present and rng.random() < 0.5 else pick(rng, words)
        traits = Traits(**values)
    if (traits.shape, traits.colour) in forbidden:
        return None
    truth = traits_truth(labels, traits)
    if rng.random() < 0.12 and traits.shape is not None:
        rest = [word for word in (traits.size, traits.texture, traits.colour) if word is not None]
        if rest:
            return Predicate(truth, Traits(shape=traits.shape), copula(" and ".join(rest)), is_phrase=False)
    return Predicate(truth, traits)


def motion_predicate(
    rng: np.random.Generator, labels: SceneLabels, *, is_absent: bool, forbidden: frozenset[tuple[str, str]]
) -> Predicate | None:
    """Draw a predicate about the motion of objects, in half of the cases of objects with given attributes.

    Args:
        rng: Source of randomness.
        labels: The clip.
        is_absent: Whether it should be false of all objects.
        forbidden: Held-out combinations, which are not named: training would learn that they do not exist.

    Returns:
        The predicate, or None if this attempt failed.
    """
    index = int(rng.integers(labels.num_objects))
    true_words = [word for word, truth in labels.motion.items() if truth[index] == TRUE]
    false_words = [word for word, truth in labels.motion.items() if truth[index] == FALSE]
    words = false_words if is_absent else true_words
    if "moves" in words and (len(words) > 1 or is_absent) and rng.random() < 0.85:
        words.remove("moves")
    if not words:
        return None
    word = pick(rng, words)
    traits = Traits()
    if rng.random() < 0.5:
        traits = sample_traits(rng, labels, index, least=1, most=2)
    if (word, traits.shape) in forbidden:
        return None
    parts = [traits_truth(labels, traits), labels.motion[word]]
    verb = motion_verb(rng, word)
    others = [other for other in true_words if other not in (word, "moves")]
    if others and word != "moves" and rng.random() < 0.2:
        second = pick(rng, others)
        parts.append(labels.motion[second])
        more = motion_verb(rng, second)
        verb = Verb(*(f"{a} and {b}" for a, b in zip(_forms(verb), _forms(more), strict=True)))
    return Predicate(logical_and(*parts), traits, verb, reason=f"it {verb.third}")


def _forms(verb: Verb) -> tuple[str, str, str]:
    return verb.third, verb.base, verb.participle


def reference_object(
    rng: np.random.Generator, labels: SceneLabels, *, names: dict[int, str] | None = None
) -> tuple[int, str] | None:
    """Draw an object and a phrase that identifies it.

    Args:
        rng: Source of randomness.
        labels: The clip.
        names: Placeholders of objects that may be named by id, or None.

    Returns:
        The object and a phrase with its article, or its placeholder; or None.
    """
    if names:
        index = int(rng.choice(sorted(names)))
        return index, names[index]
    index = int(rng.integers(labels.num_objects))
    traits = unique_traits(rng, labels, index)
    return None if traits is None else (index, f"the {noun_phrase(rng, traits)}")


_SIDES = {
    "left_of": ("left of", "to the left of", "on the left of"),
    "right_of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "above", "higher than"),
    "below": ("below", "under", "lower than"),
}
_INTERACTIONS = {
    "behind": (
        "goes behind {} / go behind {} / going behind {}",
        "is hidden by {} / are hidden by {} / hidden by {}",
        "passes behind {} / pass behind {} / passing behind {}",
        "is behind {} / are behind {} / behind {}",
        "is occluded by {} / are occluded by {} / occluded by {}",
    ),
    "front": (
        "is in front of {} / are in front of {} / in front of {}",
        "hides {} / hide {} / hiding {}",
        "covers {} / cover {} / covering {}",
        "occludes {} / occlude {} / occluding {}",
    ),
    "touches": (
        "touches {} / touch {} / touching {}",
        "comes into contact with {} / come into contact with {} / in contact with {}",
    ),
    "follows": (
        "follows {} / follow {} / following {}",
        "keeps behind {} on the same path / keep behind {} on the same path / keeping behind {} on the same path",
    ),
    "overtakes": (
        "overtakes {} / overtake {} / overtaking {}",
        "passes {} on the way / pass {} on the way / passing {} on the way",
    ),
}
_TIMES = {
    "": ("", "", " all the time", " throughout the video"),
    "start": (" at the start", " in the first frame", " at the beginning"),
    "end": (" at the end", " in the last frame", " when the video ends"),
}


def interaction_verb(rng: np.random.Generator, word: str, other: str) -> Verb:
    """Word an interaction: behind, front, touches, follows or overtakes."""
    line = pick(rng, _INTERACTIONS[word]) if rng.random() < 0.6 else _INTERACTIONS[word][0]
    return Verb(*(part.strip().format(other) for part in line.split("/")))


def side_verb(rng: np.random.Generator, word: str, other: str, *, when: str) -> Verb:
    """Word a relative position: left_of, right_of, above or below; `when` is "", "start" or "end"."""
    return copula(f"{pick(rng, _SIDES[word])} {other}{pick(rng, _TIMES[when])}")


def relation_predicate(
    rng: np.random.Generator, labels: SceneLabels, *, is_absent: bool, names: dict[int, str] | None = None
) -> Predicate | None:
    """Draw a predicate about the positions or interactions of objects relative to another object.

    Args:
        rng: Source of randomness.
        labels: The clip.
        is_absent: Whether it should be false of all objects.
        names: Placeholders of objects that may be named by id, or None.

    Returns:
        The predicate, or None if this attempt failed.
    """
    found = reference_object(rng, labels, names=names)
    if found is None or labels.num_objects < 2:
        return None
    other, phrase = found
    kind = rng.random()
    if kind < 0.42:
        word, when = pick(rng, list(_SIDES)), pick(rng, ("", "start", "end"))
        table = labels.directions_at[when][word] if when else labels.relations[word]
        verb = side_verb(rng, word, phrase, when=when)
    elif kind < 0.62:
        return _nearest_predicate(rng, labels, other=other, phrase=phrase)
    else:
        words = list(_INTERACTIONS)
        if not is_absent:
            words = [word for word in words if (labels.relations[word][:, other] == TRUE).any()]
        if not words:
            return None
        word = pick(rng, words)
        table, verb = labels.relations[word], interaction_verb(rng, word, phrase)
    truth = table[:, other].copy()
    truth[other] = FALSE
    traits = Traits()
    if rng.random() < 0.5:
        index = int(rng.integers(labels.num_objects))
        traits = sample_traits(rng, labels, index, least=1, most=2)
        truth = logical_and(truth, traits_truth(labels, traits))
    return Predicate(truth, traits, verb, reason=f"it {verb.third}")


def _nearest_predicate(rng: np.random.Generator, labels: SceneLabels, *, other: int, phrase: str) -> Predicate | None:
    """Draw "nearest to", or "farthest from", another object at the start or the end."""
    when = pick(rng, ("start", "end"))
    gaps = labels.distances_at[when][other].copy()
    gaps[other] = np.nan
    if labels.num_objects < 3 or np.isnan(np.delete(gaps, other)).any():
        return None
    order = np.argsort(np.where(np.isnan(gaps), np.inf, gaps))[:-1]
    is_near = rng.random() < 0.6
    best, next_best = (order[0], order[1]) if is_near else (order[-1], order[-2])
    low, high = sorted((gaps[best], gaps[next_best]))
    if high < 1.25 * low or high - low < 0.06:
        return None
    truth = np.zeros(labels.num_objects, np.int8)
    truth[best] = TRUE
    word = pick(rng, ("nearest to", "closest to")) if is_near else "farthest from"
    verb = copula(f"{word} {phrase}{pick(rng, _TIMES[when])}")
    return Predicate(truth, Traits(), verb, reason=f"it {verb.third}")
