"""Fixed evaluation questions, and pools of other wordings for training."""

from __future__ import annotations

import numpy as np

from unipixel.train.datasets.synthetic.language.phrases import joined, pick

SEG = "<|seg|>"

# The first of each pool is the fixed evaluation question.
QUERY = (
    "Please segment the {} in this {}.",
    "Segment the {} in this {}.",
    "Find the {} in the {} and segment it.",
    "Can you segment the {} in this {}?",
    "Give me the mask of the {} in this {}.",
    "Mark the {} in the {}.",
    "Show the mask of the {} in this {}, please.",
    "I want the {} of this {} segmented.",
)
SENTENCE = (
    "{} Please provide the segmentation mask.",
    "{} Please output the segmentation mask.",
    "{} Answer with a segmentation mask.",
    "{} Show it with a mask.",
    "{} Please mark it.",
)
EXPLANATORY = (
    "{} Please provide the segmentation mask and explain why.",
    "{} Please output the mask and give the reason.",
    "{} Segment it and say why.",
)
QUESTION = (
    "{} Please answer the question and provide the segmentation mask.",
    "{} Answer in words and with a segmentation mask.",
    "{} Please answer and mark it.",
)
DESCRIPTION = (
    "Please segment the object according to the description: {}",
    "Segment what this describes: {}",
    "Find and segment the object with this description: {}",
)
# One wording each: an answer is decided with its first word, the most likely one is written, and of two meanings that
# with fewer wordings would win.
_ONE, _MANY, _NONE = "It is {}.", "They are {}.", "There is no such object in the {}."
CAPTION = (
    "Please give a detailed description of the highlighted object {} in the video.",
    "Describe {}.",
    "What is {}? Describe it in one sentence.",
    "Please describe the region {}.",
    "Tell me about {}: its looks and what it does.",
    "Give a short description of {}.",
)


def visual(num_frames: int) -> str:
    """The word for what is shown: "image" for one frame, else "video"."""
    return "image" if num_frames == 1 else "video"


def draw(rng: np.random.Generator, pool: tuple[str, ...], *, is_fixed: bool) -> str:
    """Draw a template; the fixed one in evaluation and in a third of the training samples."""
    return pool[0] if is_fixed or rng.random() < 0.33 else pick(rng, pool)


def bare(query: str) -> str:
    """Strip a query of its final stop and its article, as the published templates do."""
    query = query.strip(".")
    query = query[:1].lower() + query[1:]
    for article in ("the ", "an ", "a "):
        query = query.removeprefix(article)
    return query


def fill(template: str, query: str, noun: str) -> str:
    """Put a query into a template of `QUERY`.

    Args:
        template: A member of the pool.
        query: Reference with its determiner.
        noun: "image" or "video".

    Returns:
        The question; "the" gives way to "all", "every" and "any".
    """
    if query.split(" ", 1)[0] in ("all", "every", "any"):
        return template.replace("the {}", "{}", 1).format(query, noun)
    return template.format(bare(query), noun)


def response(*, count: int, num_frames: int) -> str:
    """A short answer with one mask mark per object, or words alone where there is no object.

    Args:
        count: Number of objects.
        num_frames: Frames shown.
    """
    if count == 0:
        return _NONE.format(visual(num_frames))
    return (_ONE if count == 1 else _MANY).format(joined([SEG] * count))
