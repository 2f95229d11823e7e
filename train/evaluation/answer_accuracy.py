"""Correctness of text answers."""

from __future__ import annotations

import re

_OPTION = re.compile(r"\(?([A-Z])\)")
_REGION_LINE = re.compile(r"^\s*\[(\d+)\]:\s*(.+?)\s*$", re.MULTILINE)
_FUNCTION_WORDS = frozenset(
    ["a", "an", "the", "it", "is", "are", "was", "its", "they", "in", "of", "at", "to", "there", "here"]
)


def is_correct(given: str, expected: str, *, options: int = 0) -> bool:
    """Whether an answer has the meaning of the expected one.

    Args:
        given: The model's answer.
        expected: The correct answer.
        options: Number of options; with options only the letters are compared, and an answer without one is wrong.
    """
    if options:
        letter = chosen_option(expected)
        return letter is not None and chosen_option(given) == letter
    return content_words(given) == content_words(expected)


def is_same_answer(given: str, other: str, *, options: int = 0) -> bool:
    """Whether two answers of a model have the same meaning, correct or not.

    Args:
        given: One answer.
        other: Another.
        options: Number of options; with options only the letters are compared, and two answers without one are equal.
    """
    if options:
        return chosen_option(given) == chosen_option(other)
    return content_words(given) == content_words(other)


def chosen_option(answer: str) -> str | None:
    """Return the letter of the first option in an answer, or None."""
    match = _OPTION.search(answer)
    if match is not None:
        return match[1]
    bare = answer.strip().rstrip(".")
    return bare if len(bare) == 1 and bare.isupper() else None


def region_lines(answer: str) -> dict[int, str]:
    """Return the text of each line "[id]: text" of an answer, by id; the first of several."""
    lines: dict[int, str] = {}
    for object_id, text in _REGION_LINE.findall(answer):
        lines.setdefault(int(object_id), text)
    return lines


def content_words(answer: str) -> tuple[str, ...]:
    """Return the words of an answer without function words, case and punctuation."""
    words = re.findall(r"[a-z0-9\[\]-]+", answer.lower())
    return tuple(word for word in words if word not in _FUNCTION_WORDS)
