"""Requests of the data engine: instructions in our own words, and the messages with their pictures.

The steps are those of the paper (Pixel-SAIL, arXiv:2504.10465, section 7): descriptions of a region by one or several
models, a check that they agree, and a multiple-choice question. The question is answered once more from the description
alone, in place of the people who verified it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PROMPT_VERSION = "1"
"""Stored with every record; it changes with any text of this module."""

Message = dict[str, Any]

_CAPTION = """\
The first picture shows a scene in which one region is outlined in {colour}. The second picture is a crop of the \
scene around that region, without the outline.

Describe the outlined region in two to five sentences. Say what it is, its colours, materials, parts, state and \
pose as far as they are visible, any text on it, what it is used for or what it does, and where it is in relation to \
what is next to it. Write only what the pictures show; leave out whatever you are not sure of. Do not mention the \
outline, its colour, the crop or the pictures. Answer with the description alone, as plain text."""

_CHECK = """\
{given} Below are {count} of one region{where}.

{captions}
{category}
Decide whether {condition}. Differences in wording or detail are no faults; a wrong or contradictory kind of object, \
colour, number, text, part, position or action is one. If there is no fault, write one description that keeps every \
detail that you can confirm, without repetition, in two to five sentences; do not mention any outline, crop or picture.

Answer with one JSON object and nothing else:
{{"consistent": true or false, "reason": "the worst fault in one sentence, or an empty text", \
"caption": "the description, or an empty text"}}"""

_QUESTION = """\
This is a verified description of one object in a picture:

{caption}

Write {count} about this object that someone who sees the picture can answer: about its appearance, its \
attributes, its use, or its relation to what surrounds it. The question calls it "the object" and does not give the \
answer away. There are four options of similar length and form; exactly one is right according to the description, and \
the others are plausible but clearly wrong.

Answer with one JSON object and nothing else:
{{"questions": [{{"question": "...?", "options": ["the right one", "a wrong one", "a wrong one", "a wrong one"]}}]}}"""

_ANSWER = """\
This is a description of one object in a picture:

{caption}

{question}

Which option follows from the description? Answer with its letter alone, or with X if none or several do."""


def caption_messages(outlined: str, crop: str, *, colour: str) -> list[Message]:
    """Ask for the description of a region.

    Args:
        outlined: The image with the outline of the region, as a data URL.
        crop: A crop around the region, as a data URL.
        colour: Name of the colour of the outline.
    """
    return _user(_CAPTION.format(colour=colour), [outlined, crop])


def check_messages(
    captions: Sequence[str], pictures: Sequence[str], *, colour: str, category: str | None
) -> list[Message]:
    """Ask whether descriptions of a region are right and agree.

    Args:
        captions: The descriptions.
        pictures: The image with the outline and the crop, as data URLs; none for a model that reads text only.
        colour: Name of the colour of the outline.
        category: The annotated category; None where there is none.
    """
    several = len(captions) > 1
    given = "You check descriptions of a region of a picture."
    where = ""
    if pictures:
        given += (
            f" The first picture shows the region outlined in {colour}, the second is a crop around it without the "
            "outline."
        )
        where = ", the outlined one"
    conditions = ["they agree with each other"] if several else []
    if pictures:
        conditions.append("everything in them is visible" if several else "everything in it is visible")
    if category is not None:
        conditions.append("the kind of object fits its annotated category")
    text = _CHECK.format(
        given=given,
        count=f"{len(captions)} descriptions" if several else "a description",
        where=where,
        captions="\n\n".join(f"Description {row}: {caption}" for row, caption in enumerate(captions, start=1)),
        category=f"\nAnnotated category: {category}\n" if category is not None else "",
        condition=" and ".join(conditions),
    )
    return _user(text, pictures)


def question_messages(caption: str, *, count: int) -> list[Message]:
    """Ask for multiple-choice questions about a description."""
    wanted = "one multiple-choice question" if count == 1 else f"{count} different multiple-choice questions"
    return _user(_QUESTION.format(caption=caption, count=wanted), [])


def answer_messages(caption: str, question: str) -> list[Message]:
    """Ask for the answer to a question with its options, from a description alone."""
    return _user(_ANSWER.format(caption=caption, question=question), [])


def _user(text: str, pictures: Sequence[str]) -> list[Message]:
    if not pictures:
        return [{"role": "user", "content": text}]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
