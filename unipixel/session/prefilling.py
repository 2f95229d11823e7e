"""Memory pre-filling against what the user showed: prompts that the model reads, masks of it that hold them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.rle import mask_box
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt
from unipixel.session.video_objects import VideoObjects
from unipixel.session.video_tracker import VideoTracker

# A mask is one of the pointed object where that is more likely than not; boxes are compared as detections are.
_LEAST_CONFIDENCE = 0.5
_LEAST_BOX_OVERLAP = 0.5


def readable_prompts(scene: VideoObjects, seen: Collection[int]) -> dict[int, PointPrompt | BoxPrompt]:
    """Return the prompts that stand for new objects in words, by id.

    Masks, negative points, prompts on frames that the language model does not see, and further prompts of
    the same object are left to the tracker.

    Args:
        scene: Holds what waits to be followed.
        seen: Indices of the frames that the language model sees.
    """
    readable: dict[int, PointPrompt | BoxPrompt] = {}
    for object_id, prompts in scene.waiting.items():
        first = prompts[0]
        if object_id in scene.bank or first.frame_index not in seen:
            continue
        if isinstance(first, BoxPrompt) or (isinstance(first, PointPrompt) and first.is_positive):
            readable[object_id] = first
    return readable


def accepted_ids(
    follower: VideoTracker, tokens: Mapping[int, Tensor], prompts: Mapping[int, PointPrompt | BoxPrompt]
) -> tuple[int, ...]:
    """Tell for which objects a language model's tokens show what was pointed at.

    On the prompted frame their mask must hold the point, or fill the box, and the decoder must give it
    better than even odds. What the user showed is known, what the model read of it is a guess.

    Args:
        follower: Of the video.
        tokens: (n, C) by id.
        prompts: What was pointed at, by id.
    """
    fitting = []
    for object_id, own in tokens.items():
        prompt = prompts[object_id]
        masks = follower.segment_frame({object_id: own}, prompt.frame_index)
        mask = (masks.resized(*follower.size)[0] > 0).cpu().numpy()
        if float(masks.confidence[0]) >= _LEAST_CONFIDENCE and holds(mask, prompt):
            fitting.append(object_id)
    return tuple(fitting)


def holds(mask: NDArray[np.bool_], prompt: PointPrompt | BoxPrompt) -> bool:
    """Tell whether a mask (H, W) covers a point, or has a box that overlaps a given one by half or more (IoU)."""
    if isinstance(prompt, PointPrompt):
        return bool(mask[int(prompt.y), int(prompt.x)])
    around = mask_box(mask)
    if around is None:
        return False
    given = np.asarray(prompt.xyxy)
    low, high = np.maximum(around[:2], given[:2]), np.minimum(around[2:], given[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = [float(np.prod(np.subtract(box[2:], box[:2]))) for box in (around, given)]
    return shared >= _LEAST_BOX_OVERLAP * (sum(areas) - shared)
