"""Sampling of visual prompts (points, boxes, masks) from exact masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unipixel.train.datasets.samples import PromptAnnotation

PROMPT_KINDS = ("point", "box", "mask")


def sample_prompt(
    rng: np.random.Generator, masks: NDArray[np.bool_], *, kind: str, is_fixed: bool, frame: int | None = None
) -> PromptAnnotation:
    """Sample a visual prompt for an object.

    Args:
        rng: Source of randomness.
        masks: Visible part of the object (N, H, W).
        kind: "point", "box" or "mask".
        is_fixed: True for evaluation: the point is the pixel farthest from the outline and the box is tight. False
            for training: the point is often any pixel inside and the edges of the box are jittered by up to a tenth
            of its sides, at most 20 pixels.
        frame: Frame of the prompt; None for a random one of those with at least half of the largest visible area.

    Raises:
        ValueError: The kind is unknown, or the object is not visible.
    """
    if kind not in PROMPT_KINDS:
        raise ValueError(f"kind must be one of {PROMPT_KINDS}, got {kind!r}")
    areas = masks.sum(axis=(1, 2))
    if not areas.any():
        raise ValueError("the object is visible in no frame, so that no prompt can be sampled")
    if frame is None:
        candidates = np.flatnonzero(areas >= 0.5 * areas.max())
        frame = int(candidates[int(rng.integers(len(candidates)))])
    mask = masks[frame]
    if not mask.any():
        raise ValueError(f"the object is not visible in frame {frame}")
    if kind == "mask":
        return PromptAnnotation("mask", frame, mask=mask)
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    if kind == "box":
        box = np.array([left, top, right, bottom], np.float64)
        if not is_fixed:
            sides = np.array([right - left, bottom - top] * 2)
            box += rng.uniform(-1, 1, 4) * np.minimum(0.1 * sides, 20)
            limits = np.array([mask.shape[1], mask.shape[0]] * 2)
            box = np.clip(box, 0, limits)
        edges = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        return PromptAnnotation("box", frame, box_xyxy=edges)
    if is_fixed or rng.random() < 0.4:
        # Padding by one pixel makes the frame's border count as outline.
        depth = ndimage.distance_transform_edt(np.pad(mask[top:bottom, left:right], 1))[1:-1, 1:-1]
        farthest = int(depth.argmax())
        y, x = farthest // depth.shape[1] + int(top), farthest % depth.shape[1] + int(left)
    else:
        chosen = int(rng.integers(len(rows)))
        y, x = int(rows[chosen]), int(columns[chosen])
    return PromptAnnotation("point", frame, point=(x + 0.5, y + 0.5))
