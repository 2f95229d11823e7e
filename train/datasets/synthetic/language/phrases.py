"""Noun phrases and verb phrases: several wordings for each word of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from unipixel.train.datasets.synthetic.labels import FALSE, TRUE, UNKNOWN, SceneLabels, Truth, logical_and

Rows: TypeAlias = tuple[int, ...]
"""Objects of a clip, as rows of its masks."""

GENERIC_NOUNS = (
    ("object", "objects"),
    ("object", "objects"),
    ("shape", "shapes"),
    ("thing", "things"),
    ("figure", "figures"),
)


@dataclass(frozen=True)
class Traits:
    """Attributes that a phrase names; None for those that it does not."""

    shape: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no attribute is named."""
        return self == Traits()


@dataclass(frozen=True)
class Verb:
    """A verb phrase in its forms: "moves left", "move left", "moving left"."""

    third: str
    base: str
    participle: str


def draw_generator(rng: np.random.Generator, *, is_fixed: bool) -> np.random.Generator | None:
    """Return the generator of a template: None, for the fixed one, in evaluation and for a third of training."""
    return None if is_fixed or rng.random() < 0.33 else rng


def pick(rng: np.random.Generator, items: list[str] | tuple[str, ...]) -> str:
    """Draw one of several strings."""
    return items[int(rng.integers(len(items)))]


def plural_noun(shape: str) -> str:
    """Return the plural of a shape word."""
    return shape + ("es" if shape == "cross" else "s")


def capitalize(text: str) -> str:
    """Capitalize the first letter."""
    return text[:1].upper() + text[1:]


def with_article(phrase: str) -> str:
    """Prepend "a" or "an"."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def traits_truth(labels: SceneLabels, traits: Traits) -> Truth:
    """Return whether each object has all the named attributes, (O,); UNKNOWN for an ambiguous size or texture."""
    parts = [np.full(labels.num_objects, TRUE, np.int8)]
    for name in ("shape", "colour"):
        wanted = getattr(traits, name)
        if wanted is not None:
            parts.append(np.array([getattr(obj, name) == wanted for obj in labels.objects], np.int8))
    if traits.texture is not None:
        same = np.array([obj.texture == traits.texture for obj in labels.objects], np.int8)
        parts.append(np.where(labels.has_legible_texture, same, UNKNOWN).astype(np.int8))
    if traits.size is not None:
        words = [UNKNOWN if word is None else int(word == traits.size) for word in labels.size_names]
        parts.append(np.array(words, np.int8))
    return logical_and(*parts)


def noun_phrase(rng: np.random.Generator, traits: Traits, *, plural: bool = False, prefix: str = "") -> str:
    """Word attributes as a noun phrase without an article: "small striped red star", "star in red".

    Args:
        rng: Source of randomness.
        traits: Attributes to name.
        plural: Whether the phrase refers to several objects.
        prefix: Words before all attributes, such as "largest".
    """
    if traits.shape is None:
        noun = GENERIC_NOUNS[int(rng.integers(len(GENERIC_NOUNS)))][int(plural)]
    else:
        noun = plural_noun(traits.shape) if plural else traits.shape
    before, after = [], ""
    if traits.size is not None:
        other = {"small": ("small", "little", "small"), "medium": ("medium", "medium-sized"), "large": ("large", "big")}
        before.append(pick(rng, other[traits.size]))
    texture = traits.texture
    if texture is not None and rng.random() < 0.15:
        after = {
            "striped": " with stripes",
            "spotted": " with spots",
            "checkered": " with a checkered pattern",
            "plain": " without a pattern",
        }[texture]
        texture = None
    if texture is not None:
        before.append(texture)
    if traits.colour is not None:
        if rng.random() < 0.04 and not after:
            after = f" in {traits.colour}"
        else:
            before.append(traits.colour)
    if len(before) > 2 and rng.random() < 0.3:
        before[-1], before[-2] = before[-2], before[-1]
    return " ".join(([prefix] if prefix else []) + before + [noun]) + after


def full_traits(labels: SceneLabels, index: int) -> Traits:
    """Return all attributes of an object, without an ambiguous size or an illegible texture."""
    obj = labels.objects[index]
    texture = obj.texture if labels.has_legible_texture[index] else None
    return Traits(obj.shape, obj.colour, texture, labels.size_names[index])


def sample_traits(
    rng: np.random.Generator, labels: SceneLabels, index: int, *, least: int = 0, most: int = 3
) -> Traits:
    """Draw some attributes of an object.

    Args:
        rng: Source of randomness.
        labels: The clip.
        index: The object.
        least: Minimum number of attributes.
        most: Maximum number of attributes.

    Returns:
        The attributes, without an ambiguous size or an illegible texture.
    """
    known = full_traits(labels, index)
    names = [name for name in ("shape", "colour", "texture", "size") if getattr(known, name) is not None]
    weights = {"shape": 0.36, "colour": 0.36, "texture": 0.15, "size": 0.13}
    share = np.array([weights[name] for name in names])
    count = min(int(rng.integers(least, most + 1)), len(names))
    chosen = rng.choice(names, size=count, replace=False, p=share / share.sum())
    return Traits(**{str(name): getattr(known, str(name)) for name in chosen})


def unique_traits(rng: np.random.Generator, labels: SceneLabels, index: int) -> Traits | None:
    """Draw attributes that identify an object: true of it, and false of all others; None if there are none."""
    for most in (2, 2, 2, 3, 3, 4, 4):
        traits = sample_traits(rng, labels, index, least=1, most=most)
        truth = traits_truth(labels, traits)
        if truth[index] == TRUE and (np.delete(truth, index) == FALSE).all():
            return traits
    return None


_VERBS = (
    Verb("moves", "move", "moving"),
    Verb("moves", "move", "moving"),
    Verb("goes", "go", "going"),
    Verb("travels", "travel", "travelling"),
    Verb("slides", "slide", "sliding"),
    Verb("heads", "head", "heading"),
    Verb("glides", "glide", "gliding"),
)
_ADVERBS = {
    "left": ("left", "to the left", "leftwards", "toward the left", "from right to left"),
    "right": ("right", "to the right", "rightwards", "toward the right", "from left to right"),
    "up": ("up", "upwards", "upward", "toward the top"),
    "down": ("down", "downwards", "downward", "toward the bottom"),
    "diagonal": ("diagonally", "diagonally", "on a diagonal", "at a slant"),
}


def _verbs(*lines: str) -> tuple[Verb, ...]:
    """Parse "third / base / participle" lines."""
    return tuple(Verb(*(part.strip() for part in line.split("/"))) for line in lines)


_MOTION_VERBS: dict[str, tuple[Verb, ...]] = {
    "still": _verbs(
        "stays still / stay still / staying still",
        "does not move / do not move / not moving",
        "remains in place / remain in place / remaining in place",
        "never moves / never move / never moving",
        "rests all the time / rest all the time / resting all the time",
    ),
    "moves": _verbs(
        "moves / move / moving",
        "changes its place / change their place / changing place",
        "is in motion / are in motion / in motion",
    ),
    "turns_back": _verbs(
        "turns back / turn back / turning back",
        "reverses its direction / reverse their direction / reversing direction",
        "turns around / turn around / turning around",
        "moves one way and then comes back / move one way and then come back / going one way and then back",
    ),
    "speeds_up": _verbs(
        "speeds up / speed up / speeding up",
        "gets faster / get faster / getting faster",
        "accelerates / accelerate / accelerating",
    ),
    "slows_down": _verbs(
        "slows down / slow down / slowing down",
        "gets slower / get slower / getting slower",
        "loses speed / lose speed / losing speed",
    ),
    "stops": _verbs(
        "stops / stop / stopping",
        "comes to a stop / come to a stop / coming to a stop",
        "moves and then rests / move and then rest / moving and then resting",
        "moves at first and then stops / move at first and then stop / moving at first and then stopping",
    ),
    "starts_late": _verbs(
        "starts late / start late / starting late",
        "rests and then moves / rest and then move / resting and then moving",
        "waits before it moves / wait before they move / waiting before moving",
        "begins to move late / begin to move late / beginning to move late",
    ),
    "spins": _verbs(
        "spins / spin / spinning",
        "rotates / rotate / rotating",
        "turns around itself / turn around themselves / spinning around",
    ),
    "grows": _verbs(
        "grows / grow / growing",
        "gets bigger / get bigger / getting bigger",
        "becomes larger / become larger / becoming larger",
    ),
    "shrinks": _verbs(
        "shrinks / shrink / shrinking",
        "gets smaller / get smaller / getting smaller",
        "becomes smaller / become smaller / becoming smaller",
    ),
    "circle": _verbs(
        "moves in a circle / move in a circle / moving in a circle",
        "circles around / circle around / circling around",
        "goes round in a circle / go round in a circle / going round in a circle",
    ),
    "bounces": _verbs(
        "bounces off an edge / bounce off an edge / bouncing off an edge",
        "bounces / bounce / bouncing",
        "hits the edge and bounces back / hit the edge and bounce back / bouncing off the border",
    ),
    "appears_late": _verbs(
        "appears late / appear late / appearing late",
        "shows up late / show up late / showing up late",
        "is not there at the start / are not there at the start / missing at the start",
        "comes in later / come in later / coming in later",
    ),
    "leaves": _verbs(
        "leaves / leave / leaving",
        "leaves the frame / leave the frame / leaving the frame",
        "goes out of the picture / go out of the picture / going out of the picture",
        "moves out of view / move out of view / moving out of view",
    ),
    "returns": _verbs(
        "leaves and comes back / leave and come back / leaving and coming back",
        "goes out and returns / go out and return / going out and returning",
    ),
}
PLAIN_MOTION: dict[str, str] = {
    **{word: verbs[0].third for word, verbs in _MOTION_VERBS.items()},
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "diagonal": "moves diagonally",
}


def motion_verb(rng: np.random.Generator, word: str) -> Verb:
    """Draw a wording of a motion, one of `labels.MOTION_WORDS`; that of the vocabulary is the most likely."""
    if word in _ADVERBS:
        verb = _VERBS[int(rng.integers(len(_VERBS)))]
        adverb = pick(rng, _ADVERBS[word])
        return Verb(f"{verb.third} {adverb}", f"{verb.base} {adverb}", f"{verb.participle} {adverb}")
    verbs = _MOTION_VERBS[word]
    return verbs[0] if rng.random() < 0.35 else verbs[int(rng.integers(len(verbs)))]
