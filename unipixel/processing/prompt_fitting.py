"""Types of a user's prompts, and boxes that reach over the edge of the frame."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt


def fit_prompt(prompt: Any, *, frame_size: tuple[int, int]) -> VisualPrompt:
    """Return a prompt after checking its types; a box that reaches over the edge of the frame is clipped.

    Args:
        prompt: In pixels of the original frame.
        frame_size: (H, W) of the video.

    Raises:
        TypeError: It is not a prompt, or a value has another type.
    """
    if not isinstance(prompt, PointPrompt | BoxPrompt | MaskPrompt):
        raise TypeError(
            f"a prompt is a PointPrompt, BoxPrompt or MaskPrompt, got {prompt!r:.80}: "
            "give PointPrompt(x, y, frame_index), BoxPrompt((left, top, right, bottom), frame_index) or a MaskPrompt"
        )
    if isinstance(prompt.frame_index, bool) or not isinstance(prompt.frame_index, int | np.integer):
        raise TypeError(f"frame_index must be an integer, got {prompt.frame_index!r:.80}")
    if isinstance(prompt, PointPrompt):
        _check_numbers((prompt.x, prompt.y), "a point has 2")
        if not isinstance(prompt.is_positive, bool | np.bool_):
            raise TypeError(f"is_positive must be True or False, got {prompt.is_positive!r:.80}")
    elif isinstance(prompt, BoxPrompt):
        _check_numbers(prompt.xyxy, "a box has 4")
        return _clipped(prompt, frame_size)
    return prompt


def _check_numbers(values: Any, form: str) -> None:
    is_sized = isinstance(values, Sequence | np.ndarray) and len(values) == int(form[-1])
    if not is_sized or not all(isinstance(value, int | float | np.number) for value in values):
        raise TypeError(f"{form} coordinates in pixels, got {values!r:.80}")


def _clipped(prompt: BoxPrompt, frame_size: tuple[int, int]) -> BoxPrompt:
    """Clip a box to the frame; one that is outside, inverted or not finite is returned as it is, to be refused."""
    height, width = frame_size
    left, top, right, bottom = prompt.xyxy
    inside = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    is_valid = left < right and top < bottom and inside[0] < inside[2] and inside[1] < inside[3]
    if not is_valid or inside == (left, top, right, bottom):
        return prompt
    warnings.warn(
        f"the box ({left:g}, {top:g}, {right:g}, {bottom:g}) reaches over the edge of the frame of {width} x {height} "
        "pixels and is clipped",
        UserWarning,
        stacklevel=4,
    )
    return BoxPrompt(inside, prompt.frame_index)
