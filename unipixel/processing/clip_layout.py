"""The layout of a clip's frames, pixels and tokens, and visual prompts on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unipixel.memory.records import PromptRecord
from unipixel.model.inputs import ReferencePrompt, VideoInput
from unipixel.processing.frame_sampling import check_frame_index
from unipixel.processing.image_processing import FRAMES_PER_PAIR
from unipixel.processing.prompt_checks import check_prompt
from unipixel.processing.prompt_fitting import fit_prompt
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt


@dataclass(frozen=True)
class ClipLayout:
    """The sampled frames of a clip, without their pixels.

    Attributes:
        frame_indices: Index in the video, from 0, of each sampled frame.
        frame_size: (H, W) of the original frames.
        num_video_frames: Number of frames of the whole video.
        grid_thw: Patch grid: frame pairs, rows, columns, before merging.
        patch_size: Side of a patch in pixels.
        merge_size: Patches merged into one token along each side.
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
            raise ValueError(f"frame_indices must increase, got {self.frame_indices}")

    @property
    def num_frames(self) -> int:
        """Number of sampled frames."""
        return len(self.frame_indices)

    @property
    def is_still(self) -> bool:
        """Whether each frame forms a pair with itself; always true of a single frame."""
        return self.grid_thw[0] == self.num_frames

    @property
    def num_tokens(self) -> int:
        """Merged tokens of the clip in the text."""
        t, h, w = self.grid_thw
        return t * h * w // self.merge_size**2

    def frame_position(self, frame_index: int) -> int:
        """Return the position of a frame of the video among the frames of all pairs.

        If each frame forms a pair with itself, this is its first position in the pair.

        Raises:
            ValueError: The frame is outside the video, or not sampled.
        """
        check_frame_index(frame_index, self.num_video_frames)
        if frame_index not in self.frame_indices:
            raise ValueError(
                f"frame {frame_index} has a prompt, but the sampled frames are {list(self.frame_indices)}: "
                f"include it when frames are sampled (select_frames, kept=[{frame_index}])"
            )
        return self.frame_indices.index(frame_index) * (FRAMES_PER_PAIR if self.is_still else 1)


@dataclass(frozen=True)
class ClipInput:
    """A clip as input of the model.

    Attributes:
        video: Its patches.
        layout: Its sampled frames and grid.
    """

    video: VideoInput
    layout: ClipLayout


def to_references(
    prompts: Sequence[VisualPrompt], layout: ClipLayout, *, image_size: int
) -> tuple[ReferencePrompt, ...]:
    """Convert points and boxes to the values of `<|ref|>` placeholders.

    Args:
        prompts: In pixels and frames of the original video.
        layout: The sampled frames.
        image_size: Side of the square SAM input in pixels, to which coordinates are scaled.

    Raises:
        ValueError: A prompt is outside the video, on a frame that is not sampled, a negative click, or a mask.
    """
    height, width = layout.frame_size
    scale = np.array([image_size / width, image_size / height])
    references = []
    for prompt in prompts:
        prompt = fit_prompt(prompt, frame_size=layout.frame_size)
        check_prompt(prompt, frame_size=layout.frame_size, num_video_frames=layout.num_video_frames)
        if isinstance(prompt, MaskPrompt):
            raise ValueError("a mask cannot be a <|ref|>: pass it as Turn.memory")
        if isinstance(prompt, PointPrompt) and not prompt.is_positive:
            raise ValueError(
                f"the negative point ({prompt.x:g}, {prompt.y:g}) cannot be a <|ref|>: "
                "the language model takes positive points only; give it to the tracker"
            )
        corners = [prompt.x, prompt.y] if isinstance(prompt, PointPrompt) else list(prompt.xyxy)
        coords = torch.from_numpy((np.array(corners).reshape(-1, 2) * scale).astype(np.float32))
        num_frames = FRAMES_PER_PAIR * layout.grid_thw[0]
        references.append(
            ReferencePrompt(coords, frame=layout.frame_position(prompt.frame_index), num_frames=num_frames)
        )
    return tuple(references)


def record_prompt(prompt: VisualPrompt) -> PromptRecord:
    """Convert a prompt to a record of the object memory bank."""
    if isinstance(prompt, PointPrompt):
        return PromptRecord("point", prompt.frame_index, (prompt.x, prompt.y), is_positive=prompt.is_positive)
    if isinstance(prompt, BoxPrompt):
        return PromptRecord("box", prompt.frame_index, tuple(prompt.xyxy))
    return PromptRecord.of_mask(prompt.mask, prompt.frame_index)


def recall_prompt(record: PromptRecord, *, frame_size: tuple[int, int]) -> VisualPrompt:
    """Convert a record of the object memory bank to a prompt.

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
