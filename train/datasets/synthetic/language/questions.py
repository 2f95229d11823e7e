"""Turns about pointed-at objects (PixelQA, captions) and plain questions about the whole clip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from unipixel.train.datasets.samples import QuestionAnswer, placeholder
from unipixel.train.datasets.synthetic.attributes import COLOURS, SHAPES
from unipixel.train.datasets.synthetic.labels import TRUE, UNKNOWN, SceneLabels
from unipixel.train.datasets.synthetic.language import templates
from unipixel.train.datasets.synthetic.language.answers import (
    NUMBERS,
    ONE_OBJECT,
    Asked,
    Asker,
    Topic,
    describe,
    motion_summary,
)
from unipixel.train.datasets.synthetic.language.pair_questions import TWO_OBJECTS
from unipixel.train.datasets.synthetic.language.phrases import joined, pick, plural_noun, with_article

LETTERS = "ABCD"
SHORT = "Please answer with a single word or phrase."


def capital(text: str) -> str:
    """Raise the first letter."""
    return text[:1].upper() + text[1:]


def with_options(rng: np.random.Generator, asked: Asked) -> QuestionAnswer:
    """Lay a question out as multiple choice, the right letter being uniform.

    Args:
        rng: Source of randomness.
        asked: Question with its right and wrong answers.

    Returns:
        A drafted turn with two to four options.
    """
    count = min(len(asked.wrong), 3)
    wrong = [asked.wrong[int(index)] for index in rng.permutation(len(asked.wrong))[:count]]
    place = int(rng.integers(count + 1))
    options = tuple(capital(option) for option in (*wrong[:place], asked.answer, *wrong[place:]))
    lines = "\n".join(f"({LETTERS[number]}) {option}" for number, option in enumerate(options))
    return QuestionAnswer(
        f"{asked.question}\nOptions:\n{lines}\nPlease only give the best option.",
        # A small model knows what it saw; which letter stands before that is then a question about the text.
        f"Answer: {options[place]}, so the best option is ({LETTERS[place]}).",
        options=options,
        correct_option=place,
        kind=asked.kind,
    )


def with_words(rng: np.random.Generator, asked: Asked) -> QuestionAnswer:
    """Lay a question out for a free answer: a word, a phrase, or a sentence."""
    if asked.sentence and rng.random() < 0.5:
        return QuestionAnswer(asked.question, asked.sentence, kind=asked.kind)
    return QuestionAnswer(f"{asked.question} {SHORT}", f"{capital(asked.answer)}.", kind=asked.kind)


def _draw_asker(rng: np.random.Generator, table: tuple[tuple[Asker, float], ...]) -> Asker:
    shares = np.array([share for _, share in table])
    return table[int(rng.choice(len(table), p=shares / shares.sum()))][0]


def ask(
    rng: np.random.Generator, labels: SceneLabels, *, topic: Topic, count: int, num_tries: int = 24
) -> Asked | None:
    """Find a question about one or two objects that has a clear answer.

    Args:
        rng: Source of randomness.
        labels: The clip.
        topic: Objects to choose from.
        count: 1 or 2 objects.
        num_tries: Draws before giving up.

    Returns:
        The question, or None.
    """
    table = ONE_OBJECT if count == 1 else TWO_OBJECTS
    asker = _draw_asker(rng, table)
    for attempt in range(num_tries):
        if attempt % 6 == 5:
            asker = _draw_asker(rng, table)
        asked = asker(rng, labels, topic)
        if asked is not None:
            return asked
    return None


def pixelqa_turn(
    rng: np.random.Generator,
    labels: SceneLabels,
    *,
    pool: tuple[int, ...],
    count: int,
    is_choice: bool,
    forbidden: frozenset[tuple[str, str]],
    name: str | None = None,
) -> tuple[QuestionAnswer, tuple[int, ...]] | None:
    """Draft a question about pointed-at objects.

    Args:
        rng: Source of randomness.
        labels: The clip.
        pool: Objects to choose from.
        count: 1 or 2 objects.
        is_choice: Whether to give options.
        forbidden: Held-out combinations, not to be named.
        name: How to call the object, by default its mark.

    Returns:
        A drafted turn and the objects it asks about, or None where nothing clear could be asked.
    """
    names = {row: name or placeholder(row) for row in pool}
    topic = Topic(pool, names, wanted=bool(rng.random() < 0.5), forbidden=forbidden)
    asked = ask(rng, labels, topic=topic, count=count)
    if asked is None:
        return None
    turn = with_options(rng, asked) if is_choice or asked.needs_options else with_words(rng, asked)
    exchanged = None if asked.exchanged is None else capital(asked.exchanged)
    return replace(turn, exchanged_answer=exchanged), asked.rows


def caption_turn(
    rng: np.random.Generator, labels: SceneLabels, *, row: int, is_fixed: bool, others: tuple[int, ...] = ()
) -> QuestionAnswer | None:
    """Draft a request for a description and its answer in one sentence.

    Args:
        rng: Source of randomness.
        labels: The clip.
        row: The object.
        is_fixed: Whether to use the fixed evaluation question.
        others: Further objects that are marked and may be named in the answer.

    Returns:
        A drafted turn, or None where the object's motion is unclear.
    """
    clause = motion_summary(labels, row)
    text = f"{placeholder(row)} is {describe(rng, labels, row)}"
    if clause is not None and labels.motion["moves"][row] != UNKNOWN:
        text += f" that {clause}"
    for other in others:
        for word, verb in (
            ("behind", "goes behind"),
            ("overtakes", "overtakes"),
            ("follows", "follows"),
            ("touches", "touches"),
        ):
            if labels.relations[word][row, other] == TRUE:
                text += f" and {verb} {placeholder(other)}"
                break
    question = templates.draw(rng, templates.CAPTION, is_fixed=is_fixed).format(placeholder(row))
    return QuestionAnswer(question, f"{text}.", kind="caption")


def _yes_no(value: bool) -> tuple[str, tuple[str, ...]]:
    return ("yes", ("no",)) if value else ("no", ("yes",))


def plain_turn(rng: np.random.Generator, labels: SceneLabels, *, num_frames: int) -> QuestionAnswer | None:
    """Draft a question about the whole clip, without any mask.

    Args:
        rng: Source of randomness.
        labels: The clip.
        num_frames: Frames shown.

    Returns:
        A drafted turn, or None where this draw did not work.
    """
    kind = pick(
        rng, ("count", "count_shape", "count_colour", "colours", "shapes", "exists", "exists", "motion", "motion")
    )
    where = templates.visual(num_frames)
    shapes = Counter(obj.shape for obj in labels.objects)
    colours = Counter(obj.colour for obj in labels.objects)
    if kind in ("colours", "shapes"):
        words = [word for word in (COLOURS if kind == "colours" else SHAPES) if word in (colours | shapes)]
        what = "colours do the objects have" if kind == "colours" else "shapes are there"
        return QuestionAnswer(f"Which {what}?", f"{capital(joined(words))}.", kind=kind)
    if kind == "motion":
        return _plain_motion(rng, labels)
    if kind == "exists":
        is_there = rng.random() < 0.5
        if rng.random() < 0.5:
            word = pick(rng, [word for word in SHAPES if (word in shapes) == is_there] or list(SHAPES))
            text, answer = f"Is there {with_article(word)} in the {where}?", word in shapes
        else:
            word = pick(rng, [word for word in COLOURS if (word in colours) == is_there] or list(COLOURS))
            text, answer = f"Is anything {word}?", word in colours
        right, wrong = _yes_no(answer)
        asked = Asked(kind, text, right, wrong)
    else:
        number, noun = len(labels.objects), "objects"
        if kind == "count_shape":
            word = pick(rng, sorted(shapes)) if rng.random() < 0.85 else pick(rng, SHAPES)
            number, noun = shapes[word], plural_noun(word)
        elif kind == "count_colour":
            word = pick(rng, sorted(colours)) if rng.random() < 0.85 else pick(rng, COLOURS)
            number, noun = colours[word], f"{word} objects"
        others = tuple(NUMBERS[n] for n in range(max(0, number - 2), min(number + 3, 9)) if n != number)
        text = pick(rng, ("How many {} are there?", "How many {} do you see?", "What is the number of {}?"))
        asked = Asked(kind, text.format(noun), NUMBERS[number], others)
    return with_options(rng, asked) if rng.random() < 0.4 else with_words(rng, asked)


def _plain_motion(rng: np.random.Generator, labels: SceneLabels) -> QuestionAnswer | None:
    """Does anything leave, stop, spin, and so on."""
    texts = {
        "leaves": "leave the frame",
        "stops": "stop",
        "spins": "spin",
        "turns_back": "turn back",
        "grows": "grow",
        "shrinks": "shrink",
        "appears_late": "appear late",
        "circle": "move in a circle",
        "bounces": "bounce off an edge",
        "speeds_up": "speed up",
    }
    word = pick(rng, list(texts))
    truth = labels.motion[word]
    is_true = bool((truth == TRUE).any())
    # A given motion is absent from most clips; without this, "no" would be the better guess.
    if not is_true and (truth.any() or rng.random() < 0.6):
        return None
    right, wrong = _yes_no(is_true)
    asked = Asked(f"any_{word}", f"Does {pick(rng, ('anything', 'any object'))} {texts[word]}?", right, wrong)
    return with_options(rng, asked) if rng.random() < 0.3 else with_words(rng, asked)
