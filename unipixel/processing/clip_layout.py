"""Where a clip's frames, pixels and tokens lie, and prompts placed on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unipixel.memory.records import PromptRecord
from unipixel.model.inputs import ReferencePrompt, VideoInput
from unipixel.processing.frame_sampling import check_frame_index
from unipixel.processing.image_processing import FRAMES_PER_PAIR
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt


@dataclass(frozen=True)
class ClipLayout:
    """The frames that the language model sees, without their pixels.

    Attributes:
        frame_indices: Frame of the video, from 0, that each of them is.
        frame_size: (H, W) of the original frames.
        num_video_frames: Frames of the whole video.
        grid_thw: Patch grid: frame pairs, rows, columns, before merging.
        patch_size: Side of a patch in pixels.
        merge_size: Patches that make one token along each side.
    """

    frame_indices: tuple[int, ...]
    frame_size: tuple[int, int]
    num_video_frames: int
    grid_thw: tuple[int, int, int]
    patch_size: int = 14
    merge_size: int = 2

    def __post_init__(self) -> None:
        for index in self.frame_indices:
            check_frame_index(index, self.num_video_frames)
        if list(self.frame_indices) != sorted(set(self.frame_indices)):
            raise ValueError(f"frame_indices must rise, got {self.frame_indices}")

    @property
    def num_frames(self) -> int:
        """Number of frames that the language model sees."""
        return len(self.frame_indices)

    @property
    def is_still(self) -> bool:
        """Whether each frame fills a pair alone; true of a single one."""
        return self.grid_thw[0] == self.num_frames

    @property
    def num_tokens(self) -> int:
        """Merged tokens of the clip in the text."""
        t, h, w = self.grid_thw
        return t * h * w // self.merge_size**2

    def place(self, frame_index: int) -> int:
        """Return which of the frames that fill the pairs a frame of the video is; the first where it fills one alone.

        Raises:
            ValueError: The frame is beyond the video, or not among those seen.
        """
        check_frame_index(frame_index, self.num_video_frames)
        if frame_index not in self.frame_indices:
            raise ValueError(
                f"frame {frame_index} carries a prompt, but the language model sees frames "
                f"{list(self.frame_indices)}: keep it when they are chosen (select_frames, kept=[{frame_index}])"
            )
        return self.frame_indices.index(frame_index) * (FRAMES_PER_PAIR if self.is_still else 1)


@dataclass(frozen=True)
class ClipInput:
    """A clip ready for the language model.

    Attributes:
        video: Its patches.
        layout: Where they come from.
    """

    video: VideoInput
    layout: ClipLayout


def check_prompt(prompt: VisualPrompt, *, frame_size: tuple[int, int], num_video_frames: int) -> None:
    """Check that a point, box or mask lies on a video.

    Args:
        prompt: In pixels of the original frame.
        frame_size: (H, W) of the video.
        num_video_frames: Its frames.

    Raises:
        ValueError: It lies outside the frame or the clip, a box is inverted, or a mask is empty or of another size.
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
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"the box {shown} reaches outside the frame of {width} x {height} pixels")
    else:
        mask = np.asarray(prompt.mask)
        if mask.shape != (height, width):
            raise ValueError(f"the mask has shape {mask.shape}, the frames have (H, W) = ({height}, {width})")
        if not mask.any():
            raise ValueError(f"the mask on frame {prompt.frame_index} is empty: mark at least one pixel")


def to_references(
    prompts: Sequence[VisualPrompt], layout: ClipLayout, *, image_size: int
) -> tuple[ReferencePrompt, ...]:
    """Turn points and boxes into what the prompt encoder reads for each `<|ref|>`.

    Args:
        prompts: In pixels and frames of the original video.
        layout: The frames that the language model sees.
        image_size: Side of the square SAM input, in whose pixels the coordinates are given on.

    Raises:
        ValueError: A prompt is not on the video, on a frame that is not seen, a negative click, or a mask.
    """
    height, width = layout.frame_size
    scale = np.array([image_size / width, image_size / height])
    references = []
    for prompt in prompts:
        check_prompt(prompt, frame_size=layout.frame_size, num_video_frames=layout.num_video_frames)
        if isinstance(prompt, MaskPrompt):
            raise ValueError("a mask is no <|ref|>: it is a memory, put it into Turn.memory")
        if isinstance(prompt, PointPrompt) and not prompt.is_positive:
            raise ValueError(
                f"the negative point ({prompt.x:g}, {prompt.y:g}) cannot be a <|ref|>: "
                "the language model reads positive points only, give it to the tracker"
            )
        corners = [prompt.x, prompt.y] if isinstance(prompt, PointPrompt) else list(prompt.xyxy)
        coords = torch.from_numpy((np.array(corners).reshape(-1, 2) * scale).astype(np.float32))
        num_frames = FRAMES_PER_PAIR * layout.grid_thw[0]
        references.append(ReferencePrompt(coords, frame=layout.place(prompt.frame_index), num_frames=num_frames))
    return tuple(references)


def record_prompt(prompt: VisualPrompt) -> PromptRecord:
    """Return a prompt as the object memory keeps it."""
    if isinstance(prompt, PointPrompt):
        return PromptRecord("point", prompt.frame_index, (prompt.x, prompt.y), is_positive=prompt.is_positive)
    if isinstance(prompt, BoxPrompt):
        return PromptRecord("box", prompt.frame_index, tuple(prompt.xyxy))
    return PromptRecord.of_mask(prompt.mask, prompt.frame_index)


def recall_prompt(record: PromptRecord, *, frame_size: tuple[int, int]) -> VisualPrompt:
    """Return a prompt that the object memory kept.

    Args:
        record: From `record_prompt`.
        frame_size: (H, W) of the video.
    """
    if record.kind == "point":
        x, y = record.coords
        return PointPrompt(x, y, record.frame_index, record.is_positive)
    if record.kind == "box":
        left, top, right, bottom = record.coords
        return BoxPrompt((left, top, right, bottom), record.frame_index)
    return MaskPrompt(record.mask(frame_size), record.frame_index)
