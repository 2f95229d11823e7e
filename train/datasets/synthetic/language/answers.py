"""Questions about one prompted object, with the right answer and plausible wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from unipixel.train.datasets.synthetic.attributes import COLOURS, DIRECTIONS, SHAPES, SIZES, TEXTURES
from unipixel.train.datasets.synthetic.labels import FALSE, TRUE, UNKNOWN, SceneLabels
from unipixel.train.datasets.synthetic.language.comparisons import compare_all
from unipixel.train.datasets.synthetic.language.phrases import (
    PLAIN_MOTION,
    Rows,
    Traits,
    full_traits,
    motion_verb,
    noun_phrase,
    pick,
    unique_traits,
    with_article,
)

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class DraftedQuestion:
    """A question about rows of the masks, without options.

    Attributes:
        kind: What is asked.
        question: Text with placeholders of ids.
        answer: The right answer, short.
        wrong: Wrong answers, none of which is ambiguous.
        sentence: The answer as a sentence, or "".
        rows: Objects that the question is about.
        exchanged: The answer after the masks of the two objects are exchanged; None if it would be the same or
            is unknown.
        needs_options: Whether the question requires options.
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
    """The objects that a question may be about.

    Attributes:
        pool: Objects that it may name.
        names: Name of each of them.
        wanted: Whether the answer to a yes-or-no question is to be yes. It is drawn before the question, which is
            about a motion of some object of the clip, so that the text alone does not determine the answer.
        forbidden: Held-out combinations. They are not named in wrong answers either: training would learn that
            a combination that is always wrong does not exist.
    """

    pool: Rows
    names: Mapping[int, str]
    wanted: bool
    forbidden: frozenset[tuple[str, str]]


def _draw_object(rng: np.random.Generator, topic: Topic) -> tuple[int, str]:
    row = topic.pool[int(rng.integers(len(topic.pool)))]
    return row, topic.names[row]


def position_name(labels: SceneLabels, row: int, index: int) -> str | None:
    """Name the third of the frame that an object is in: "upper left", "centre", "right" and so on.

    Args:
        labels: The clip.
        row: The object.
        index: Position in the list of frames.

    Returns:
        The name, or None if the object is partly occluded or near a border of the thirds.
    """
    if not labels.is_fully_visible[row, index]:
        return None
    words = []
    for axis, names in ((1, ("upper", "", "lower")), (0, ("left", "", "right"))):
        share = labels.centres[row, index, axis] / labels.frame_size[axis]
        if min(abs(share - 1 / 3), abs(share - 2 / 3)) < 0.05:
            return None
        words.append(names[int(share * 3)] if 0 <= share < 1 else "")
    vertical, horizontal = words
    if not vertical and not horizontal:
        return "centre"
    if vertical and horizontal:
        return f"{vertical} {horizontal}"
    return horizontal or {"upper": "top", "lower": "bottom"}[vertical]


POSITIONS = ("upper left", "top", "upper right", "left", "centre", "right", "lower left", "bottom", "lower right")


def motion_summary(labels: SceneLabels, row: int) -> str | None:
    """Describe the motion of an object in a clause: "moves left and then stops while growing"; None if unknown."""
    truth = {word: values[row] for word, values in labels.motion.items()}
    if truth["moves"] == UNKNOWN and labels.objects[row].plan.path != "still":
        return None
    main = next((PLAIN_MOTION[word] for word in (*DIRECTIONS, "diagonal") if truth[word] == TRUE), "")
    plan = labels.objects[row].plan
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
    if plan.appear_time > 0:
        text = f"appears late and {text}"
    extra = "spinning" if plan.is_spinning else "growing" if plan.growth > 1 else "shrinking" if plan.growth < 1 else ""
    if plan.path == "still":
        if extra:
            verb = {"spinning": "spins", "growing": "grows", "shrinking": "shrinks"}[extra]
            return text.replace("stays in place", f"{verb} in place")
        return text.replace("stays in place", "stays still")
    return f"{text} while {extra}" if extra else text


def describe(rng: np.random.Generator, labels: SceneLabels, row: int) -> str:
    """Describe the attributes of an object: "a striped red star"."""
    traits = full_traits(labels, row)
    named = Traits(traits.shape, traits.colour, traits.texture, traits.size if rng.random() < 0.3 else None)
    if named.texture == "plain" and rng.random() < 0.6:
        named = Traits(named.shape, named.colour, None, named.size)
    return with_article(noun_phrase(rng, named))


def attribute(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask for the shape, colour, texture or size of an object."""
    row, object_name = _draw_object(rng, topic)
    name = pick(rng, ("shape", "colour", "texture", "size"))
    value = getattr(full_traits(labels, row), name)
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
    return DraftedQuestion(name, pick(rng, wordings).format(object_name), value, wrong, sentence, (row,))


def motion(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask how an object moves."""
    row, object_name = _draw_object(rng, topic)
    truth = {word: values[row] for word, values in labels.motion.items() if word not in ("moves", "returns")}
    right = [word for word, value in truth.items() if value == TRUE]
    shape = labels.objects[row].shape
    wrong = [word for word, value in truth.items() if value == FALSE and (word, shape) not in topic.forbidden]
    if not right or len(wrong) < 3:
        return None
    text = pick(rng, ("How does {} move?", "What does {} do?", "Which motion does {} make?")).format(object_name)
    verb = PLAIN_MOTION[pick(rng, right)]
    summary = motion_summary(labels, row)
    others = tuple(PLAIN_MOTION[word] for word in wrong)
    return DraftedQuestion("motion", text, verb, others, f"It {summary}." if summary else "", (row,))


def direction(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask in which direction an object moves."""
    row, object_name = _draw_object(rng, topic)
    words = [word for word in DIRECTIONS if labels.motion[word][row] == TRUE]
    if len(words) != 1:
        return None
    text = pick(rng, ("Which way does {} move?", "In which direction does {} go?", "Where is {} heading?"))
    wrong = tuple(word for word in DIRECTIONS if word != words[0])
    return DraftedQuestion("direction", text.format(object_name), words[0], wrong, f"It moves {words[0]}.", (row,))


def position(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask where an object is at the start or at the end."""
    row, object_name = _draw_object(rng, topic)
    when, index = (("start", 0), ("end", -1))[int(rng.integers(2))]
    word = position_name(labels, row, index)
    if word is None:
        return None
    text = pick(rng, ("Where is {} at the {}?", "In which part of the frame is {} at the {}?"))
    others = tuple(other for other in POSITIONS if other != word)
    sentence = f"It is {'in' if word == 'centre' or ' ' in word else 'at'} the {word} at the {when}."
    if word in ("left", "right"):
        sentence = f"It is on the {word} at the {when}."
    return DraftedQuestion("position", text.format(object_name, when), word, others, sentence, (row,))


def occluder(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask what occludes an object; the answer names attributes."""
    row, object_name = _draw_object(rng, topic)
    truth = labels.relations["behind"][row]
    if (truth == TRUE).sum() != 1 or (truth == UNKNOWN).any():
        return None
    other = int(np.flatnonzero(truth == TRUE)[0])
    traits = unique_traits(rng, labels, other)
    wrong = []
    for index in range(labels.num_objects):
        if index not in (other, row):
            found = unique_traits(rng, labels, index)
            if found is not None:
                wrong.append(f"the {noun_phrase(rng, found)}")
    if traits is None:
        return None
    answer = f"the {noun_phrase(rng, traits)}"
    text = pick(rng, ("What hides {}?", "Which object passes in front of {}?", "What does {} hide behind?"))
    return DraftedQuestion(
        "occluder", text.format(object_name), answer, (*wrong, "nothing"), f"It is hidden by {answer}.", (row,)
    )


def count_larger(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask how many objects are larger or smaller than an object."""
    row, object_name = _draw_object(rng, topic)
    name = pick(rng, ("larger", "smaller"))
    truth = compare_all(labels, row, name)
    if (truth == UNKNOWN).any():
        return None
    number = int((truth == TRUE).sum())
    # Otherwise "none" would be the answer to most of these questions.
    if number == 0 and rng.random() < 0.6:
        return None
    wrong = tuple(NUMBERS[n] for n in range(max(0, number - 2), min(number + 4, 9)) if n != number)
    text = f"How many objects are {name} than {object_name}?"
    return DraftedQuestion("count", text, NUMBERS[number], wrong, "", (row,))


def description(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask which option describes an object; the wrong ones describe other objects, or have one word changed."""
    row, object_name = _draw_object(rng, topic)
    clause = motion_summary(labels, row) if rng.random() < 0.4 else None
    traits = full_traits(labels, row)
    own = (traits.shape, traits.colour, traits.texture)

    def text(attributes: tuple[str | None, str | None, str | None], motion: str | None) -> str:
        phrase = with_article(" ".join(word for word in reversed(attributes) if word))
        return f"{phrase} that {motion}" if motion else phrase

    answer = text(own, clause)
    wrong: list[str] = []
    for index in rng.permutation(labels.num_objects):
        other = full_traits(labels, int(index))
        attributes = (other.shape, other.colour, other.texture if own[2] else None)
        if attributes != own and (attributes[2] or not own[2]):
            wrong.append(text(attributes, motion_summary(labels, int(index)) if clause else None))
    while len(wrong) < 3:
        change = int(rng.integers(2 if own[2] is None else 3))
        words = (SHAPES, COLOURS, TEXTURES)[change]
        changed = list(own)
        changed[change] = pick(rng, [word for word in words if word != own[change]])
        if (changed[0], changed[1]) in topic.forbidden:
            continue
        wrong.append(text((changed[0], changed[1], changed[2]), clause))
    question = pick(rng, ("Which option describes {}?", "Which of these is {}?", "What is {}?")).format(object_name)
    others = tuple(word for word in dict.fromkeys(wrong) if word != answer)
    return DraftedQuestion(
        "description", question, answer, others, "", (row,), needs_options=not question.startswith("What")
    )


def has_motion(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask whether an object makes a given motion."""
    pool = np.array(topic.pool)
    word = pick(rng, [word for word in labels.motion if word != "returns"])
    truth = labels.motion[word]
    # The question is about a motion of some object of the clip, so that it does not determine the answer.
    if not (truth == TRUE).any() or (truth[pool] == (TRUE if topic.wanted else FALSE)).sum() == 0:
        return None
    row = int(rng.choice(pool[truth[pool] == (TRUE if topic.wanted else FALSE)]))
    if (word, labels.objects[row].shape) in topic.forbidden:
        return None
    base = motion_verb(rng, word).base
    for many, one in (("they move", "it moves"), ("their", "its"), ("themselves", "itself")):
        base = base.replace(many, one)
    # Wordings with "to be" or a negation cannot follow "does".
    base = {"still": "stay still", "moves": "move", "appears_late": "appear late"}.get(word, base)
    right, wrong = ("yes", "no") if topic.wanted else ("no", "yes")
    return DraftedQuestion(word, f"Does {topic.names[row]} {base}?", right, (wrong,), "", (row,))


QuestionDrafter = Callable[[np.random.Generator, SceneLabels, Topic], DraftedQuestion | None]
ONE_OBJECT: tuple[tuple[QuestionDrafter, float], ...] = (
    (attribute, 0.24),
    (motion, 0.19),
    (direction, 0.07),
    (position, 0.06),
    (occluder, 0.1),
    (count_larger, 0.06),
    (description, 0.15),
    (has_motion, 0.13),
)
