"""Predicates that rank objects: superlatives, comparisons and temporal order, each with a margin."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.synthetic.labels import FALSE, TRUE, UNKNOWN, SceneLabels, Truth, logical_and
from unipixel.train.datasets.synthetic.language.phrases import Traits, Verb, pick, sample_traits, traits_truth
from unipixel.train.datasets.synthetic.language.predicates import Predicate, copula, reference_object

SPEED_RATIO, AREA_RATIO, EXTENT_RATIO = 1.4, 1.3, 1.12
_ORDINALS = ("", "second ", "third ")


def ranking(values: NDArray[np.float64], members: NDArray[np.bool_], *, ratio: float) -> list[int] | None:
    """Rank objects by one or more measures that must agree.

    Args:
        values: Measures (O, M); NaN where unknown.
        members: Whether each object is ranked (O,).
        ratio: Minimum quotient of two neighbours in the ranking, in every measure.

    Returns:
        Indices from the largest to the smallest, up to the first pair that is too close; None if fewer than two
        are ranked or a value is unknown.
    """
    chosen = np.flatnonzero(members)
    if len(chosen) < 2 or np.isnan(values[chosen]).any():
        return None
    order = chosen[np.argsort(-values[chosen, 0])]
    ranked = [int(order[0])]
    for before, after in itertools.pairwise(order):
        if (values[before] < ratio * values[after] + 1e-9).any():
            break
        ranked.append(int(after))
    else:
        return ranked
    # The last one is too close to the next.
    return ranked[:-1]


def _only(labels: SceneLabels, index: int) -> Truth:
    truth = np.zeros(labels.num_objects, np.int8)
    truth[index] = TRUE
    return truth


def size_values(labels: SceneLabels) -> NDArray[np.float64]:
    """Return the measures of size (O, 4): areas and scaled extents."""
    # Extents need a smaller margin than areas: they are raised to a power so that one ratio applies to both.
    power = np.log(AREA_RATIO) / np.log(EXTENT_RATIO)
    return np.concatenate([labels.areas, labels.extents**power], axis=1)


def speed_values(labels: SceneLabels) -> NDArray[np.float64]:
    """Return the measures of speed (O, 2): mean and peak, with a positive minimum."""
    return np.maximum(labels.speeds, 1e-3)


def superlative(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw a superlative: the largest, the second fastest, the leftmost."""
    traits = Traits()
    if rng.random() < 0.3:
        index = int(rng.integers(labels.num_objects))
        traits = sample_traits(rng, labels, index, least=1, most=1)
    among = traits_truth(labels, traits)
    if (among == UNKNOWN).any():
        return None
    members = among == TRUE
    kind = pick(rng, ("size", "speed", "side", "size", "speed"))
    if kind == "side":
        return _outermost(rng, labels, traits, members)
    if kind == "size":
        values, ratio, most, least = size_values(labels), AREA_RATIO, ("largest", "biggest"), "smallest"
    else:
        values, ratio, most, least = speed_values(labels), SPEED_RATIO, ("fastest", "fastest"), "slowest"
        members = members & (labels.motion["moves"] == TRUE)
    # Whether objects at rest are the slowest is ambiguous.
    has_least = kind == "size" or int((among == TRUE).sum()) == int(members.sum())
    if not has_least or rng.random() < 0.6:
        order, names = ranking(values, members, ratio=ratio), most
    else:
        order, names = ranking(1 / values, members, ratio=ratio), (least, least)
    if not order:
        return None
    rank = int(rng.integers(min(len(order), 3))) if rng.random() < 0.4 else 0
    name = _ORDINALS[rank] + pick(rng, names)
    truth = _only(labels, order[rank])
    if rng.random() < 0.5:
        return Predicate(truth, traits, prefix=name, reason=f"it is the {name} one")
    return Predicate(truth, traits, copula(f"the {name}"), is_phrase=False, reason=f"it is the {name} one")


def _outermost(
    rng: np.random.Generator, labels: SceneLabels, traits: Traits, members: NDArray[np.bool_]
) -> Predicate | None:
    name, axis, sign = (("leftmost", 0, -1), ("rightmost", 0, 1), ("topmost", 1, -1), ("lowest", 1, 1))[
        int(rng.integers(4))
    ]
    when, index = (("at the start", 0), ("at the end", -1))[int(rng.integers(2))]
    chosen = np.flatnonzero(members)
    if len(chosen) < 2 or not labels.is_visible[chosen, index].all():
        return None
    positions = sign * labels.centres[chosen, index, axis]
    order = np.argsort(-positions)
    if positions[order[0]] - positions[order[1]] < 0.09:
        return None
    truth = _only(labels, int(chosen[order[0]]))
    return Predicate(
        truth, traits, copula(f"the {name} {when}"), is_phrase=False, reason=f"it is the {name} one {when}"
    )


def compared(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw a comparison: larger, smaller, faster or slower than another object."""
    found = reference_object(rng, labels)
    if found is None:
        return None
    other, phrase = found
    name = pick(rng, ("larger", "smaller", "faster", "slower"))
    truth = compare_all(labels, other, name)
    if name == "faster" or name == "slower":
        verb = Verb(f"moves {name} than {phrase}", f"move {name} than {phrase}", f"moving {name} than {phrase}")
        verb = verb if rng.random() < 0.7 else copula(f"{name} than {phrase}")
    else:
        word = {"larger": ("larger", "bigger"), "smaller": ("smaller", "smaller")}[name]
        verb = copula(f"{pick(rng, word)} than {phrase}")
    traits = Traits()
    if rng.random() < 0.3:
        index = int(rng.integers(labels.num_objects))
        traits = sample_traits(rng, labels, index, least=1, most=1)
    return Predicate(logical_and(truth, traits_truth(labels, traits)), traits, verb, reason=f"it {verb.third}")


def compare_all(labels: SceneLabels, other: int, name: str) -> Truth:
    """Return which objects are larger, smaller, faster or slower than one object.

    Args:
        labels: The clip.
        other: The object that they are compared with.
        name: "larger", "smaller", "faster" or "slower".

    Returns:
        Truth (O,); FALSE for the object itself.
    """
    truth = np.full(labels.num_objects, UNKNOWN, np.int8)
    if name in ("larger", "smaller"):
        values, ratio = size_values(labels), AREA_RATIO
    else:
        values, ratio = speed_values(labels), SPEED_RATIO
    more = (values > ratio * values[other]).all(axis=1)
    less = (ratio * values < values[other]).all(axis=1)
    if name in ("smaller", "slower"):
        more, less = less, more
    truth[more], truth[less] = TRUE, FALSE
    if name in ("faster", "slower"):
        # "Slower than" presumes that something moves.
        truth[labels.motion["moves"] != TRUE] = UNKNOWN if name == "slower" else FALSE
        if labels.motion["moves"][other] != TRUE:
            truth[:] = UNKNOWN
    truth[other] = FALSE
    return truth


_ORDER_VERBS = {
    "stops": "stop",
    "leaves": "leave",
    "appears_late": "appear late",
    "turns_back": "turn back",
    "starts_late": "start to move late",
}


def ordered(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw a temporal order: the first to stop, the last to leave."""
    found = event_order(rng, labels)
    if found is None:
        return None
    index, text = found
    return Predicate(_only(labels, index), Traits(), copula(f"the {text}"), is_phrase=False, reason=f"it is the {text}")


def event_order(rng: np.random.Generator, labels: SceneLabels) -> tuple[int, str] | None:
    """Draw an event that at least two objects have at clearly different times.

    Args:
        rng: Source of randomness.
        labels: The clip.

    Returns:
        The first or last object to have it, and a phrase such as "first to stop"; None if there is no such event.
    """
    for word in rng.permutation(sorted(_ORDER_VERBS)):
        if (labels.motion[str(word)] == UNKNOWN).any():
            continue
        moments = labels.event_times[str(word)]
        order = np.argsort(np.where(np.isnan(moments), np.inf, moments))[: int((~np.isnan(moments)).sum())]
        if len(order) < 2:
            continue
        is_first = rng.random() < 0.5
        one, two = (order[0], order[1]) if is_first else (order[-1], order[-2])
        if abs(moments[one] - moments[two]) > 0.13:
            return int(one), f"{'first' if is_first else 'last'} to {_ORDER_VERBS[str(word)]}"
    return None
