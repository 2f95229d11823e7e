"""Wordings of published sets: questions that are drawn from templates, and objects as `[id]`."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from unipixel.processing import prompt_templates as templates
from unipixel.processing.special_tokens import REF, SEG
from unipixel.train.datasets.published.entries import Entry, Expression
from unipixel.train.datasets.samples import QuestionAnswer

SHORT_CAPTION_QUESTIONS = (
    f"Give a short description of {REF}.",
    f"What is {REF}? Answer briefly.",
    f"Describe {REF} in a few words.",
    f"Name what you see at {REF}.",
    f"Write a short caption for {REF}.",
    f"In one phrase, what does {REF} show?",
    f"Please summarize {REF} briefly.",
    f"Which object is {REF}? Give a brief description.",
)
DETAILED_CAPTION_QUESTIONS = (
    "Please describe the region {region} in the image in detail.",
    "Give a detailed description of {region}.",
    "What can be seen in {region}? Describe every detail.",
    "Describe {region} thoroughly.",
    "Explain in detail what {region} shows.",
    "Can you describe the area marked as {region} at length?",
    "I would like to know more about {region}. Please describe it in detail.",
    "List what is notable about {region}, with its appearance and surroundings.",
)
GROUNDED_CAPTION_QUESTIONS = (
    "Please briefly describe the contents of the image. Please respond with interleaved segmentation masks.",
    "Describe the image briefly, with a segmentation mask after each phrase about an object.",
    "What does the image show? Give a short caption in which every object has its mask.",
    "Write a short description of the image and segment what it names.",
    "Summarize the image, and mark each object that you mention with a mask.",
    "Caption this image with interleaved segmentation masks.",
)
CATEGORY_QUESTIONS = (
    "What is the category of {region}? Please select from the candidate categories.",
    "What is {region}? Please select from the candidate categories.",
)
NUM_CANDIDATES = 10
"""Categories that a question lists beside the right one."""
OTHER_CATEGORY = "others."
"""Answer where the right category is not listed."""
_LEFT_OUT_RATE = 0.05
_NAMED_REGION = re.compile(r"<object(\d+)>(?:<region>)?")
_REGION_ALONE = re.compile(r"\[\d+\]")


def segmentation_turn(
    expression: Expression, *, object_id: int, num_frames: int, has_target: bool = True, generator: random.Random
) -> QuestionAnswer:
    """Ask for the mask of an expression.

    Args:
        expression: The expression.
        object_id: Id of its object in the clip.
        num_frames: Number of sampled frames; 1 is an image.
        has_target: Whether there is such an object.
        generator: Draws the wording.
    """
    text = expression.text
    if isinstance(text, tuple):
        text = f"{text[0]} {text[1]}" if generator.random() < 0.5 else f"{text[1]} of the {text[0]}"
    question = templates.segmentation_question(text, form=expression.form, num_frames=num_frames, generator=generator)
    answer = templates.segmentation_answer(int(has_target), num_frames=num_frames)
    if expression.form == "question":
        answer = f"{expression.answer} {SEG}."
    elif expression.form == "explanatory":
        answer = f"{answer} {expression.answer}"
    return QuestionAnswer(question, answer, (object_id,) if has_target else ())


def region_turns(entry: Entry, *, object_id: int, generator: random.Random) -> list[QuestionAnswer]:
    """Return the turns about regions in memory.

    Args:
        entry: An entry of the task `region`.
        object_id: Id of the object where the entry has one without an id.
        generator: Draws the wording.
    """
    turns = []
    for question, answer in entry.turns:
        if _REGION_ALONE.fullmatch(question):
            question = generator.choice(DETAILED_CAPTION_QUESTIONS).format(region=question)
        elif "<object" in question and "\n" in question:
            # The first line only lists the objects, which the memory does.
            question = question.split("\n", 1)[1]
        turns.append(QuestionAnswer(name_objects(question, object_id), name_objects(answer, object_id)))
    return turns


def category_turns(entry: Entry, *, classes: Sequence[str], generator: random.Random) -> list[QuestionAnswer]:
    """Return the turns about the category of regions, with candidates as Pixel-SAIL lists them (arXiv:2504.10465).

    Args:
        entry: An entry of the task `category`.
        classes: Names of all categories.
        generator: Draws wordings and candidates; one question in 20 leaves the right category out.
    """
    turns = []
    for region, category in entry.turns:
        others = [name for name in classes if name != category]
        candidates = generator.sample(others, min(NUM_CANDIDATES, len(others)))
        is_listed = generator.random() >= _LEFT_OUT_RATE
        if is_listed:
            candidates.insert(generator.randint(0, len(candidates)), category)
        question = generator.choice(CATEGORY_QUESTIONS).format(region=region)
        listed = ", ".join([*candidates, OTHER_CATEGORY])
        answer = category if is_listed else OTHER_CATEGORY
        turns.append(QuestionAnswer(f"{question} The candidate categories: {listed}", answer))
    return turns


def grounded_turn(turn: tuple[str, str], *, target_ids: Sequence[int], generator: random.Random) -> QuestionAnswer:
    """Return a turn whose answer has the mask of each target."""
    question, answer = turn
    return QuestionAnswer(question or generator.choice(GROUNDED_CAPTION_QUESTIONS), answer, tuple(target_ids))


def prefill_text(question: str, answer: str, *, letter: str) -> str:
    """Return the question of pre-filling: with the answer as its only option, which may name objects too."""
    return f"{question}\nOptions:\n({letter}) {answer}"


def name_objects(text: str, object_id: int) -> str:
    """Write the objects of VideoRefer as `[id]`: `<objectK>` as `[K]`, and the only `<region>` as the given id."""
    return _NAMED_REGION.sub(r"[\1]", text).replace("<region>", f"[{object_id}]")
