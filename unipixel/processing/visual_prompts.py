"""Visual prompts: what a user points at, and the values the model reads of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PointPrompt:
    """A click.

    Attributes:
        x: Pixels from the left of the original frame.
        y: Pixels from the top.
        frame_index: Frame of the video, from 0.
        is_positive: False for a click on what does not belong to the object (tracker only).
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

    mask: np.ndarray
    frame_index: int = 0


VisualPrompt: TypeAlias = PointPrompt | BoxPrompt | MaskPrompt


@dataclass(frozen=True)
class ReferencePrompt:
    """A point or box as the language model's prompt encoder reads it: one `<|ref|>`.

    Attributes:
        coords: (1, 2) point or (2, 2) top-left and bottom-right corner, float32 x, y in pixels of the
            square SAM input.
        frame: Index into the sampled frames, from 0.
        num_frames: Sampled frames, the repeated last frame of an odd clip included.
    """

    coords: Tensor
    frame: int
    num_frames: int

    def __post_init__(self) -> None:
        if self.coords.ndim != 2 or self.coords.shape[0] not in (1, 2) or self.coords.shape[1] != 2:
            raise ValueError(f"coords must be (1, 2) for a point or (2, 2) for a box, got {tuple(self.coords.shape)}")
        if self.coords.dtype != torch.float32:
            raise TypeError(f"coords must be float32, shorter types move points by pixels; got {self.coords.dtype}")
        if not 0 <= self.frame < self.num_frames:
            raise ValueError(f"frame must be in [0, {self.num_frames - 1}], got {self.frame}")

    @property
    def is_box(self) -> bool:
        """Whether two corners are given."""
        return self.coords.shape[0] == 2
