"""Checks of a user's prompts against the frames of a video, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unipixel.memory.injection import check_object_ids
from unipixel.memory.records import MAX_FRAME_INDEX
from unipixel.processing.frame_sampling import check_frame_index
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.video.frame import VideoInfo


def check_prompts(prompts: Mapping[int, Sequence[VisualPrompt]], info: VideoInfo) -> None:
    """Check the first prompts of some objects.

    Args:
        prompts: Prompts of each new object, by id.
        info: The video; of unknown length for a stream.

    Raises:
        ValueError: An id is not allowed, a prompt is outside the video, or prompts cannot be combined.
    """
    if not prompts:
        return
    check_object_ids(list(prompts))
    frame_size, num_video_frames = (info.height, info.width), info.num_frames or MAX_FRAME_INDEX
    for group in prompts.values():
        for prompt in group:
            check_prompt(prompt, frame_size=frame_size, num_video_frames=num_video_frames)
        for frame_index in sorted({prompt.frame_index for prompt in group}):
            same_frame = [prompt for prompt in group if prompt.frame_index == frame_index]
            check_prompt_group(same_frame, is_known=False)


def check_prompt(prompt: VisualPrompt, *, frame_size: tuple[int, int], num_video_frames: int) -> None:
    """Check that a point, box or mask is inside a video.

    Args:
        prompt: In pixels of the original frame.
        frame_size: (H, W) of the video.
        num_video_frames: Number of frames of the video.

    Raises:
        ValueError: It is outside the frame or the video, a box is inverted, or a mask is empty or of another size.
    """
    height, width = frame_size
    check_frame_index(prompt.frame_index, num_video_frames)
    if isinstance(prompt, PointPrompt):
        if not (0 <= prompt.x < width and 0 <= prompt.y < height):
            raise ValueError(
                f"the point ({prompt.x:g}, {prompt.y:g}) is outside the frame of {width} x {height} pixels: "
                f"x must be in [0, {width}), y in [0, {height})"
            )
    elif isinstance(prompt, BoxPrompt):
        left, top, right, bottom = prompt.xyxy
        shown = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
        if left >= right or top >= bottom:
            raise ValueError(f"the box {shown} is inverted or empty: give left, top, right, bottom with left < right")
        # A box that reaches over the edge is clipped where it is used.
        if not (left < width and top < height and right > 0 and bottom > 0):
            raise ValueError(f"the box {shown} is outside the frame of {width} x {height} pixels")
    else:
        mask = np.asarray(prompt.mask)
        if mask.shape != (height, width):
            raise ValueError(f"the mask has shape {mask.shape}, the frames have (H, W) = ({height}, {width})")
        if not mask.any():
            raise ValueError(f"the mask on frame {prompt.frame_index} is empty: mark at least one pixel")


def check_prompt_group(prompts: Sequence[VisualPrompt], *, is_known: bool) -> None:
    """Check that prompts of one object on one frame can be combined.

    Args:
        prompts: At least one.
        is_known: Whether a mask of the object on the frame is known, so that negative points alone are allowed.

    Raises:
        ValueError: They cannot be combined.
    """
    counts = {
        kind: sum(isinstance(prompt, kind) for prompt in prompts) for kind in (MaskPrompt, BoxPrompt, PointPrompt)
    }
    num_masks, num_boxes, num_points = counts.values()
    frame_index = prompts[0].frame_index
    if num_masks + num_boxes > 1 or (num_masks and num_points):
        raise ValueError(
            f"frame {frame_index} has {num_masks} masks, {num_boxes} boxes and {num_points} points "
            "for one object: give one mask, or one box and any points"
        )
    is_positive = any(not isinstance(prompt, PointPrompt) or prompt.is_positive for prompt in prompts)
    if not is_positive and not is_known:
        raise ValueError(
            f"frame {frame_index} has only negative points for an object: give a point on the object there too"
        )
