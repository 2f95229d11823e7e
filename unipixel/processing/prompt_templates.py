"""Templates of questions and answers, shared by training and inference.

A function that takes a `generator` draws one template of a pool, as in training; without one it uses the first
template, the fixed one of the published evaluation.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from unipixel.processing.special_tokens import REF, SEG

SegmentationForm = Literal["query", "sentence", "explanatory", "question", "description"]
RegionAttribute = Literal["description", "shape", "colour", "texture", "size", "motion", "start", "end"]
TemplateGenerator: TypeAlias = random.Random | np.random.Generator

SEGMENTATION_QUESTIONS: dict[str, tuple[str, ...]] = {
    "query": (
        "Please segment the {query} in this {scene}.",
        "Segment the {query}.",
        "Segment the {query} in this {scene}.",
        "Find the {query} in this {scene} and give its mask.",
        "Where is the {query} in this {scene}? Answer with a segmentation mask.",
        "Can you segment the {query} in this {scene}?",
        "Could you mark the {query} in the {scene} with a mask?",
        "Outline the {query} in the {scene}.",
        "Mark the {query} in the {scene}.",
        "I need a mask of the {query} in this {scene}.",
    ),
    "sentence": (
        "{query} Please provide the segmentation mask.",
        "{query} Please output the segmentation mask.",
        "{query} Answer with a segmentation mask.",
        "{query} Please show it with a mask.",
        "{query} Respond by segmenting it.",
    ),
    "explanatory": (
        "{query} Please provide the segmentation mask and explain why.",
        "{query} Please output the mask and give the reason.",
        "{query} Segment it and say why.",
        "{query} Give the mask of what is meant, with an explanation.",
        "{query} Show it with a mask, then justify your choice.",
    ),
    "question": (
        "{query} Please answer the question and provide the segmentation mask.",
        "{query} Give the answer together with a segmentation mask.",
        "{query} Answer, and show the answer with a mask.",
        "{query} Answer in words and with a segmentation mask.",
        "{query} Say what it is and mark it with a mask.",
    ),
    "description": (
        "Please segment the object according to the description: {query}",
        "Segment the object that fits this description: {query}",
        "Find what is described here and give its mask: {query}",
        "Give the mask of the object described as follows: {query}",
        "Which object is meant? Answer with its mask. {query}",
    ),
}
PREFILL_QUESTIONS = (
    "{question}. Please localize the relevant objects with IDs.",
    "{question}. Please find the objects that matter here and give their IDs.",
    "{question}. Mark every object that the question is about by its ID.",
    "{question}. Which objects are meant? Segment them with their IDs.",
    "{question}. Locate the objects that are referred to, each with its ID.",
    "{question}. Before you answer, segment the relevant objects and name their IDs.",
)
CAPTION_QUESTIONS = (
    "Please give a detailed description of the highlighted object {region} in the {scene}.",
    "Describe {region}.",
    "Describe {region} in detail.",
    "What is {region}? Describe it in one sentence.",
    "Please describe the region {region}.",
    "Please describe the object marked as {region} in this {scene}.",
    "Give a short description of {region}.",
)
_ATTRIBUTE_QUESTIONS = (
    "What are the {attribute}s of {regions}?",
    "Which {attribute} does each of {regions} have?",
    "Name the {attribute} of each of {regions}.",
)
_POSITION_QUESTIONS = ("Where are {regions} at the {attribute}?", "Where is each of {regions} at the {attribute}?")
REGION_QUESTIONS: dict[str, tuple[str, ...]] = {
    "description": (
        "Please describe {regions}, one line each.",
        "Describe {regions}.",
        "Give a short description of each of {regions}.",
        "What do {regions} show? Answer with one line each.",
    ),
    "motion": ("How do {regions} move?", "What does each of {regions} do?", "Describe the motion of {regions}."),
    **dict.fromkeys(("shape", "colour", "texture", "size"), _ATTRIBUTE_QUESTIONS),
    **dict.fromkeys(("start", "end"), _POSITION_QUESTIONS),
}
ALL_REGIONS = "the highlighted regions"
CHOICE_REQUEST = "Please only give the best option."
SHORT_ANSWER_REQUEST = "Please answer with a single word or phrase."

_MENTION = re.compile(r"\[(\d{1,4})\]")
_QUANTIFIERS = ("all ", "every ", "any ")


def segmentation_question(
    query: str,
    *,
    form: SegmentationForm = "query",
    num_frames: int,
    generator: TemplateGenerator | None = None,
    is_published: bool = False,
) -> str:
    """Ask for the mask of what a text refers to.

    Args:
        query: A noun phrase (form `query`), a sentence, a question or a description.
        form: Kind of text.
        num_frames: Number of sampled frames; 1 is an image.
        generator: Draws the template.
        is_published: Whether the text is that of the published evaluation to the letter: "the" stays before "all",
            "every" and "any", and white space is not removed.

    Raises:
        ValueError: The query is empty or the form unknown.
    """
    if form not in get_args(SegmentationForm):
        raise ValueError(f"form must be one of {get_args(SegmentationForm)}, got {form!r}")
    if form == "query":
        text = normalize_query(query, is_published=is_published)
    else:
        text = query if is_published else query.strip()
    if not text.strip():
        raise ValueError(f"the query {query!r} is empty")
    if form == "question" and not text.endswith("?"):
        text += "?"
    template = _pick(SEGMENTATION_QUESTIONS[form], generator)
    if text.startswith(_QUANTIFIERS) and not is_published:
        template = template.replace("the {query}", "{query}")
    return template.format(query=text, scene=scene_word(num_frames))


def segmentation_answer(num_objects: int, *, num_frames: int) -> str:
    """Answer a segmentation question with one `<|seg|>` per object, or state that there is no such object.

    There is one template per number, as greedy decoding selects the first word by its probability: of two meanings,
    the one with fewer templates would win.
    """
    if num_objects == 0:
        return f"There is no such object in the {scene_word(num_frames)}."
    return f"{'It is' if num_objects == 1 else 'They are'} {join_words([SEG] * num_objects)}."


def normalize_query(query: str, *, is_published: bool = False) -> str:
    """Reduce a noun phrase to the form that follows "the": no full stops at its ends, no capital, no article.

    Args:
        query: The noun phrase.
        is_published: Whether white space within the full stops and after an article stays, as in the published code.
    """
    text = query.strip(".") if is_published else query.strip().strip(".").strip()
    text = text[:1].lower() + text[1:]
    for article in ("the ", "an ", "a "):
        text = text.removeprefix(article)
    return text if is_published else text.strip()


def mark_references(text: str, object_ids: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Insert a `<|ref|>` after the first mention of each object that has a point or box.

    Args:
        text: A question that names objects as `[id]`.
        object_ids: Ids of objects with a point or box.

    Returns:
        The text, and the ids in the order of their `<|ref|>`, without those that the text does not mention.
    """
    order: list[int] = []

    def mark(match: re.Match[str]) -> str:
        object_id = int(match[1])
        if object_id not in object_ids or object_id in order:
            return match[0]
        order.append(object_id)
        return f"{match[0]} {REF}"

    return _MENTION.sub(mark, text), tuple(order)


def prefill_question(text: str, *, generator: TemplateGenerator | None = None) -> str:
    """Ask for the masks of the objects that a question is about (memory pre-filling, section 3.2).

    Args:
        text: The question with its options and `<|ref|>`, from `mark_references`.
        generator: Draws the template.
    """
    # Replaced, not formatted: a question may contain braces.
    return _pick(PREFILL_QUESTIONS, generator).replace("{question}", text.strip())


def prefill_answer(object_ids: Sequence[int]) -> str:
    """Answer `prefill_question`: each id with its `<|seg|>`."""
    return " ".join(f"[{object_id}] {SEG}" for object_id in object_ids)


def caption_question(region: str, *, num_frames: int, generator: TemplateGenerator | None = None) -> str:
    """Ask for a description of one object, named as `[id]`."""
    return _pick(CAPTION_QUESTIONS, generator).format(region=region, scene=scene_word(num_frames))


def regions_question(
    regions: Sequence[str], *, attribute: RegionAttribute = "description", generator: TemplateGenerator | None = None
) -> str:
    """Ask for a description, or for one attribute, of several objects in memory.

    Args:
        regions: Objects, named as `[id]`, in the order of the answer; empty for all, in the order of their ids.
        attribute: What is asked; `start` and `end` are the positions at the start and the end.
        generator: Draws the template.
    """
    named = join_words(regions) if regions else ALL_REGIONS
    return _pick(REGION_QUESTIONS[attribute], generator).format(regions=named, attribute=attribute)


def regions_answer(texts: Sequence[tuple[str, str]]) -> str:
    """Answer `regions_question`: one line "[id]: text" per object."""
    return "\n".join(f"{region}: {text}" for region, text in texts)


def choice_question(question: str, options: Sequence[str]) -> str:
    """Ask to choose among options, which are lettered from A, one per line.

    Raises:
        ValueError: There is no option.
    """
    if not options:
        raise ValueError("a choice needs at least one option, none were given")
    lines = [f"({chr(ord('A') + index)}) {option.strip()}" for index, option in enumerate(options)]
    return "\n".join([question.strip(), "Options:", *lines, CHOICE_REQUEST])


def short_answer_question(question: str) -> str:
    """Ask for a single word or phrase."""
    return f"{question.strip()} {SHORT_ANSWER_REQUEST}"


def scene_word(num_frames: int) -> str:
    """Return the word for a clip: "image" for one sampled frame, else "video"."""
    return "image" if num_frames == 1 else "video"


def join_words(words: Sequence[str]) -> str:
    """Join words: "a", "a and b", "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def _pick(pool: Sequence[str], generator: TemplateGenerator | None) -> str:
    return pool[0] if generator is None else str(generator.choice(pool))
