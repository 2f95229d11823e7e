"""Predicates that need reasoning: counts, equality, exceptions, ranking and common knowledge."""

from __future__ import annotations

from collections import Counter

import numpy as np

from unipixel.train.datasets.synthetic.attributes import SHAPES
from unipixel.train.datasets.synthetic.labels import FALSE, TRUE, UNKNOWN, SceneLabels, logical_and, logical_not
from unipixel.train.datasets.synthetic.language.comparisons import compared, ordered, superlative
from unipixel.train.datasets.synthetic.language.phrases import (
    Traits,
    Verb,
    motion_verb,
    pick,
    plural_noun,
    traits_truth,
    with_article,
)
from unipixel.train.datasets.synthetic.language.predicates import Predicate, copula, interaction_verb, reference_object

# Things of a known colour.
_COLOUR_ASSOCIATIONS = {
    "green": ("grass", "a fresh leaf", "a frog"),
    "yellow": ("a ripe lemon", "a ripe banana", "the sun in a child's drawing"),
    "white": ("snow", "milk", "fresh cotton"),
    "red": ("a ripe tomato", "blood", "a stop sign"),
    "blue": ("a clear sky", "the deep sea"),
    "orange": ("a carrot", "a pumpkin", "a ripe orange"),
    "black": ("coal", "the night", "a raven"),
    "pink": ("a flamingo", "a pig"),
    "purple": ("an aubergine", "lavender"),
    "cyan": ("a swimming pool", "shallow tropical water"),
}
_TEXTURE_ASSOCIATIONS = {
    "striped": (
        "is patterned like a zebra / are patterned like a zebra",
        "has the pattern of a tiger / have the pattern of a tiger",
    ),
    "spotted": (
        "is patterned like a ladybird / are patterned like a ladybird",
        "has dots like a dalmatian / have dots like a dalmatian",
    ),
    "checkered": (
        "is patterned like a chessboard / are patterned like a chessboard",
        "looks like a chessboard / look like a chessboard",
    ),
}
# (clause, shapes of which it is true, ambiguous shapes)
_SHAPE_ASSOCIATIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("has three corners / have three corners", ("triangle",), ("heart",)),
    ("has exactly three sides / have exactly three sides", ("triangle",), ()),
    ("has four equal sides / have four equal sides", ("square",), ()),
    ("has four corners / have four corners", ("square",), ()),
    ("has five points / have five points", ("star",), ()),
    ("has no corners at all / have no corners at all", ("circle", "ring"), ("heart", "crescent")),
    ("is used as a sign of love / are used as a sign of love", ("heart",), ()),
    ("has the shape used for love / have the shape used for love", ("heart",), ()),
    ("is shaped like a coin / are shaped like a coin", ("circle",), ("ring",)),
    ("has the shape of a coin / have the shape of a coin", ("circle",), ("ring",)),
    ("has a hole in the middle / have a hole in the middle", ("ring",), ()),
    ("looks like a doughnut / look like a doughnut", ("ring",), ()),
    ("could be worn on a finger / could be worn on a finger", ("ring",), ()),
    ("looks like a young moon / look like a young moon", ("crescent",), ()),
    ("has the shape of a thin moon / have the shape of a thin moon", ("crescent",), ()),
    ("looks like a plus sign / look like a plus sign", ("cross",), ()),
    ("has four arms / have four arms", ("cross",), ()),
)


def counted(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw a count: the only ring, the objects whose colour occurs twice, the only one of its kind."""
    name = pick(rng, ("shape", "colour", "colour", "shape", "texture"))
    if name == "texture" and not labels.has_legible_texture.all():
        return None
    words = [getattr(obj, name) for obj in labels.objects]
    counts = Counter(words)
    kind = rng.random()
    if kind < 0.4:
        singles = [word for word, number in counts.items() if number == 1]
        if not singles or labels.num_objects < 2:
            return None
        word = pick(rng, singles)
        truth = np.array([other == word for other in words], np.int8)
        return Predicate(truth, Traits(**{name: word}), prefix="only", reason=f"there is no other {word} one")
    if kind < 0.65 and labels.num_objects >= 3:
        number = 2 if rng.random() < 0.75 else 3
        fitting = [word for word, times in counts.items() if times == number]
        if len(fitting) != 1:
            return None
        truth = np.array([other == fitting[0] for other in words], np.int8)
        times = {2: "twice", 3: "three times"}[number]
        how = {"shape": "a shape", "colour": "a colour", "texture": "a pattern"}[name]
        verb = Verb(*(f"{have} {how} that appears exactly {times}" for have in ("has", "have", "having")))
        return Predicate(truth, Traits(), verb, reason=f"{fitting[0]} appears {times}")
    odd = [word for word, times in counts.items() if times == 1]
    if len(counts) != 2 or len(odd) != 1 or labels.num_objects < 3:
        return None
    truth = np.array([word == odd[0] for word in words], np.int8)
    how = {"shape": "shape", "colour": "colour", "texture": "pattern"}[name]
    verb = Verb(*(f"{have} a different {how} from all the others" for have in ("has", "have", "with")))
    return Predicate(truth, Traits(), verb, reason=f"it alone is {odd[0] if name != 'shape' else with_article(odd[0])}")


def same(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw an equality: the same colour, shape or pattern as another object."""
    found = reference_object(rng, labels)
    if found is None:
        return None
    other, phrase = found
    name = pick(rng, ("shape", "colour", "colour", "texture"))
    if name == "texture" and not labels.has_legible_texture.all():
        return None
    noun = {"shape": "shape", "colour": "colour", "texture": "pattern"}[name]
    word = getattr(labels.objects[other], name)
    truth = np.array([getattr(obj, name) == word for obj in labels.objects], np.int8)
    truth[other] = FALSE
    verb = Verb(*(f"{have} the same {noun} as {phrase}" for have in ("has", "have", "with")))
    return Predicate(truth, Traits(), verb, reason=f"it is also {word if name != 'shape' else with_article(word)}")


def excepted(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw a negation: not red, not a star, does not move."""
    index = int(rng.integers(labels.num_objects))
    obj = labels.objects[index]
    kind = rng.random()
    if kind < 0.4:
        truth = (logical_not(labels.motion["moves"])).astype(np.int8)
        verb = motion_verb(rng, "still")
        return Predicate(truth, Traits(), verb, reason="it keeps its place")
    traits = Traits()
    if kind < 0.7:
        truth = np.array([other.colour != obj.colour for other in labels.objects], np.int8)
        verb = Verb(f"is not {obj.colour}", f"are not {obj.colour}", f"other than {obj.colour}")
        if rng.random() < 0.4:
            traits = Traits(shape=pick(rng, [other.shape for other in labels.objects]))
            truth = logical_and(truth, traits_truth(labels, traits))
        return Predicate(truth, traits, verb, is_phrase=False, reason=f"it is not {obj.colour}")
    truth = np.array([other.shape != obj.shape for other in labels.objects], np.int8)
    verb = Verb(f"is not {with_article(obj.shape)}", f"are not {plural_noun(obj.shape)}", "")
    return Predicate(truth, Traits(), verb, is_phrase=False, reason=f"it is not {with_article(obj.shape)}")


def knowledge(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw common knowledge about shapes, colours and textures."""
    kind = rng.random()
    obj = labels.objects[int(rng.integers(labels.num_objects))]
    if kind < 0.42:
        things = _COLOUR_ASSOCIATIONS[obj.colour if rng.random() < 0.9 else pick(rng, sorted(_COLOUR_ASSOCIATIONS))]
        thing = things[0] if rng.random() < 0.55 else pick(rng, things)
        colour = next(word for word, things in _COLOUR_ASSOCIATIONS.items() if thing in things)
        truth = np.array([other.colour == colour for other in labels.objects], np.int8)
        verb = Verb(*(f"{have} the colour of {thing}" for have in ("has", "have", "with")))
        if rng.random() < 0.3:
            verb = copula(f"coloured like {thing}")
        traits = Traits(shape=obj.shape) if rng.random() < 0.25 else Traits()
        return Predicate(logical_and(truth, traits_truth(labels, traits)), traits, verb, reason=f"it is {colour}")
    if kind < 0.52 and labels.has_legible_texture.all():
        texture = pick(rng, sorted(_TEXTURE_ASSOCIATIONS))
        third, base = (part.strip() for part in pick(rng, _TEXTURE_ASSOCIATIONS[texture]).split("/"))
        truth = np.array([other.texture == texture for other in labels.objects], np.int8)
        return Predicate(truth, Traits(), Verb(third, base, ""), is_phrase=False, reason=f"it is {texture}")
    fitting = [line for line in _SHAPE_ASSOCIATIONS if obj.shape in line[1]]
    clause, shapes, doubtful = (
        fitting[int(rng.integers(len(fitting)))]
        if rng.random() < 0.9
        else _SHAPE_ASSOCIATIONS[int(rng.integers(len(_SHAPE_ASSOCIATIONS)))]
    )
    third, base = (part.strip() for part in clause.split("/"))
    truth = np.array([TRUE if other.shape in shapes else FALSE for other in labels.objects], np.int8)
    truth[[other.shape in doubtful for other in labels.objects]] = UNKNOWN
    present = sorted({other.shape for other in labels.objects if other.shape in shapes}, key=SHAPES.index)
    traits = Traits(colour=obj.colour) if rng.random() < 0.25 else Traits()
    truth = logical_and(truth, traits_truth(labels, traits))
    reason = f"it is {with_article(present[0])}" if len(present) == 1 else "it is round all over"
    return Predicate(truth, traits, Verb(third, base, ""), is_phrase=False, reason=reason)


def two_hop(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw a relation to an object that is itself described by a predicate."""
    inner = knowledge(rng, labels) if rng.random() < 0.5 else superlative(rng, labels)
    if inner is None or not inner.is_decided or len(inner.targets) != 1:
        return None
    other = inner.targets[0]
    if inner.prefix:
        phrase = f"the {inner.prefix} object" if inner.traits.is_empty else ""
    else:
        phrase = f"the object that {inner.verb.third}" if inner.verb and inner.traits.is_empty else ""
    words = [
        word for word in ("behind", "front", "touches", "overtakes") if (labels.relations[word][:, other] == TRUE).any()
    ]
    if not phrase or not words:
        return None
    word = pick(rng, words)
    truth = labels.relations[word][:, other].copy()
    truth[other] = FALSE
    verb = interaction_verb(rng, word, phrase)
    return Predicate(truth, Traits(), verb, reason=f"it {verb.third}")


_KINDS = (
    superlative,
    superlative,
    counted,
    counted,
    compared,
    compared,
    knowledge,
    same,
    excepted,
    ordered,
    ordered,
    ordered,
    knowledge,
    knowledge,
    two_hop,
)


def reasoning_predicate(rng: np.random.Generator, labels: SceneLabels) -> Predicate | None:
    """Draw a predicate that needs reasoning; None if the attempts failed."""
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    # Some kinds apply to few clips: several attempts keep them frequent enough.
    for _ in range(6):
        predicate = kind(rng, labels)
        if predicate is not None and predicate.is_decided:
            return predicate
    return None
