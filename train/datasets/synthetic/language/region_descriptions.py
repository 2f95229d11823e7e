"""Questions about several objects in memory at once, answered line by line: "[1]: a striped red star that moves left".

Each line depends on the `<|mem|>` tokens of its id alone, so that one answer supervises the binding of several ids.
"""

from __future__ import annotations

import numpy as np

from unipixel.processing.prompt_templates import RegionAttribute, regions_answer, regions_question
from unipixel.train.datasets.samples import QuestionAnswer, placeholder
from unipixel.train.datasets.synthetic.labels import UNKNOWN, SceneLabels
from unipixel.train.datasets.synthetic.language.answers import motion_summary, position_name
from unipixel.train.datasets.synthetic.language.phrases import Rows, draw_generator, full_traits, with_article

# Attributes that are drafted for, with their weights.
_WEIGHTS: dict[RegionAttribute, float] = {
    "description": 0.44,
    "shape": 0.09,
    "colour": 0.1,
    "texture": 0.06,
    "size": 0.06,
    "motion": 0.13,
    "start": 0.06,
    "end": 0.06,
}
MIN_REGIONS, MAX_REGIONS = 2, 4


def regions_turn(rng: np.random.Generator, labels: SceneLabels, *, rows: Rows, is_fixed: bool) -> QuestionAnswer | None:
    """Draft a question about several highlighted objects and its answer, one line per object.

    Half of the questions are about all of them, in the order of their ids; the others name some, in any order.

    Args:
        rng: Source of randomness.
        labels: The clip.
        rows: The highlighted objects, in the order of their ids.
        is_fixed: Whether to use the fixed evaluation template.

    Returns:
        A drafted turn, or None if the drawn attribute is unknown for too many of the objects.
    """
    names = list(_WEIGHTS)
    attribute = names[int(rng.choice(len(names), p=list(_WEIGHTS.values())))]
    texts = {row: text for row in rows if (text := _describe(labels, row, attribute)) is not None}
    if len(texts) < MIN_REGIONS:
        return None
    named: Rows = ()
    if len(texts) < len(rows) or rng.random() < 0.5:
        count = int(rng.integers(MIN_REGIONS, len(texts) + 1))
        named = tuple(int(row) for row in rng.permutation(list(texts))[:count])
    question = regions_question(
        [placeholder(row) for row in named], attribute=attribute, generator=draw_generator(rng, is_fixed=is_fixed)
    )
    answer = regions_answer([(placeholder(row), texts[row]) for row in named or rows])
    return QuestionAnswer(question, answer, kind=attribute)


def _describe(labels: SceneLabels, row: int, attribute: RegionAttribute) -> str | None:
    """Describe an object, or name one of its attributes, in one wording; None if it is unknown."""
    traits = full_traits(labels, row)
    is_motion_known = labels.motion["moves"][row] != UNKNOWN
    motion = motion_summary(labels, row) if is_motion_known else None
    if attribute == "motion":
        return motion
    if attribute in ("start", "end"):
        return position_name(labels, row, 0 if attribute == "start" else -1)
    if attribute != "description":
        value: str | None = getattr(traits, attribute)
        return value
    texture = None if traits.texture == "plain" else traits.texture
    phrase = with_article(" ".join(word for word in (texture, traits.colour, traits.shape) if word))
    return f"{phrase} that {motion}" if motion else phrase
