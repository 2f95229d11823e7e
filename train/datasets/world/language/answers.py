"""What can be asked about one or two pointed-at objects, each with its answer and plausible wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from unipixel.train.datasets.world.facts import FALSE, TRUE, UNKNOWN, Facts, Truth
from unipixel.train.datasets.world.language.phrases import (
    PLAIN_MOTION,
    Traits,
    full_traits,
    motion_verb,
    noun_phrase,
    pick,
    unique_traits,
    with_article,
)
from unipixel.train.datasets.world.language.reasoning import compare_all
from unipixel.train.datasets.world.vocabulary import COLOURS, DIRECTIONS, SHAPES, SIZES, TEXTURES

Rows = tuple[int, ...]
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Asked:
    """A question about rows of the masks, before options are laid out.

    Attributes:
        kind: What is asked.
        question: Text with marks.
        answer: The right answer, short.
        wrong: Wrong answers that are surely wrong.
        sentence: The answer as a sentence, or "".
        rows: Objects asked about.
        exchanged: The answer after the masks of the two objects trade places; None where it would be the
            same or is open.
        needs_options: Whether the question makes no sense without options.
    """

    kind: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    sentence: str = ""
    rows: Rows = ()
    exchanged: str | None = None
    needs_options: bool = False


@dataclass(frozen=True)
class Topic:
    """What a question may be about.

    Attributes:
        pool: Objects it may name.
        names: How to call each of them.
        wanted: Whether a yes-or-no question shall have the answer yes. It is drawn before the question, and
            only what some object of the pool does is asked about, so that the words give nothing away.
    """

    pool: Rows
    names: Mapping[int, str]
    wanted: bool


def _one_of(rng: np.random.Generator, topic: Topic) -> tuple[int, str]:
    row = topic.pool[int(rng.integers(len(topic.pool)))]
    return row, topic.names[row]


def place_word(facts: Facts, row: int, index: int) -> str | None:
    """Name the third of the frame an object lies in: "upper left", "centre", "right" and so on.

    Args:
        facts: The clip.
        row: The object.
        index: Position in the list of frames.

    Returns:
        The words, or None where it is not seen or lies near a border of the thirds.
    """
    if not facts.seen[row, index]:
        return None
    words = []
    for axis, names in ((1, ("upper", "", "lower")), (0, ("left", "", "right"))):
        share = facts.centres[row, index, axis] / facts.frame[axis]
        if min(abs(share - 1 / 3), abs(share - 2 / 3)) < 0.05:
            return None
        words.append(names[int(share * 3)] if 0 <= share < 1 else "")
    vertical, horizontal = words
    if not vertical and not horizontal:
        return "centre"
    if vertical and horizontal:
        return f"{vertical} {horizontal}"
    return horizontal or {"upper": "top", "lower": "bottom"}[vertical]


PLACES = ("upper left", "top", "upper right", "left", "centre", "right", "lower left", "bottom", "lower right")


def motion_summary(facts: Facts, row: int) -> str | None:
    """Say in a clause all that an object does: "moves left and then stops while growing"."""
    truth = {word: values[row] for word, values in facts.motion.items()}
    if truth["moves"] == UNKNOWN and facts.objects[row].plan.path != "still":
        return None
    main = next((PLAIN_MOTION[word] for word in (*DIRECTIONS, "diagonal") if truth[word] == TRUE), "")
    plan = facts.objects[row].plan
    special = {
        "still": "stays in place",
        "circle": "moves in a circle",
        "bounce": "bounces off an edge",
        "turn": "moves and turns back",
        "return": "leaves and comes back",
        "leave": f"{main} and leaves",
        "enter": f"appears late and {main}",
    }
    text = special.get(plan.path, main)
    if plan.path == "line":
        text = {
            "speeds_up": f"{main} and speeds up",
            "slows_down": f"{main} and slows down",
            "stops": f"{main} and then stops",
            "starts_late": f"rests and then {main}",
        }.get(plan.profile, main)
    if plan.appears > 0:
        text = f"appears late and {text}"
    extra = "spinning" if plan.spins else "growing" if plan.growth > 1 else "shrinking" if plan.growth < 1 else ""
    if plan.path == "still":
        if extra:
            verb = {"spinning": "spins", "growing": "grows", "shrinking": "shrinks"}[extra]
            return text.replace("stays in place", f"{verb} in place")
        return text.replace("stays in place", "stays still")
    return f"{text} while {extra}" if extra else text


def describe(rng: np.random.Generator, facts: Facts, row: int) -> str:
    """Describe an object's looks: "a striped red star"."""
    traits = full_traits(facts, row)
    named = Traits(traits.shape, traits.colour, traits.texture, traits.size if rng.random() < 0.3 else None)
    if named.texture == "plain" and rng.random() < 0.6:
        named = Traits(named.shape, named.colour, None, named.size)
    return with_article(noun_phrase(rng, named))


def attribute(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """Shape, colour, texture or size of the first object."""
    row, called = _one_of(rng, topic)
    name = pick(rng, ("shape", "colour", "texture", "size"))
    value = getattr(full_traits(facts, row), name)
    if value is None:
        return None
    words = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES}[name]
    wordings = {
        "shape": ("What shape is {}?", "Which shape does {} have?", "What is the shape of {}?"),
        "colour": ("What colour is {}?", "Which colour does {} have?", "What is the colour of {}?"),
        "texture": ("What texture does {} have?", "What is the pattern of {}?", "What texture is {}?"),
        "size": ("What size is {}?", "How large is {}: small, medium or large?", "Which size does {} have?"),
    }[name]
    sentence = {"shape": f"It is {with_article(value)}.", "texture": f"It is {value}."}.get(name, f"It is {value}.")
    wrong = tuple(word for word in words if word != value)
    return Asked(name, pick(rng, wordings).format(called), value, wrong, sentence, (row,))


def motion(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """How the first object moves: one true word against surely false ones."""
    row, called = _one_of(rng, topic)
    truth = {word: values[row] for word, values in facts.motion.items() if word not in ("moves", "returns")}
    right = [word for word, value in truth.items() if value == TRUE]
    wrong = [word for word, value in truth.items() if value == FALSE]
    if not right or len(wrong) < 3:
        return None
    text = pick(rng, ("How does {} move?", "What does {} do?", "Which motion does {} make?")).format(called)
    verb = PLAIN_MOTION[pick(rng, right)]
    summary = motion_summary(facts, row)
    others = tuple(PLAIN_MOTION[word] for word in wrong)
    return Asked("motion", text, verb, others, f"It {summary}." if summary else "", (row,))


def direction(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """Which way the first object moves."""
    row, called = _one_of(rng, topic)
    words = [word for word in DIRECTIONS if facts.motion[word][row] == TRUE]
    if len(words) != 1:
        return None
    text = pick(rng, ("Which way does {} move?", "In which direction does {} go?", "Where is {} heading?"))
    wrong = tuple(word for word in DIRECTIONS if word != words[0])
    return Asked("direction", text.format(called), words[0], wrong, f"It moves {words[0]}.", (row,))


def place(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """Where the first object is at the start or at the end."""
    row, called = _one_of(rng, topic)
    when, index = (("start", 0), ("end", -1))[int(rng.integers(2))]
    word = place_word(facts, row, index)
    if word is None:
        return None
    text = pick(rng, ("Where is {} at the {}?", "In which part of the frame is {} at the {}?"))
    others = tuple(other for other in PLACES if other != word)
    sentence = f"It is {'in' if word == 'centre' or ' ' in word else 'at'} the {word} at the {when}."
    if word in ("left", "right"):
        sentence = f"It is on the {word} at the {when}."
    return Asked("place", text.format(called, when), word, others, sentence, (row,))


def hider(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """What hides the first object, described by its looks."""
    row, called = _one_of(rng, topic)
    truth = facts.relations["behind"][row]
    if (truth == TRUE).sum() != 1 or (truth == UNKNOWN).any():
        return None
    other = int(np.flatnonzero(truth == TRUE)[0])
    traits = unique_traits(rng, facts, other)
    wrong = []
    for index in range(facts.num_objects):
        if index not in (other, row):
            found = unique_traits(rng, facts, index)
            if found is not None:
                wrong.append(f"the {noun_phrase(rng, found)}")
    if traits is None:
        return None
    answer = f"the {noun_phrase(rng, traits)}"
    text = pick(rng, ("What hides {}?", "Which object passes in front of {}?", "What does {} hide behind?"))
    return Asked("hider", text.format(called), answer, (*wrong, "nothing"), f"It is hidden by {answer}.", (row,))


def count_larger(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """How many objects are larger or smaller than the first."""
    row, called = _one_of(rng, topic)
    name = pick(rng, ("larger", "smaller"))
    truth = compare_all(facts, row, name)
    if (truth == UNKNOWN).any():
        return None
    number = int((truth == TRUE).sum())
    wrong = tuple(NUMBERS[n] for n in range(max(0, number - 2), min(number + 4, 9)) if n != number)
    text = f"How many objects are {name} than {called}?"
    return Asked("count", text, NUMBERS[number], wrong, "", (row,))


def description(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """Which option describes the first object; the wrong ones describe its neighbours, or change one word."""
    row, called = _one_of(rng, topic)
    clause = motion_summary(facts, row) if rng.random() < 0.4 else None
    traits = full_traits(facts, row)
    own = (traits.shape, traits.colour, traits.texture)

    def text(look: tuple[str | None, str | None, str | None], does: str | None) -> str:
        phrase = with_article(" ".join(word for word in (look[2], look[1], look[0]) if word))
        return f"{phrase} that {does}" if does else phrase

    answer = text(own, clause)
    wrong: list[str] = []
    for index in rng.permutation(facts.num_objects):
        other = full_traits(facts, int(index))
        look = (other.shape, other.colour, other.texture if own[2] else None)
        if look != own and (look[2] or not own[2]):
            wrong.append(text(look, motion_summary(facts, int(index)) if clause else None))
    while len(wrong) < 3:
        change = int(rng.integers(2 if own[2] is None else 3))
        words = (SHAPES, COLOURS, TEXTURES)[change]
        look_list = list(own)
        look_list[change] = pick(rng, [word for word in words if word != own[change]])
        wrong.append(text((look_list[0], look_list[1], look_list[2]), clause))
    question = pick(rng, ("Which option describes {}?", "Which of these is {}?", "What is {}?")).format(called)
    others = tuple(word for word in dict.fromkeys(wrong) if word != answer)
    return Asked("description", question, answer, others, "", (row,), needs_options=not question.startswith("What"))


_CONTACTS = {
    "touches": ("Does {} touch {}?", "Do {} and {} touch?"),
    "overtakes": ("Does {} overtake {}?", "Does {} pass {} on the way?"),
    "behind": ("Does {} hide behind {}?", "Is {} hidden by {}?", "Does {} go behind {}?"),
    "follows": ("Does {} follow {}?", "Does {} keep behind {} along the same path?"),
    "front": ("Does {} hide {}?", "Is {} in front of {}?"),
}
_SIDE_WORDS = {"left_of": "left of", "right_of": "right of", "above": "above", "below": "below"}


def _pair_table(rng: np.random.Generator, facts: Facts) -> tuple[str, tuple[str, ...], Truth]:
    """Draw a relation of two objects: its word, its wordings, its truth (O, O)."""
    kind = rng.random()
    if kind < 0.45:
        word = pick(rng, ("touches", "overtakes", "behind", "follows", "front", "behind", "overtakes"))
        return word, _CONTACTS[word], facts.relations[word]
    if kind < 0.75:
        word, when = pick(rng, tuple(_SIDE_WORDS)), pick(rng, ("start", "end"))
        return word, (f"Is {{}} {_SIDE_WORDS[word]} {{}} at the {when}?",), facts.sides_at[when][word]
    if kind < 0.9:
        word = pick(rng, ("larger", "faster", "smaller", "slower"))
        verb = "Does {} move" if word in ("faster", "slower") else "Is {}"
        table = np.stack([compare_all(facts, other, word) for other in range(facts.num_objects)], axis=1)
        return word, (f"{verb} {word} than {{}}?",), table
    word = pick(rng, ("shape", "colour"))
    values = np.array([getattr(obj, word) for obj in facts.objects])
    return f"same_{word}", (f"Do {{}} and {{}} have the same {word}?",), (values[:, None] == values).astype(np.int8)


def relation(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """Whether a relation holds between two objects."""
    word, wordings, table = _pair_table(rng, facts)
    pool = np.array(topic.pool)
    among = table[np.ix_(pool, pool)].copy()
    np.fill_diagonal(among, UNKNOWN)
    if not (among == TRUE).any() or not (among == FALSE).any():
        return None
    pairs = np.argwhere(among == (TRUE if topic.wanted else FALSE))
    a, b = (int(row) for row in pool[pairs[int(rng.integers(len(pairs)))]])
    right, wrong = ("yes", "no") if topic.wanted else ("no", "yes")
    other_way = int(table[b, a])
    exchanged = wrong if other_way not in (UNKNOWN, int(table[a, b])) else None
    text = pick(rng, wordings).format(topic.names[a], topic.names[b])
    return Asked(word, text, right, (wrong,), "", (a, b), exchanged)


def does(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """Whether an object makes a given motion."""
    pool = np.array(topic.pool)
    word = pick(rng, [word for word in facts.motion if word != "returns"])
    truth = facts.motion[word]
    # Of a single object only what it does, or what another of the clip does, is asked.
    if not (truth == TRUE).any() or (truth[pool] == (TRUE if topic.wanted else FALSE)).sum() == 0:
        return None
    row = int(rng.choice(pool[truth[pool] == (TRUE if topic.wanted else FALSE)]))
    base = motion_verb(rng, word).base
    for many, one in (("they move", "it moves"), ("their", "its"), ("themselves", "itself")):
        base = base.replace(many, one)
    # Wordings with "to be" or a negation do not follow "does".
    base = {"still": "stay still", "moves": "move", "appears_late": "appear late"}.get(word, base)
    right, wrong = ("yes", "no") if topic.wanted else ("no", "yes")
    return Asked(word, f"Does {topic.names[row]} {base}?", right, (wrong,), "", (row,))


def which(rng: np.random.Generator, facts: Facts, topic: Topic) -> Asked | None:
    """Which of two objects is larger, faster, red, moves left."""
    a, b = (int(row) for row in rng.permutation(topic.pool)[:2])
    kind = rng.random()
    if kind < 0.35:
        word = pick(rng, ("larger", "smaller", "faster", "slower"))
        truth = int(compare_all(facts, b, word)[a]), int(compare_all(facts, a, word)[b])
        clause = f"moves {word}" if word in ("faster", "slower") else f"is {word}"
    elif kind < 0.7:
        word = pick(rng, list(facts.motion))
        truth = int(facts.motion[word][a]), int(facts.motion[word][b])
        clause = motion_verb(rng, word).third
    else:
        word = pick(rng, ("shape", "colour", "texture"))
        values = [getattr(full_traits(facts, row), word) for row in (a, b)]
        if None in values or values[0] == values[1]:
            return None
        wanted = pick(rng, values)
        truth = int(values[0] == wanted), int(values[1] == wanted)
        clause = f"is {with_article(wanted) if word == 'shape' else wanted}"
    if sorted(truth) != [FALSE, TRUE]:
        return None
    right, other = (a, b) if truth[0] == TRUE else (b, a)
    answer, wrong = topic.names[right], topic.names[other]
    text = pick(rng, (f"Which of {{}} and {{}} {clause}?", f"Which one {clause}, {{}} or {{}}?"))
    text = text.format(topic.names[a], topic.names[b])
    return Asked(f"which_{word}", text, answer, (wrong,), "", (a, b), wrong)


Asker = Callable[[np.random.Generator, Facts, Topic], Asked | None]
ONE_OBJECT: tuple[tuple[Asker, float], ...] = (
    (attribute, 0.3),
    (motion, 0.16),
    (direction, 0.08),
    (place, 0.08),
    (hider, 0.08),
    (count_larger, 0.06),
    (description, 0.16),
    (does, 0.08),
)
TWO_OBJECTS: tuple[tuple[Asker, float], ...] = ((relation, 0.6), (which, 0.4))
