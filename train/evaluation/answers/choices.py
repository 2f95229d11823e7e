"""The option that an answer to a multiple-choice question selects, by the rules of four published evaluations.

`first_letter` is UniPixel's (VideoRefer-Bench-Q, PixelQA, MVBench), `bracketed_letter` that of the VideoRefer
repository, `matches_mvbench` that of the MVBench notebook, `contains_answer` Pixel-SAIL's (PerBench). `stated_option`
is the strict rule: it finds the option that an answer states in any usual form, and nothing in an answer that states
none. An empty answer selects nothing under every rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Verdict = Literal["right", "wrong", "not an option"]

_BRACKETED = re.compile(r"\(([A-Z])\)")
_CLOSED = re.compile(r"([A-Z])\)")
# "(B)", "B)", "B." or "B:" anywhere, "B" at the end or before a comma; not a letter within a word.
_STATED = re.compile(r"(?<![^\W_])(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*(?:[).:,]|$))")
_ANNOUNCED = re.compile(r"\b(?:answer|option|choice)\s*(?:is|:)?\s*\(?\s*([A-Za-z])(?![^\W_])", re.IGNORECASE)
# A capital letter by itself, unless it is the article of a following word.
_ALONE = re.compile(r"(?<![\w'])(?!A\s+[a-z])([A-Z])(?![\w'])")
_TOKENS = re.compile(r"<\|[^<>|]*\|>")


def option_letters(count: int) -> str:
    """Return the letters of a number of options: "ABCD" of 4."""
    return "".join(chr(ord("A") + index) for index in range(count))


def judge_choice(selected: str | None, answer: str) -> Verdict:
    """Compare a selected letter with the right one."""
    if selected is None:
        return "not an option"
    return "right" if selected == answer else "wrong"


def first_letter(text: str, *, letters: str) -> str | None:
    """Return the first character of the first word, brackets and dots aside, if it is the letter of an option.

    "Answer: B" therefore selects A, and "The answer is A" nothing.

    Args:
        text: The answer.
        letters: Letters of the options, in capitals.
    """
    word = text.lower().split(" ")[0]
    first = re.sub(r"[().]", "", word)[:1].upper()
    return first if first and first in letters else None


def bracketed_letter(text: str) -> str | None:
    """Return the first letter in brackets, else the first before a closing bracket, else the first character."""
    for pattern in (_BRACKETED, _CLOSED):
        if match := pattern.search(text):
            return match[1]
    return text.replace(".", "")[:1] or None


def matches_mvbench(text: str, answer: str) -> bool:
    """Return whether MVBench's notebook takes an answer for the right one.

    The first word of the first line, in lower case and without dots, must be contained in "(x)" or contain it. What was
    pre-filled, "(", is part of the answer there. Unlike in the notebook, an empty answer is wrong.

    Args:
        text: The answer, without what was pre-filled.
        answer: The right letter.
    """
    lines = text.strip().splitlines()
    if not lines or not lines[0].replace(".", "").strip():
        return False
    word = f"({lines[0]}".lower().split(" ")[0].replace(".", "")
    option = f"({answer.lower()})"
    return word in option or option in word


def contains_answer(text: str, answer: str) -> bool:
    """Return whether the right answer, a letter or an option, occurs anywhere in a text (PerBench as published)."""
    return bool(answer) and answer in text


def stated_option(text: str, options: Sequence[str] | int) -> int | None:
    """Return the index of the option that an answer states.

    In this order: the option whose text is the whole answer; a letter after "answer", "option" or "choice"; the first
    letter in brackets, before a bracket, dot, colon or comma, or at the end; the only option whose text the answer
    contains; the first capital letter by itself.

    Args:
        text: The answer.
        options: The options' texts without letters, or their number.
    """
    letters = option_letters(options if isinstance(options, int) else len(options))
    texts = [] if isinstance(options, int) else [_normalized(option) for option in options]
    plain = _TOKENS.sub("", text).strip()
    if texts.count(_normalized(plain)) == 1:
        return texts.index(_normalized(plain))
    for pattern in (_ANNOUNCED, _STATED):
        for match in pattern.finditer(plain):
            letter = next(group for group in match.groups() if group).upper()
            if letter in letters and not _is_article(plain, match):
                return letters.index(letter)
    found = [index for index, option in enumerate(texts) if _contains_words(plain, option)]
    if len(found) == 1:
        return found[0]
    alone = next((match[1] for match in _ALONE.finditer(plain) if match[1] in letters), None)
    return None if alone is None else letters.index(alone)


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Return whether a matched "a" is the article of a following word: "the answer is a dog"."""
    start, end = next(match.span(number) for number in range(1, match.re.groups + 1) if match[number])
    is_bracketed = start > 0 and text[start - 1] == "("
    return text[start:end] == "a" and not is_bracketed and bool(re.match(r"\s+\w", text[end:]))


def _normalized(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _contains_words(text: str, option: str) -> bool:
    return bool(option) and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text.lower()) is not None
