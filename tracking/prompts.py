"""Validates prompts in pixels of the video and scales them to the square SAM input.

Shape letters: H/W size of the video, S side of the square SAM input, P points.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import ArrayLike
from torch import Tensor

from unipixel.tracking.types import SegmentPrompt

_BOX_CORNERS = (2, 3)
_CLICKS = (0, 1)


def click_prompt(
    points: ArrayLike | None, labels: Sequence[int] | None = None, *, box: ArrayLike | None = None,
    size: tuple[int, int], image_size: int,
) -> SegmentPrompt:  # fmt: skip
    """Create the prompt of one object from clicks and a box; a box over the edge of the frame is clipped.

    Args:
        points: (P, 2) x, y in pixels of the video, or None.
        labels: P values, 1 for a positive and 0 for a negative click; by default all 1.
        box: x1, y1, x2, y2 in pixels of the video; precedes the clicks.
        size: (H, W) of the video.
        image_size: Side S of the SAM input.

    Raises:
        ValueError: There is neither a point nor a box, a point is outside the frame, a label is neither 0 nor 1,
            the numbers of points and labels differ, or the box is inverted, empty or outside the frame.
    """
    height, width = size
    clicks = np.zeros((0, 2)) if points is None else np.asarray(points, dtype=np.float64)
    if clicks.ndim != 2 or clicks.shape[1] != 2:
        raise ValueError(f"points must be (P, 2) x, y, got shape {clicks.shape}")
    kinds = [1] * len(clicks) if labels is None else [int(label) for label in labels]
    if len(kinds) != len(clicks):
        raise ValueError(f"{len(clicks)} points but {len(kinds)} labels were given: one label per point")
    if wrong := [kind for kind in kinds if kind not in _CLICKS]:
        raise ValueError(f"click label {wrong[0]} is not allowed: 1 is a positive click, 0 a negative one")
    for x, y in clicks:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point ({x:g}, {y:g}) is outside the frame: x must be in 0..{width}, y in 0..{height}")
    if box is not None:
        clicks = np.concatenate([_corners(box, size), clicks])
        kinds = [*_BOX_CORNERS, *kinds]
    if not kinds:
        raise ValueError("a prompt needs at least one point or a box")
    coords = torch.tensor(clicks, dtype=torch.float32) / torch.tensor([width, height]) * image_size
    return SegmentPrompt(coords=coords[None], labels=torch.tensor([kinds]))


def mask_prompt(mask: ArrayLike | Tensor, *, size: tuple[int, int], image_size: int) -> Tensor:
    """Resize the mask of one object to the SAM input.

    Args:
        mask: (H, W), non-zero on the object.
        size: (H, W) of the video.
        image_size: Side S of the SAM input.

    Returns:
        (1, S, S) float32 in {0, 1}.

    Raises:
        ValueError: The mask is not of the video's size, or empty.
    """
    given = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    if tuple(given.shape) != tuple(size):
        raise ValueError(f"a mask must have the size of the video, {size[0]}x{size[1]}, got {tuple(given.shape)}")
    if not bool((given != 0).any()):
        raise ValueError("the mask is empty: at least one pixel must be non-zero")
    return resize_mask(given, image_size=image_size)


def resize_mask(mask: Tensor, *, image_size: int) -> Tensor:
    """Resize a mask (H, W) to (1, S, S) in {0, 1} as the package's predictor does."""
    values = (mask != 0).float()[None, None]
    if tuple(mask.shape) != (image_size, image_size):
        resized = F.interpolate(values, size=(image_size, image_size), mode="bilinear", antialias=True)
        values = (resized >= 0.5).float()
    return values[0]


def _corners(box: ArrayLike, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    corners = np.asarray(box, dtype=np.float64).reshape(-1)
    if corners.shape != (4,):
        raise ValueError(f"a box is x1, y1, x2, y2, got {len(corners)} values")
    x1, y1, x2, y2 = corners
    text = ", ".join(f"{value:g}" for value in corners)
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"box ({text}) is inverted or empty: x1 < x2 and y1 < y2 are needed")
    if not (x1 < width and y1 < height and x2 > 0 and y2 > 0):
        raise ValueError(f"box ({text}) is outside the frame: x must be in 0..{width}, y in 0..{height}")
    clipped = np.clip(corners, 0, [width, height, width, height])
    if not np.array_equal(clipped, corners):
        warnings.warn(f"box ({text}) reaches over the edge of the frame and is clipped", UserWarning, stacklevel=3)
    return clipped.reshape(2, 2)
