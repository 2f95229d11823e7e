"""What the model is asked and answers: one set of texts for training and for inference.

Every function that takes a `generator` draws one wording of a pool, as in training; without one it
returns the pool's first wording, which is the fixed one that the published weights are evaluated with.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Literal, get_args

from unipixel.processing.special_tokens import REF, SEG

SegmentationForm = Literal["query", "sentence", "explanatory", "question", "description"]

SEGMENTATION_QUESTIONS: dict[str, tuple[str, ...]] = {
    "query": (
        "Please segment the {query} in this {scene}.",
        "Segment the {query}.",
        "Find the {query} in this {scene} and give its mask.",
        "Where is the {query} in this {scene}? Answer with a segmentation mask.",
        "Could you mark the {query} in the {scene} with a mask?",
        "Outline the {query} in the {scene}.",
        "I need a mask of the {query} in this {scene}.",
    ),
    "sentence": (
        "{query} Please provide the segmentation mask.",
        "{query} Answer with a segmentation mask.",
        "{query} Please show it with a mask.",
        "{query} Give the mask of what is meant.",
        "{query} Respond by segmenting it.",
    ),
    "explanatory": (
        "{query} Please provide the segmentation mask and explain why.",
        "{query} Answer with a segmentation mask and give your reasons.",
        "{query} Segment it and say why.",
        "{query} Give the mask of what is meant, with an explanation.",
        "{query} Show it with a mask, then justify your choice.",
    ),
    "question": (
        "{query} Please answer the question and provide the segmentation mask.",
        "{query} Give the answer together with a segmentation mask.",
        "{query} Answer, and show the answer with a mask.",
        "{query} Reply in words and segment what you name.",
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
SEGMENTATION_ANSWERS = (
    "The segmentation result is {masks}.",
    "It is {masks}.",
    "Sure, {masks}.",
    "Here is the mask: {masks}.",
    "Here you are: {masks}.",
)
NO_TARGET_ANSWERS = (
    "There is no such object in this {scene}.",
    "Nothing in this {scene} matches that.",
    "I cannot find it in this {scene}.",
    "No object in this {scene} fits.",
    "It does not appear in this {scene}.",
)
PREFILL_QUESTIONS = (
    "{question}. Please localize the relevant objects with IDs.",
    "{question}. Please find the objects that matter here and give their IDs.",
    "{question}. Mark every object that the question is about by its ID.",
    "{question}. Which objects are meant? Segment them with their IDs.",
    "{question}. Locate the objects that are referred to, each with its ID.",
    "{question}. Before you answer, segment the relevant objects and name their IDs.",
)
SHORT_CAPTION_QUESTIONS = tuple(
    f"{opening} {place}"
    for opening in (
        "Give a short description of",
        "Briefly describe",
        "Describe in a few words",
        "Write a short caption for",
        "Summarise in one phrase",
        "Name and characterise briefly",
    )
    for place in (f"{REF}.", f"the object at {REF}.", f"what is at {REF}.", f"the region marked by {REF}.")
)
DETAILED_CAPTION_QUESTIONS = tuple(
    f"{opening} {place}"
    for opening in (
        "Please give a detailed description of",
        "Describe in detail",
        "Give a thorough account of",
        "Describe as fully as you can",
        "Write a long and precise description of",
        "Tell everything you can see about",
    )
    for place in (
        "the highlighted object [{object_id}] in the {scene}.",
        "[{object_id}].",
        "the region [{object_id}].",
        "the object marked as [{object_id}] in this {scene}.",
        "what is highlighted as [{object_id}].",
    )
)

CHOICE_REQUEST = "Please only give the best option."
CHOICE_PREFILL = "Best Option: ("
"""Beginning of the answer to `choice_question` (published evaluation of MVBench and VideoMME)."""
REGION_CHOICE_PREFILL = "The best option is ("
"""Beginning of the answer to a choice about objects in memory (VideoRefer-Bench-Q, PixelQA)."""
MAX_SUBTITLES = 100

_LABELLED = re.compile(r"\(?[A-Z][).:]")
_MENTION = re.compile(r"\[(\d{1,4})\]")


def segmentation_question(
    query: str, *, form: SegmentationForm = "query", num_frames: int, generator: random.Random | None = None
) -> str:
    """Ask for the mask of what a text means.

    Args:
        query: A noun phrase (form `query`), or a sentence or description.
        form: Kind of text.
        num_frames: Frames that the language model sees; one is called an image.
        generator: Draws the wording.

    Raises:
        ValueError: The query is empty or the form unknown.
    """
    if form not in get_args(SegmentationForm):
        raise ValueError(f"form must be one of {get_args(SegmentationForm)}, got {form!r}")
    text = normalize_query(query) if form == "query" else query.strip()
    if not text:
        raise ValueError(f"nothing is left to segment of the query {query!r}")
    if form == "question" and not text.endswith("?"):
        text += "?"
    return _pick(SEGMENTATION_QUESTIONS[form], generator).format(query=text, scene=scene_word(num_frames))


def default_form(query: str) -> SegmentationForm:
    """Return the form of a text that nothing else is known of: a question, or a noun phrase."""
    return "sentence" if query.strip().endswith("?") else "query"


def segmentation_answer(
    *,
    form: SegmentationForm = "query",
    answer: str = "",
    object_ids: Sequence[int] = (),
    generator: random.Random | None = None,
) -> str:
    """Write the answer to a segmentation question, for training.

    Args:
        form: Form of the question; `explanatory` and `question` need the words of the answer.
        answer: Words that accompany the mask.
        object_ids: Ids of several objects, each with its mask; none for a single mask without an id.
        generator: Draws the wording.

    Raises:
        ValueError: The form needs words that are not given.
    """
    words = answer.strip()
    masks = prefill_answer(object_ids, separator=", ") if object_ids else SEG
    if form in ("explanatory", "question") and not words:
        raise ValueError(f"an answer of the form {form!r} needs words, none are given")
    if form == "question":
        return f"{words.rstrip('.')} {masks}."
    response = _pick(SEGMENTATION_ANSWERS, generator).format(masks=masks)
    return f"{response} {words}" if form == "explanatory" else response


def no_target_answer(*, num_frames: int, generator: random.Random | None = None) -> str:
    """Say that nothing in the clip is what was asked for; such an answer has no mask."""
    return _pick(NO_TARGET_ANSWERS, generator).format(scene=scene_word(num_frames))


def normalize_query(query: str) -> str:
    """Reduce a noun phrase to the form that follows "the": no full stops at its ends, no capital, no article."""
    text = query.strip().strip(".").strip()
    text = text[:1].lower() + text[1:]
    for article in ("the ", "an ", "a "):
        text = text.removeprefix(article)
    return text.strip()


def part_query(whole: str, part: str, *, generator: random.Random | None = None) -> str:
    """Name a part of an object, "dog leg" or, half of the time where a generator is given, "leg of the dog"."""
    if generator is not None and generator.random() < 0.5:
        return f"{part} of the {whole}"
    return f"{whole} {part}"


def mark_references(text: str, object_ids: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Put a `<|ref|>` behind the first mention of each object that a point or box was given for.

    Args:
        text: A question that names objects as `[id]`.
        object_ids: Ids of objects with a point or box.

    Returns:
        The text, and the ids in the order of their `<|ref|>`; ids that the text does not mention are
        left out.
    """
    order: list[int] = []

    def marked(match: re.Match[str]) -> str:
        object_id = int(match[1])
        if object_id not in object_ids or object_id in order:
            return match[0]
        order.append(object_id)
        return f"{match[0]} {REF}"

    return _MENTION.sub(marked, text), tuple(order)


def prefill_question(text: str, *, generator: random.Random | None = None) -> str:
    """Ask for the masks of the objects that a question is about (memory pre-filling, section 3.2).

    Args:
        text: The question with its options and `<|ref|>`, from `mark_references`.
        generator: Draws the wording.
    """
    # Replaced, not formatted: a question may hold braces.
    return _pick(PREFILL_QUESTIONS, generator).replace("{question}", text.strip())


def prefill_answer(object_ids: Sequence[int], *, separator: str = " ") -> str:
    """Write the answer to `prefill_question`: each id with its `<|seg|>`."""
    return separator.join(f"[{object_id}] {SEG}" for object_id in object_ids)


def short_caption_question(*, generator: random.Random | None = None) -> str:
    """Ask for a few words about what one point or box shows."""
    return _pick(SHORT_CAPTION_QUESTIONS, generator)


def detailed_caption_question(object_id: int, *, num_frames: int, generator: random.Random | None = None) -> str:
    """Ask for a detailed description of an object in memory."""
    wording = _pick(DETAILED_CAPTION_QUESTIONS, generator)
    return wording.format(object_id=object_id, scene=scene_word(num_frames))


def with_options(question: str, options: Sequence[str], *, first_letter: str = "A") -> str:
    """Append options, one per line, lettered where they are not yet.

    Raises:
        ValueError: There is no option.
    """
    if not options:
        raise ValueError("a choice needs at least one option, none were given")
    lines = [
        option.strip() if _LABELLED.match(option.strip()) else f"({chr(ord(first_letter) + place)}) {option.strip()}"
        for place, option in enumerate(options)
    ]
    return "\n".join([question.strip(), "Options:", *lines])


def choice_question(question: str, options: Sequence[str], *, is_regional: bool = False) -> str:
    """Ask to choose among options.

    Args:
        question: The question.
        options: Texts of the options.
        is_regional: The question is about objects in memory, and stays as it is; otherwise its white
            space is collapsed and each option begins with a capital. The answer begins with
            `REGION_CHOICE_PREFILL` or `CHOICE_PREFILL`.
    """
    if not is_regional:
        question = " ".join(question.split())
        options = [option.strip()[:1].upper() + option.strip()[1:] for option in options]
    return f"{with_options(question, options)}\n{CHOICE_REQUEST}"


def short_answer_question(question: str) -> str:
    """Ask for a single word or phrase."""
    return f"{question.strip()} Please answer with a single word or phrase."


def subtitles_text(duration_seconds: float, subtitles: Sequence[tuple[float, float, str]]) -> str:
    """Introduce a video by its subtitles (start and end in seconds, text), the first hundred of them."""
    lines = [f"{start}s - {end}s, {text}" for start, end, text in subtitles[:MAX_SUBTITLES]]
    heading = f"You are given a video with {duration_seconds} seconds long.\nSubtitles:"
    return "\n".join([heading, *lines]) + "\n"


def scene_word(num_frames: int) -> str:
    """Return what a clip is called in a prompt: an image where the language model sees one frame."""
    return "image" if num_frames == 1 else "video"


def _pick(pool: Sequence[str], generator: random.Random | None) -> str:
    return pool[0] if generator is None else generator.choice(pool)
