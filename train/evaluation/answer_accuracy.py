"""Whether an answer in words is right."""

from __future__ import annotations

import re

_OPTION = re.compile(r"\(?([A-Z])\)")
_EMPTY_WORDS = frozenset(
    ["a", "an", "the", "it", "is", "are", "was", "its", "they", "in", "of", "at", "to", "there", "here"]
)


def is_right(given: str, expected: str, *, options: int = 0) -> bool:
    """Whether an answer says what the expected one says.

    Args:
        given: The model's answer.
        expected: The true answer.
        options: Number of options; the letters alone are compared then, and no letter is wrong.
    """
    if options:
        wanted = chosen_option(expected)
        return wanted is not None and chosen_option(given) == wanted
    return key_words(given) == key_words(expected)


def say_the_same(given: str, other: str, *, options: int = 0) -> bool:
    """Whether two answers of a model, right or wrong, come to the same.

    Args:
        given: One answer.
        other: Another.
        options: Number of options; the letters alone are compared then, and no letter equals no letter.
    """
    if options:
        return chosen_option(given) == chosen_option(other)
    return key_words(given) == key_words(other)


def chosen_option(answer: str) -> str | None:
    """Return the letter of the option that an answer names first, or None."""
    match = _OPTION.search(answer)
    if match is not None:
        return match[1]
    bare = answer.strip().rstrip(".")
    return bare if len(bare) == 1 and bare.isupper() else None


def key_words(answer: str) -> tuple[str, ...]:
    """Return the words of an answer that carry its meaning, without case and punctuation."""
    words = re.findall(r"[a-z0-9\[\]-]+", answer.lower())
    return tuple(word for word in words if word not in _EMPTY_WORDS)
