"""Records of an object and its masks, which can be written to JSON and are validated when read."""

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
"""Largest frame index, which is reached after 34 years at 1000 frames per second."""


@dataclass(frozen=True)
class PromptRecord:
    """A visual prompt of an object.

    Attributes:
        kind: Point, box or mask.
        frame_index: Frame of the video, from 0.
        coords: x, y of a point, or x1, y1, x2, y2 of a box, in pixels of the original frame.
        is_positive: False for a negative click.
        counts: Compressed COCO run lengths of a mask.
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
            raise ValueError(
                f"run lengths are required for a mask and only for a mask, got {self.counts!r} for a {self.kind}"
            )

    @classmethod
    def of_mask(cls, mask: NDArray[Any], frame_index: int) -> PromptRecord:
        """Create the record of a mask (H, W)."""
        return cls("mask", frame_index, counts=encode_rle(mask)["counts"])

    def mask(self, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Decode the mask (H, W).

        Raises:
            ValueError: The prompt is a point or a box, or its run lengths are of another size.
        """
        if self.counts is None:
            raise ValueError(f"a {self.kind} has no mask")
        return decode_rle({"size": list(frame_size), "counts": self.counts})

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {
            "kind": self.kind,
            "frame_index": int(self.frame_index),
            "coords": [float(value) for value in self.coords],
            "is_positive": self.is_positive,
            "counts": self.counts,
        }

    @classmethod
    def from_json(cls, fields: Any, frame_size: tuple[int, int]) -> PromptRecord:
        """Read and validate values of `to_json`.

        Raises:
            ValueError: A value is invalid, or a mask is not of the frame's size.
        """
        values = check_fields(fields, {"kind", "frame_index", "coords", "is_positive", "counts"}, "a prompt")
        if not isinstance(values["coords"], list):
            raise ValueError(f"coords must be a list, got {values['coords']!r}")
        if not isinstance(values["is_positive"], bool):
            raise ValueError(f"is_positive must be true or false, got {values['is_positive']!r}")
        record = cls(**{**values, "coords": tuple(values["coords"])})
        if record.counts is not None:
            check_rle({"size": list(frame_size), "counts": record.counts})
        return record


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """Mask of an object on one frame.

    Attributes:
        counts: Compressed COCO run lengths; None if the object is not visible.
        score: Confidence of the tracker.
    """

    counts: str | None
    score: float = 1.0

    def __post_init__(self) -> None:
        if not is_finite_number(self.score):
            raise ValueError(f"score must be a finite number, got {self.score!r}")

    @property
    def is_visible(self) -> bool:
        """Whether the object is visible."""
        return self.counts is not None

    @classmethod
    def of(cls, mask: NDArray[Any] | None, *, score: float) -> MaskRecord:
        """Create the record of a mask (H, W); None and an empty mask both mean that the object is not visible."""
        counts = encode_rle(mask)["counts"] if mask is not None and np.any(mask) else None
        return cls(counts, float(score))

    def rle(self, frame_size: tuple[int, int]) -> dict[str, Any] | None:
        """Return the mask as COCO run lengths, or None if the object is not visible."""
        return None if self.counts is None else {"size": list(frame_size), "counts": self.counts}

    def mask(self, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Decode the mask (H, W), which is empty if the object is not visible."""
        rle = self.rle(frame_size)
        return np.zeros(frame_size, dtype=bool) if rle is None else decode_rle(rle)


@dataclass(frozen=True)
class ObjectRecord:
    """Properties of an object other than its masks.

    Attributes:
        object_id: Id of the object.
        source: Kind of its first prompt.
        prompts: Points, boxes and masks: the first prompt and corrections, in order.
        expression: Referring expression, if any.
        anchor_frame: Frame on which its first mask was predicted.
        added_version: Version of the bank when the object was added.
        changed_version: Version of the bank when the object was last corrected or merged.
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
            raise ValueError(f"expression must be a string or None, got {self.expression!r}")


def check_integer(value: Any, name: str, *, low: int = 0, high: int) -> int:
    """Return a value after checking that it is an integer in a range.

    Raises:
        ValueError: The value is not an integer in the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= int(value) <= high:
        raise ValueError(f"{name} must be an integer in [{low}, {high}], got {value!r}")
    return int(value)


def check_choice(value: Any, allowed: tuple[str, ...], name: str) -> None:
    """Check that a value is one of the allowed names.

    Raises:
        ValueError: The value is not allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def check_fields(value: Any, names: set[str], what: str) -> Mapping[str, Any]:
    """Check that a JSON value is an object with exactly the given fields, and return it.

    Raises:
        ValueError: The value has other fields or is not an object.
    """
    if not isinstance(value, dict) or set(value) != names:
        given = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{what} must have the fields {sorted(names)}, got {given}")
    return value


def check_format(value: Any, expected: str, what: str) -> None:
    """Check the field `format` of a JSON object, before its other fields.

    Raises:
        ValueError: It is of another version.
    """
    found = value.get("format") if isinstance(value, dict) else None
    if found != expected:
        given = "no format" if found is None else f"the format {found!r:.80}"
        raise ValueError(f"{what} has {given} and was written by another version: this version reads {expected!r}")


def is_finite_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
