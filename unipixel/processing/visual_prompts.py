"""Points, boxes and masks that a user gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from unipixel.memory.representation import short_repr


@dataclass(frozen=True)
class PointPrompt:
    """A click.

    Attributes:
        x: Pixels from the left of the original frame.
        y: Pixels from the top.
        frame_index: Frame of the video, from 0.
        is_positive: False for a click outside the object (tracker only).
    """

    x: float
    y: float
    frame_index: int = 0
    is_positive: bool = True


@dataclass(frozen=True)
class BoxPrompt:
    """A box.

    Attributes:
        xyxy: Left, top, right, bottom in pixels of the original frame.
        frame_index: Frame of the video, from 0.
    """

    xyxy: tuple[float, float, float, float]
    frame_index: int = 0


@dataclass(frozen=True)
class MaskPrompt:
    """A mask.

    Attributes:
        mask: (H, W) bool at the size of the original frame.
        frame_index: Frame of the video, from 0.
    """

    __repr__ = short_repr

    mask: np.ndarray
    frame_index: int = 0


VisualPrompt: TypeAlias = PointPrompt | BoxPrompt | MaskPrompt
