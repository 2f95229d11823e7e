"""Parsing of answers: object ids, masks and the displayed text."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from unipixel.processing.special_tokens import SEG

_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>")
# An object with its mask, an object alone, or a mask alone.
_OBJECT = re.compile(rf"\[(?P<id>\d{{1,4}})\](?:\s*(?P<seg>{re.escape(SEG)}))?|(?P<alone>{re.escape(SEG)})")


@dataclass(frozen=True)
class TextSegment:
    """Text between objects.

    Attributes:
        text: Without special tokens.
        span: Start and end in the displayed answer.
    """

    text: str
    span: tuple[int, int]


@dataclass(frozen=True)
class ObjectSegment:
    """An object that an answer names as `[id]`, as `<|seg|>`, or both.

    Attributes:
        object_id: Its id; a new one for a `<|seg|>` without an id.
        mask_index: Index, from 0, of its `<|seg|>` in the answer; None if it has none.
        is_new: Whether the id was assigned here, to a `<|seg|>` without one.
        span: Start and end of `[id]` in the displayed answer.
    """

    object_id: int
    mask_index: int | None
    is_new: bool
    span: tuple[int, int]


AnswerSegment: TypeAlias = TextSegment | ObjectSegment


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer as a sequence of text and objects.

    Attributes:
        segments: Text and objects in order.
    """

    segments: tuple[AnswerSegment, ...]

    @property
    def display(self) -> str:
        """The displayed answer: objects as `[id]`, no special tokens."""
        return "".join(_display(segment) for segment in self.segments)

    @property
    def objects(self) -> tuple[ObjectSegment, ...]:
        """The objects in their order in the text."""
        return tuple(segment for segment in self.segments if isinstance(segment, ObjectSegment))

    @property
    def masks(self) -> tuple[ObjectSegment, ...]:
        """The objects with a mask, in the order of the masks."""
        return tuple(segment for segment in self.objects if segment.mask_index is not None)


def parse_answer(text: str, *, taken_ids: Collection[int] = (), next_id: int = 1) -> ParsedAnswer:
    """Parse which objects an answer names and which `<|seg|>` belongs to which object.

    `[3] <|seg|>` is the mask of object 3; a `<|seg|>` without an id before it is a new object. Other
    special tokens are removed.

    Args:
        text: The generated answer with its special tokens.
        taken_ids: Ids in use; new ids differ from them and from those in the text.
        next_id: Smallest id that may be assigned to a new object.
    """
    named = {int(match["id"]) for match in _OBJECT.finditer(text) if match["id"]}
    avoided = {*taken_ids, *named}
    segments: list[AnswerSegment] = []
    cursor = length = num_masks = 0
    clean = text.strip()
    for match in _OBJECT.finditer(clean):
        length = _append_text(segments, clean[cursor : match.start()], length)
        cursor = match.end()
        is_new = match["alone"] is not None
        if is_new:
            while next_id in avoided:
                next_id += 1
            avoided.add(next_id)
        object_id = next_id if is_new else int(match["id"])
        has_mask = is_new or match["seg"] is not None
        end = length + len(f"[{object_id}]")
        segments.append(ObjectSegment(object_id, num_masks if has_mask else None, is_new, (length, end)))
        num_masks, length = num_masks + has_mask, end
    _append_text(segments, strip_tokens(clean[cursor:]).rstrip(), length)
    return ParsedAnswer(tuple(segments))


def strip_tokens(text: str) -> str:
    """Remove special tokens, including those that result from removing another."""
    while _TOKEN.search(text):
        text = _TOKEN.sub("", text)
    return text


def _append_text(segments: list[AnswerSegment], text: str, start: int) -> int:
    stripped = strip_tokens(text)
    if stripped:
        segments.append(TextSegment(stripped, (start, start + len(stripped))))
    return start + len(stripped)


def _display(segment: AnswerSegment) -> str:
    return segment.text if isinstance(segment, TextSegment) else f"[{segment.object_id}]"
