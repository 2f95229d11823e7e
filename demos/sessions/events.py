"""Events that a user session emits while the model works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Waiting:
    """The work is queued.

    Attributes:
        position: Position in the queue; 1 is next.
    """

    position: int


@dataclass(frozen=True, slots=True)
class Started:
    """The work has started."""


@dataclass(frozen=True, slots=True)
class TextWritten:
    """A piece of the answer was generated.

    Attributes:
        piece: The new text.
        text: The answer so far, without special tokens.
    """

    piece: str
    text: str


@dataclass(frozen=True, slots=True)
class FrameMasked:
    """The masks of one frame are available from `UserSession.masks_at`.

    Attributes:
        frame_index: Index of the frame, from 0.
        object_ids: Objects that were tracked to this frame, visible or not.
        num_done: Frames that this pass has processed.
        num_frames: Frames that it will process.
        seconds_left: Estimated time until it is complete.
        counts: Compressed COCO run lengths by object id; None where the object is not visible.
    """

    frame_index: int
    object_ids: tuple[int, ...]
    num_done: int
    num_frames: int
    seconds_left: float
    counts: dict[int, str | None]


@dataclass(frozen=True, slots=True)
class Exporting:
    """A file of results is being written.

    Attributes:
        num_done: Finished frames.
        num_frames: Frames of the video.
    """

    num_done: int
    num_frames: int


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of results is complete.

    Attributes:
        file_name: Its name.
    """

    file_name: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is complete, and its objects are tracked.

    Attributes:
        question: The question.
        text: The answer, with objects as `[id]`.
        named_ids: Objects in the answer, in order.
        new_ids: Objects that this turn added.
    """

    question: str
    text: str
    named_ids: tuple[int, ...]
    new_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tracked:
    """Tracking without a question is complete.

    Attributes:
        object_ids: Objects that were tracked.
    """

    object_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkCancelled:
    """The work was cancelled. A cancelled question changes nothing; cancelled tracking keeps its finished frames.

    Attributes:
        reason: Why, as shown to the user.
    """

    reason: str


Event: TypeAlias = (
    Waiting | Started | TextWritten | FrameMasked | Exporting | Exported | Answered | Tracked | WorkCancelled
)
