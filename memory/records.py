"""What is remembered of one object, as values that can be written to JSON and checked when read back."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.rle import check_rle, decode_rle, encode_rle

Source = Literal["point", "box", "mask", "language"]
PromptKind = Literal["point", "box", "mask"]
_NUM_COORDS = {"point": 2, "box": 4, "mask": 0}
MAX_FRAME_INDEX = 2**40
"""Ceiling on a frame's index: at a thousand frames per second it is reached after 34 years."""


@dataclass(frozen=True)
class PromptRecord:
    """A prompt as it was given.

    Attributes:
        kind: Point, box or mask.
        frame_index: Frame of the video, from 0.
        coords: x, y of a point, or left, top, right, bottom of a box, in pixels of the original frame.
        is_positive: False for a click on what does not belong to the object.
        counts: Run lengths of a mask, in COCO's compressed form.
    """

    kind: PromptKind
    frame_index: int
    coords: tuple[float, ...] = ()
    is_positive: bool = True
    counts: str | None = None

    def __post_init__(self) -> None:
        check_choice(self.kind, get_args(PromptKind), "kind of prompt")
        check_integer(self.frame_index, "frame_index", high=MAX_FRAME_INDEX)
        if len(self.coords) != _NUM_COORDS[self.kind] or not all(is_finite_number(value) for value in self.coords):
            raise ValueError(f"a {self.kind} has {_NUM_COORDS[self.kind]} finite coordinates, got {self.coords!r}")
        if (self.counts is not None) != (self.kind == "mask"):
            raise ValueError(f"run lengths belong to a mask and to nothing else, got {self.counts!r} for a {self.kind}")

    @classmethod
    def of_mask(cls, mask: NDArray[Any], frame_index: int) -> PromptRecord:
        """Record a mask (H, W)."""
        return cls("mask", frame_index, counts=encode_rle(mask)["counts"])

    def mask(self, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Restore the mask (H, W).

        Raises:
            ValueError: It is a point or a box, or the run lengths are of another size.
        """
        if self.counts is None:
            raise ValueError(f"a {self.kind} holds no mask")
        return decode_rle({"size": list(frame_size), "counts": self.counts})

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": self.kind,
            "frame_index": int(self.frame_index),
            "coords": [float(value) for value in self.coords],
            "is_positive": self.is_positive,
            "counts": self.counts,
        }

    @classmethod
    def from_json(cls, fields: Any, frame_size: tuple[int, int]) -> PromptRecord:
        """Read and check what `to_json` wrote.

        Raises:
            ValueError: It is something else, or a mask does not fill the frame.
        """
        kept = check_fields(fields, {"kind", "frame_index", "coords", "is_positive", "counts"}, "a prompt")
        if not isinstance(kept["coords"], list):
            raise ValueError(f"coords must be a list, got {kept['coords']!r}")
        if not isinstance(kept["is_positive"], bool):
            raise ValueError(f"is_positive must be true or false, got {kept['is_positive']!r}")
        record = cls(**{**kept, "coords": tuple(kept["coords"])})
        if record.counts is not None:
            check_rle({"size": list(frame_size), "counts": record.counts})
        return record


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """How an object looked in one frame.

    Attributes:
        counts: Run lengths of its mask in COCO's compressed form; None where it is not seen.
        score: Confidence of the tracker, higher is surer.
    """

    counts: str | None
    score: float = 1.0

    def __post_init__(self) -> None:
        if not is_finite_number(self.score):
            raise ValueError(f"score must be a finite number, got {self.score!r}")

    @property
    def is_visible(self) -> bool:
        """Whether the object is seen."""
        return self.counts is not None

    @classmethod
    def of(cls, mask: NDArray[Any] | None, *, score: float) -> MaskRecord:
        """Record a mask (H, W); None and an empty one both say that the object is not seen."""
        is_seen = mask is not None and bool(np.any(mask))
        return cls(encode_rle(mask)["counts"] if is_seen and mask is not None else None, float(score))

    def rle(self, frame_size: tuple[int, int]) -> dict[str, Any] | None:
        """Return the mask as COCO run lengths, or None where the object is not seen."""
        return None if self.counts is None else {"size": list(frame_size), "counts": self.counts}

    def mask(self, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Restore the mask (H, W), empty where the object is not seen."""
        rle = self.rle(frame_size)
        return np.zeros(frame_size, dtype=bool) if rle is None else decode_rle(rle)


@dataclass(frozen=True)
class ObjectRecord:
    """What is known of an object besides its masks.

    Attributes:
        object_id: Its id.
        source: What it was given by.
        prompts: Points, boxes and masks, the first one and corrections in order.
        expression: Words that name it, if any.
        anchor_frame: Frame on which its first mask was made.
        added_version: The bank's version when it was added.
        changed_version: The bank's version when it was last corrected or merged.
    """

    object_id: int
    source: Source
    prompts: tuple[PromptRecord, ...] = ()
    expression: str | None = None
    anchor_frame: int = 0
    added_version: int = 0
    changed_version: int = 0

    def __post_init__(self) -> None:
        check_choice(self.source, get_args(Source), "source")
        check_integer(self.anchor_frame, "anchor_frame", high=MAX_FRAME_INDEX)
        if self.expression is not None and not isinstance(self.expression, str):
            raise ValueError(f"expression must be a text or None, got {self.expression!r}")


def check_integer(value: Any, name: str, *, low: int = 0, high: int) -> int:
    """Check that a value is an integer in a range, and return it.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= int(value) <= high:
        raise ValueError(f"{name} must be an integer in [{low}, {high}], got {value!r}")
    return int(value)


def check_choice(value: Any, allowed: tuple[str, ...], name: str) -> None:
    """Check that a value is one of a few names.

    Raises:
        ValueError: It is not.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def check_fields(value: Any, names: set[str], what: str) -> Mapping[str, Any]:
    """Check that a value from JSON is an object with exactly these fields.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, dict) or set(value) != names:
        given = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{what} must have the fields {sorted(names)}, got {given}")
    return value


def is_finite_number(value: Any) -> bool:
    """Whether a value is a number other than infinity and not-a-number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
