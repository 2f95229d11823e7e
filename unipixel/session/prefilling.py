"""Memory pre-filling: the prompts that the language model receives, and the check of the masks it returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.rle import mask_box
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt
from unipixel.session.video_objects import VideoObjects
from unipixel.session.video_tracker import VideoTracker

_MIN_CONFIDENCE = 0.5
# The usual threshold of a correct detection.
_MIN_BOX_IOU = 0.5


def prefill_prompts(objects: VideoObjects, frame_indices: Collection[int]) -> dict[int, PointPrompt | BoxPrompt]:
    """Return the pending prompts by id that the language model can process.

    These are the first prompts of new objects: a positive point or a box on a frame of the clip. All other
    prompts are left to the tracker.

    Args:
        objects: Has the pending prompts.
        frame_indices: Frames of the clip that the language model receives.
    """
    prompts: dict[int, PointPrompt | BoxPrompt] = {}
    for object_id, pending in objects.pending_prompts.items():
        first = pending[0]
        if object_id in objects.bank or first.frame_index not in frame_indices:
            continue
        if isinstance(first, BoxPrompt) or (isinstance(first, PointPrompt) and first.is_positive):
            prompts[object_id] = first
    return prompts


def accepted_ids(
    tracker: VideoTracker, tokens: Mapping[int, Tensor], prompts: Mapping[int, PointPrompt | BoxPrompt]
) -> tuple[int, ...]:
    """Return the ids of objects whose mask from the language model agrees with the prompt.

    The mask on the prompted frame must contain the point or match the box, with a confidence of at least 0.5.
    The prompt is certain, the answer of the model is a prediction.

    Args:
        tracker: Tracker of the video.
        tokens: Mask tokens (n, C) by id.
        prompts: The prompt of each object.
    """
    accepted = []
    for object_id, rows in tokens.items():
        prompt = prompts[object_id]
        masks = tracker.segment_frame({object_id: rows}, prompt.frame_index)
        mask = (masks.resized(*tracker.size)[0] > 0).cpu().numpy()
        if float(masks.confidence[0]) >= _MIN_CONFIDENCE and agrees_with_prompt(mask, prompt):
            accepted.append(object_id)
    return tuple(accepted)


def agrees_with_prompt(mask: NDArray[np.bool_], prompt: PointPrompt | BoxPrompt) -> bool:
    """Return whether a mask (H, W) contains a point, or its box has an IoU of at least 0.5 with a given box."""
    if isinstance(prompt, PointPrompt):
        return bool(mask[int(prompt.y), int(prompt.x)])
    box = mask_box(mask)
    if box is None:
        return False
    given = np.asarray(prompt.xyxy)
    low, high = np.maximum(box[:2], given[:2]), np.minimum(box[2:], given[2:])
    intersection = float(np.prod(np.maximum(high - low, 0)))
    areas = [float(np.prod(np.subtract(each[2:], each[:2]))) for each in (box, given)]
    return intersection >= _MIN_BOX_IOU * (sum(areas) - intersection)
