"""What a visitor is told while the model works for him."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Waiting:
    """Others are served first.

    Attributes:
        place: Place in the queue; 1 is next.
    """

    place: int


@dataclass(frozen=True, slots=True)
class Started:
    """The work has begun."""


@dataclass(frozen=True, slots=True)
class TextWritten:
    """A piece of the answer was written.

    Attributes:
        piece: What is new.
        text: The answer so far, without special tokens.
    """

    piece: str
    text: str


@dataclass(frozen=True, slots=True)
class FrameMasked:
    """The objects' masks on one frame are known; `UserSession.masks_at` returns them.

    Attributes:
        frame_index: The frame, from 0.
        object_ids: Objects that were followed into it, visible or not.
        num_done: Frames that this pass has done.
        num_frames: Frames of the video.
    """

    frame_index: int
    object_ids: tuple[int, ...]
    num_done: int
    num_frames: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is complete, and its objects are followed.

    Attributes:
        question: As it was asked.
        text: With objects as `[id]`.
        named_ids: Objects that the answer names, in order.
        new_ids: Objects that this turn added.
    """

    question: str
    text: str
    named_ids: tuple[int, ...]
    new_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tracked:
    """All objects are followed.

    Attributes:
        object_ids: Objects that were followed.
    """

    object_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkCancelled:
    """The work was stopped; everything is as before it began.

    Attributes:
        reason: In plain words.
    """

    reason: str


Event: TypeAlias = Waiting | Started | TextWritten | FrameMasked | Answered | Tracked | WorkCancelled
