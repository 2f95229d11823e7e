"""Samples: a clip with exact masks, visual prompts and the turns of a conversation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from unipixel.train.datasets.synthetic.scene import Scene

_PLACEHOLDER = re.compile("\x02(\\d+)\x03")


@dataclass(frozen=True)
class Clip:
    """Frames with the mask of the visible part of every object.

    Attributes:
        frames: RGB frames (N, H, W, 3), uint8.
        masks: Visible parts (O, N, H, W), bool; row i belongs to `object_ids[i]`.
        object_ids: Id of each object, as written in the turns.
        frame_indices: Index of each frame in the full clip (N,).
        timestamps_seconds: Time of each frame (N,).
        num_source_frames: Frames of the full clip.
        fps: Frames per second of the full clip.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    object_ids: tuple[int, ...]
    frame_indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]
    num_source_frames: int
    fps: float

    def masks_of(self, object_id: int) -> NDArray[np.bool_]:
        """Return the masks (N, H, W) of one object.

        Args:
            object_id: One of `object_ids`.

        Raises:
            KeyError: There is no object of this id.
        """
        if object_id not in self.object_ids:
            raise KeyError(f"object {object_id} is not in the clip, which has {self.object_ids}")
        return self.masks[self.object_ids.index(object_id)]


@dataclass(frozen=True)
class PromptAnnotation:
    """A visual prompt of one object.

    Attributes:
        kind: "point", "box" or "mask".
        frame: Position in the clip's list of frames.
        point: (x, y) in pixels of the frame, the centre of a pixel at .5; only for "point".
        box_xyxy: Left, top, right, bottom in pixels, right and bottom exclusive; only for "box".
        mask: (H, W) bool; only for "mask".
    """

    kind: str
    frame: int
    point: tuple[float, float] | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class QuestionAnswer:
    """One question and its answer.

    Attributes:
        question: Full text, options included; objects are written `[id]`.
        answer: Full text with one `<|seg|>` per target.
        target_ids: Objects of the answer's masks, in the order of its `<|seg|>`.
        mentioned_ids: Objects written in question or answer, in the order of their first mention.
        options: Options without their letters; empty for a free answer.
        correct_option: Index of the correct option, or None.
        kind: What is asked, such as "motion", "shape" or "same".
        exchanged_answer: Correct answer after the masks of the two mentioned objects are exchanged (for options: the
            text of the option); None where it would be the same or is unknown.
    """

    question: str
    answer: str
    target_ids: tuple[int, ...] = ()
    mentioned_ids: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    correct_option: int | None = None
    kind: str = ""
    exchanged_answer: str | None = None


@dataclass(frozen=True)
class Sample:
    """A clip with a conversation about it.

    Attributes:
        clip: Frames and masks.
        task: One of `synthetic.TASKS`, or that of the data set.
        kind: Subdivision of the task, such as "motion" or "point".
        turns: Questions and answers; none for the task "track".
        prompts: Visual prompt per object id.
        seed: Seed that the sample was generated from.
        split: Its split.
        scene: Contents of the clip, object i belonging to `clip.object_ids[i]`; None where they are unknown.
    """

    clip: Clip
    task: str
    kind: str
    turns: tuple[QuestionAnswer, ...]
    prompts: Mapping[int, PromptAnnotation] = field(default_factory=dict)
    seed: int = 0
    split: str = "train"
    scene: Scene | None = None


def placeholder(index: int) -> str:
    """Return the placeholder of an object's id in a text, before ids are assigned."""
    return f"\x02{index}\x03"


def placeholder_rows(text: str) -> tuple[int, ...]:
    """Return the rows of the placeholders in a text, in the order of their first mention."""
    return tuple(dict.fromkeys(int(found) for found in _PLACEHOLDER.findall(text)))


def _with_ids(text: str, ids: Mapping[int, int]) -> str:
    return _PLACEHOLDER.sub(lambda found: f"[{ids[int(found.group(1))]}]", text)


def resolve_ids(turn: QuestionAnswer, ids: Mapping[int, int]) -> QuestionAnswer:
    """Replace the placeholders of a turn by ids.

    Args:
        turn: Turn with placeholders, whose targets are rows of the clip's masks.
        ids: Id of each row.

    Returns:
        The turn of a sample.

    Raises:
        KeyError: A row has no id.
    """
    return replace(
        turn,
        question=_with_ids(turn.question, ids),
        answer=_with_ids(turn.answer, ids),
        target_ids=tuple(ids[row] for row in turn.target_ids),
        mentioned_ids=tuple(ids[row] for row in placeholder_rows(turn.question + turn.answer)),
        options=tuple(_with_ids(option, ids) for option in turn.options),
        exchanged_answer=None if turn.exchanged_answer is None else _with_ids(turn.exchanged_answer, ids),
    )
