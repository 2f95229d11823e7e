"""The displayed form of an answer while it is generated."""

from __future__ import annotations

import re
from collections.abc import Callable

from unipixel.processing.answer_parser import parse_answer, strip_tokens
from unipixel.processing.special_tokens import SEG

# An object, with its mask or without, as in `parse_answer`.
_NAMED = re.compile(rf"\[\d{{1,4}}\](?:\s*{re.escape(SEG)})?")
# What may still become `[12]`, or a special token that is not displayed; special tokens contain no space.
_INCOMPLETE = re.compile(r"(?:\[\d{0,4}|<(?:\|\S*)?)$")


def displayed_start(text: str) -> str:
    """Return as much of the displayed answer as cannot change when the answer is continued.

    The text ends before an incomplete `[id]` or special token, and before a `<|seg|>` without an id, since the id of a
    new object depends on the ids in the whole answer.

    Args:
        text: The beginning of a generated answer, with its special tokens.
    """
    text, end = text.lstrip(), 0
    for match in _NAMED.finditer(text):
        if SEG in text[end : match.start()]:
            break
        end = match.end()
    rest, _, _ = text[end:].partition(SEG)
    complete = _INCOMPLETE.sub("", strip_tokens(rest))
    return (parse_answer(text[:end]).display + complete).rstrip()


class AnswerText:
    """Passes an answer on in its displayed form, piece by piece; the pieces together are the displayed answer."""

    def __init__(self, on_text: Callable[[str], None], *, prefix: str = "") -> None:
        """Start an answer.

        Args:
            on_text: Receives the pieces.
            prefix: Beginning of the answer that is not generated.
        """
        self._on_text, self._text, self._sent = on_text, prefix, ""

    def write(self, piece: str) -> None:
        """Continue the answer by a generated token; what cannot be displayed yet is held back.

        Args:
            piece: The generated text, with its special tokens.
        """
        self._text += piece
        self._send(displayed_start(self._text))

    def finish(self, display: str) -> None:
        """Pass the rest of the displayed answer on."""
        if display != self._sent:
            self._send(display)

    def _send(self, display: str) -> None:
        piece = display[len(self._sent) :] if display.startswith(self._sent) else ""
        self._sent += piece
        self._on_text(piece)
