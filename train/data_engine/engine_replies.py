"""Replies of models to the data engine, which are not trusted: parsed, bounded and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unipixel.train.evaluation.readers.perbench_images import listed_options

OPTION_LETTERS = "ABCD"
"""Letters of the options of a question."""
_WORDS = (5, 300)
_MAX_LINE = 400
# Words about the outline of the pictures that were sent, and tokens of our models.
_MARKING = re.compile(
    r"\b(?:outlined?|highlight(?:ed|s)?|contour line|cropped|the crop|bounding box|marked (?:region|area|object)|"
    r"(?:first|second) (?:picture|image))\b",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"<\|[^|>]*\|>|\[SEG\]|</?p>|<Prompt\d+>|<region|<object\d|\[\d+\]|<image>|<video>", re.IGNORECASE)
_REASONING = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_LETTER = re.compile(r"(?<![^\W_])([A-DX])(?![^\W_])")


class MalformedReplyError(ValueError):
    """A reply has another form than was asked for; another one may be right."""


@dataclass(frozen=True)
class CheckVerdict:
    """What the checker says of the descriptions of a region.

    Attributes:
        is_consistent: Whether they are right and agree.
        reason: The worst fault, or an empty text.
        caption: The description that unites them; empty where they are not consistent.
    """

    is_consistent: bool
    reason: str
    caption: str


@dataclass(frozen=True)
class WrittenQuestion:
    """A question as a model wrote it.

    Attributes:
        question: The question without options.
        options: Four options, the right one first.
    """

    question: str
    options: tuple[str, ...]


def caption_fault(caption: str) -> str | None:
    """Return why a description cannot be used, or None."""
    count = len(caption.split())
    if not _WORDS[0] <= count <= _WORDS[1]:
        return f"the description has {count} words, {_WORDS[0]} to {_WORDS[1]} are allowed"
    if found := _MARKING.search(caption):
        return f"the description mentions the marking: {found[0]!r}"
    if found := _TOKEN.search(caption):
        return f"the description has a token of the models: {found[0]!r}"
    return None


def question_text(question: str, options: Sequence[str]) -> str:
    """Write a question with its options as PerBench does, in one line."""
    listed = " ".join(f"{letter}. {option}" for letter, option in zip(OPTION_LETTERS, options, strict=True))
    return f"{question} {listed}"


def without_reasoning(text: str) -> str:
    """Return a reply without the reasoning that some models write before it."""
    found = _REASONING.match(text)
    return text[found.end() :] if found else text


def plain_text(text: str) -> str:
    """Return a text in one line, without quotes around it."""
    joined = " ".join(text.split())
    return joined[1:-1].strip() if len(joined) > 1 and joined[0] == joined[-1] == '"' else joined


def parse_verdict(text: str) -> CheckVerdict:
    """Parse the reply of the checker.

    Raises:
        MalformedReplyError: It has another form.
    """
    fields = _json_object(text)
    is_consistent = fields.get("consistent")
    if not isinstance(is_consistent, bool):
        raise MalformedReplyError(f"`consistent` must be true or false, got {is_consistent!r:.40}")
    reason, caption = (_text_field(fields, name) for name in ("reason", "caption"))
    if is_consistent and not caption:
        raise MalformedReplyError("`caption` is empty although the descriptions are consistent")
    return CheckVerdict(is_consistent, reason[:_MAX_LINE], caption if is_consistent else "")


def parse_questions(text: str, *, count: int) -> tuple[WrittenQuestion, ...]:
    """Parse multiple-choice questions.

    Args:
        text: The reply.
        count: Number of questions that were asked for.

    Raises:
        MalformedReplyError: It has another form or number, or options that are not four different ones.
    """
    rows = _json_object(text).get("questions")
    if not isinstance(rows, list) or len(rows) != count or not all(isinstance(row, dict) for row in rows):
        raise MalformedReplyError(f"`questions` must be a list of {count}, got {rows!r:.60}")
    found = []
    for row in rows:
        question, options = _text_field(row, "question"), row.get("options")
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise MalformedReplyError(f"`options` must be a list of texts, got {options!r:.60}")
        plain = tuple(plain_text(option).rstrip(".") for option in options)
        if len({option.lower() for option in plain}) != len(OPTION_LETTERS) or not all(plain):
            raise MalformedReplyError(f"a question has four different options, got {options!r:.80}")
        for line in (question, *plain):
            if not line or len(line) > _MAX_LINE or _TOKEN.search(line):
                raise MalformedReplyError(f"a question or option cannot be used: {line!r:.60}")
        if listed_options(question_text(question, plain)) != plain:
            raise MalformedReplyError(
                f"the options cannot be separated in one line: {question_text(question, plain)!r:.90}"
            )
        found.append(WrittenQuestion(question, plain))
    return tuple(found)


def parse_letter(text: str) -> str:
    """Return the letter of an answer: A to D, or X for none.

    Raises:
        MalformedReplyError: It has no letter or several.
    """
    letters = set(_LETTER.findall(text.strip()[:_MAX_LINE]))
    if len(letters) != 1:
        raise MalformedReplyError(f"the answer must be one letter, got {text!r:.40}")
    return letters.pop()


def _json_object(text: str) -> Mapping[str, Any]:
    """Return the first JSON object in a text, such as within a fence of Markdown."""
    start = text.find("{")
    try:
        if start < 0:
            raise ValueError("there is no object")
        fields, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError) as error:
        raise MalformedReplyError(f"the reply is not a JSON object ({error}): {text!r:.60}") from error
    return dict(fields)


def _text_field(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise MalformedReplyError(f"`{name}` must be a text, got {value!r:.40}")
    return plain_text(value)
