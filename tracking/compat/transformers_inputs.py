"""Prompts of several objects, nested as transformers' processors nest them.

Shape letters: S side of the square SAM input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unipixel.tracking.prompts import click_prompt, resize_mask
from unipixel.tracking.types import SegmentPrompt

# Label of padding points in transformers' processor.
_PADDING = -10


def object_prompts(
    object_ids: Sequence[int], *, points: Any = None, labels: Any = None, boxes: Any = None, masks: Any = None,
    size: tuple[int, int] | None, image_size: int,
) -> list[SegmentPrompt | Tensor]:  # fmt: skip
    """Convert nested values into one prompt per object.

    Args:
        object_ids: Distinct ids.
        points: [image][object][point][x, y] in pixels of the video, with one image; lists or a tensor.
        labels: [image][object][point], 1 for a positive and 0 for a negative click, -10 to ignore a point.
        boxes: [image][object][x1, y1, x2, y2].
        masks: A mask (h, w), or a list with one per object, of any size.
        size: (H, W) of the video; not required for masks.
        image_size: Side S of the SAM input.

    Returns:
        For each object, its prompt or mask (1, S, S).

    Raises:
        ValueError: The values cannot be combined, are nested differently, or are outside the frame.
    """
    if len(set(object_ids)) != len(object_ids) or not object_ids:
        raise ValueError(f"obj_ids must name each object once, got {list(object_ids)}")
    if (points is None) != (labels is None):
        raise ValueError("input_points and input_labels must be given together")
    if points is None and boxes is None and masks is None:
        raise ValueError("at least one of input_points, input_boxes and input_masks is needed")
    if masks is None:
        return list(_clicks(points, labels, boxes, count=len(object_ids), size=size, image_size=image_size))
    if points is not None or boxes is not None:
        raise ValueError("input_masks cannot be given together with input_points or input_boxes")
    return list(_masks(masks, count=len(object_ids), image_size=image_size))


def _clicks(
    points: Any, labels: Any, boxes: Any, *, count: int, size: tuple[int, int] | None, image_size: int
) -> Iterator[SegmentPrompt]:
    if size is None:
        raise ValueError("original_size (H, W) must be given with points or boxes before a stream's first frame")
    inputs = {"input_points": points, "input_labels": labels, "input_boxes": boxes}
    columns = [_by_object(values, name, count) for name, values in inputs.items()]
    for clicks, kinds, box in zip(*columns, strict=True):
        if clicks is not None and len(clicks) == len(kinds):
            pairs = [(click, kind) for click, kind in zip(clicks, kinds, strict=True) if kind != _PADDING]
            clicks, kinds = [click for click, _ in pairs] or None, [kind for _, kind in pairs] or None
        yield click_prompt(clicks, kinds, box=box, size=size, image_size=image_size)


def _masks(masks: Any, *, count: int, image_size: int) -> Iterator[Tensor]:
    given = masks if isinstance(masks, list | tuple) else [masks]
    if len(given) != count:
        raise ValueError(f"input_masks has {len(given)} masks for {count} object ids: give one per id")
    for mask in given:
        values = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
        if values.ndim < 2 or 0 in values.shape or values.numel() != values.shape[-1] * values.shape[-2]:
            raise ValueError(f"a mask of input_masks must be (h, w), got {tuple(values.shape)}")
        yield resize_mask(values.reshape(values.shape[-2:]), image_size=image_size)


def _by_object(values: Any, name: str, count: int) -> list[Any]:
    """Return the values of each object from the nesting [image][object]."""
    if values is None:
        return [None] * count
    nested = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    if not isinstance(nested, list | tuple) or len(nested) != 1 or not isinstance(nested[0], list | tuple):
        raise ValueError(f"{name} must be nested [image][object]... with one image, got {values!r}")
    if len(nested[0]) != count:
        raise ValueError(f"{name} has {len(nested[0])} objects for {count} object ids: give one entry per id")
    if flat := [entry for entry in nested[0] if not isinstance(entry, list | tuple)]:
        raise ValueError(f"{name} must be nested [image][object]..., got {flat[0]!r} instead of an object")
    return list(nested[0])
