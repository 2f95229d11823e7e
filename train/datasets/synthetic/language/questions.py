"""Questions about prompted objects (PixelQA, captions), and questions about the whole clip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from unipixel.processing.prompt_templates import (
    caption_question,
    choice_question,
    join_words,
    scene_word,
    short_answer_question,
)
from unipixel.train.datasets.samples import QuestionAnswer, placeholder
from unipixel.train.datasets.synthetic.attributes import COLOURS, SHAPES
from unipixel.train.datasets.synthetic.labels import TRUE, UNKNOWN, SceneLabels
from unipixel.train.datasets.synthetic.language.answers import (
    NUMBERS,
    ONE_OBJECT,
    DraftedQuestion,
    QuestionDrafter,
    Topic,
    describe,
    motion_summary,
)
from unipixel.train.datasets.synthetic.language.pair_questions import TWO_OBJECTS
from unipixel.train.datasets.synthetic.language.phrases import (
    capitalize,
    draw_generator,
    pick,
    plural_noun,
    with_article,
)

_LETTERS = "ABCD"


def with_options(rng: np.random.Generator, drafted: DraftedQuestion) -> QuestionAnswer:
    """Add two to four options to a question, with the right one at a uniformly random position."""
    count = min(len(drafted.wrong), 3)
    wrong = [drafted.wrong[int(index)] for index in rng.permutation(len(drafted.wrong))[:count]]
    correct = int(rng.integers(count + 1))
    options = tuple(capitalize(option) for option in (*wrong[:correct], drafted.answer, *wrong[correct:]))
    return QuestionAnswer(
        choice_question(drafted.question, options),
        # The answer is stated before its letter: a small model then copies the letter from the text.
        f"Answer: {options[correct]}, so the best option is ({_LETTERS[correct]}).",
        options=options,
        correct_option=correct,
        kind=drafted.kind,
    )


def with_words(rng: np.random.Generator, drafted: DraftedQuestion) -> QuestionAnswer:
    """Ask a question for a free answer: a word, a phrase or a sentence."""
    if drafted.sentence and rng.random() < 0.5:
        return QuestionAnswer(drafted.question, drafted.sentence, kind=drafted.kind)
    return QuestionAnswer(short_answer_question(drafted.question), f"{capitalize(drafted.answer)}.", kind=drafted.kind)


def _draw_drafter(rng: np.random.Generator, table: tuple[tuple[QuestionDrafter, float], ...]) -> QuestionDrafter:
    shares = np.array([share for _, share in table])
    return table[int(rng.choice(len(table), p=shares / shares.sum()))][0]


def draft_question(
    rng: np.random.Generator, labels: SceneLabels, *, topic: Topic, count: int, num_tries: int = 24
) -> DraftedQuestion | None:
    """Draft a question about 1 or 2 objects with an unambiguous answer; None if all attempts failed."""
    table = ONE_OBJECT if count == 1 else TWO_OBJECTS
    drafter = _draw_drafter(rng, table)
    for attempt in range(num_tries):
        if attempt % 6 == 5:
            drafter = _draw_drafter(rng, table)
        drafted = drafter(rng, labels, topic)
        if drafted is not None:
            return drafted
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
    """Draft a question about prompted objects.

    Args:
        rng: Source of randomness.
        labels: The clip.
        pool: Objects that it may be about.
        count: 1 or 2 objects.
        is_choice: Whether to give options.
        forbidden: Held-out combinations, which are not named.
        name: Name of the object; by default the placeholder of its id.

    Returns:
        A drafted turn and the objects that it is about, or None if all attempts failed.
    """
    names = {row: name or placeholder(row) for row in pool}
    topic = Topic(pool, names, wanted=bool(rng.random() < 0.5), forbidden=forbidden)
    drafted = draft_question(rng, labels, topic=topic, count=count)
    if drafted is None:
        return None
    turn = with_options(rng, drafted) if is_choice or drafted.needs_options else with_words(rng, drafted)
    exchanged = None if drafted.exchanged is None else capitalize(drafted.exchanged)
    return replace(turn, exchanged_answer=exchanged), drafted.rows


def caption_turn(
    rng: np.random.Generator,
    labels: SceneLabels,
    *,
    row: int,
    is_fixed: bool,
    others: tuple[int, ...] = (),
) -> QuestionAnswer:
    """Draft a request for a description, with an answer in one sentence.

    Args:
        rng: Source of randomness.
        labels: The clip.
        row: The object.
        is_fixed: Whether to use the fixed evaluation template.
        others: Further prompted objects, which the answer may name.
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
    generator = draw_generator(rng, is_fixed=is_fixed)
    question = caption_question(placeholder(row), num_frames=labels.is_visible.shape[1], generator=generator)
    return QuestionAnswer(question, f"{text}.", kind="caption")


def _yes_no(value: bool) -> tuple[str, tuple[str, ...]]:
    return ("yes", ("no",)) if value else ("no", ("yes",))


def plain_turn(rng: np.random.Generator, labels: SceneLabels, *, num_frames: int) -> QuestionAnswer | None:
    """Draft a question about the whole clip, without any mask.

    Args:
        rng: Source of randomness.
        labels: The clip.
        num_frames: Number of frames of the clip.

    Returns:
        A drafted turn, or None if this attempt failed.
    """
    kind = pick(
        rng, ("count", "count_shape", "count_colour", "colours", "shapes", "exists", "exists", "motion", "motion")
    )
    scene = scene_word(num_frames)
    shapes = Counter(obj.shape for obj in labels.objects)
    colours = Counter(obj.colour for obj in labels.objects)
    if kind in ("colours", "shapes"):
        words = [word for word in (COLOURS if kind == "colours" else SHAPES) if word in (colours | shapes)]
        what = "colours do the objects have" if kind == "colours" else "shapes are there"
        return QuestionAnswer(f"Which {what}?", f"{capitalize(join_words(words))}.", kind=kind)
    if kind == "motion":
        return _plain_motion(rng, labels)
    if kind == "exists":
        is_there = rng.random() < 0.5
        if rng.random() < 0.5:
            word = pick(rng, [word for word in SHAPES if (word in shapes) == is_there] or list(SHAPES))
            text, answer = f"Is there {with_article(word)} in the {scene}?", word in shapes
        else:
            word = pick(rng, [word for word in COLOURS if (word in colours) == is_there] or list(COLOURS))
            text, answer = f"Is anything {word}?", word in colours
        right, wrong = _yes_no(answer)
        drafted = DraftedQuestion(kind, text, right, wrong)
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
        drafted = DraftedQuestion(kind, text.format(noun), NUMBERS[number], others)
    return with_options(rng, drafted) if rng.random() < 0.4 else with_words(rng, drafted)


def _plain_motion(rng: np.random.Generator, labels: SceneLabels) -> QuestionAnswer | None:
    """Ask whether anything leaves, stops, spins and so on."""
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
    # Most clips lack a given motion: without this, "no" would be the more likely answer.
    if not is_true and (truth.any() or rng.random() < 0.6):
        return None
    right, wrong = _yes_no(is_true)
    drafted = DraftedQuestion(
        f"any_{word}", f"Does {pick(rng, ('anything', 'any object'))} {texts[word]}?", right, wrong
    )
    return with_options(rng, drafted) if rng.random() < 0.3 else with_words(rng, drafted)
