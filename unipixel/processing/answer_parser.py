"""From the text of an answer back to objects: ids, masks and what a reader is shown."""

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
    """Words between objects.

    Attributes:
        text: Without special tokens.
        span: Start and end in the displayed answer.
    """

    text: str
    span: tuple[int, int]


@dataclass(frozen=True)
class ObjectSegment:
    """An object that an answer names as `[id]`, by a `<|seg|>`, or both.

    Attributes:
        object_id: Its id; a new one where a `<|seg|>` stands alone.
        mask_index: Which `<|seg|>` of the answer gives its mask, from 0; None where it is only named.
        is_new: Whether the id was given here, to a `<|seg|>` without one.
        span: Start and end of `[id]` in the displayed answer.
    """

    object_id: int
    mask_index: int | None
    is_new: bool
    span: tuple[int, int]


AnswerSegment: TypeAlias = TextSegment | ObjectSegment


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer taken apart.

    Attributes:
        segments: Words and objects in order.
    """

    segments: tuple[AnswerSegment, ...]

    @property
    def display(self) -> str:
        """The answer as a reader sees it: objects as `[id]`, no special token."""
        return "".join(_shown(segment) for segment in self.segments)

    @property
    def objects(self) -> tuple[ObjectSegment, ...]:
        """The objects in the order in which they are named."""
        return tuple(segment for segment in self.segments if isinstance(segment, ObjectSegment))

    @property
    def masks(self) -> tuple[ObjectSegment, ...]:
        """The objects that come with a mask, in the order of the masks."""
        return tuple(segment for segment in self.objects if segment.mask_index is not None)


def parse_answer(text: str, *, taken_ids: Collection[int] = (), next_id: int = 1) -> ParsedAnswer:
    """Find out which objects an answer names and which `<|seg|>` belongs to which.

    `[3] <|seg|>` is the mask of object 3; a `<|seg|>` without an id before it is a new object. Other
    special tokens are dropped.

    Args:
        text: The answer as the model wrote it, special tokens included.
        taken_ids: Ids in use; new ones avoid them and those in the text.
        next_id: Smallest id that may be given to a new object.
    """
    named = {int(match["id"]) for match in _OBJECT.finditer(text) if match["id"]}
    avoided = {*taken_ids, *named}
    segments: list[AnswerSegment] = []
    cursor = shown = num_masks = 0
    clean = text.strip()
    for match in _OBJECT.finditer(clean):
        shown = _add_words(segments, clean[cursor : match.start()], shown)
        cursor = match.end()
        is_new = match["alone"] is not None
        if is_new:
            while next_id in avoided:
                next_id += 1
            avoided.add(next_id)
        object_id = next_id if is_new else int(match["id"])
        has_mask = is_new or match["seg"] is not None
        end = shown + len(f"[{object_id}]")
        segments.append(ObjectSegment(object_id, num_masks if has_mask else None, is_new, (shown, end)))
        num_masks, shown = num_masks + has_mask, end
    _add_words(segments, strip_tokens(clean[cursor:]).rstrip(), shown)
    return ParsedAnswer(tuple(segments))


def strip_tokens(text: str) -> str:
    """Remove special tokens, also those that appear only when another between their halves is gone."""
    while _TOKEN.search(text):
        text = _TOKEN.sub("", text)
    return text


def _add_words(segments: list[AnswerSegment], text: str, start: int) -> int:
    words = strip_tokens(text)
    if words:
        segments.append(TextSegment(words, (start, start + len(words))))
    return start + len(words)


def _shown(segment: AnswerSegment) -> str:
    return segment.text if isinstance(segment, TextSegment) else f"[{segment.object_id}]"
