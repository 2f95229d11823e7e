"""Masks of prompts on a single image without a segmenter: points and boxes are filled.

It stands in for the tracker of a video where an image is read by Pixel-SAIL alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unipixel.processing.prompt_checks import check_prompt
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt, VisualPrompt
from unipixel.session.video_frames import VideoFrames
from unipixel.session.video_tracker import TrackedVideoFrame
from unipixel.tracking.propagation import ClipPrompt, Direction
from unipixel.tracking.types import ObjectMask
from unipixel.video.open import Video

FitSize = Callable[[int, int], tuple[int, int]]


class StillTracker:
    """Turns the prompts of one image into masks, by a fixed rule.

    A mask is used as it is, a box is filled, and a point marks the patch that contains it: the smallest region that the
    model can see. Points of one object add up, also to its known mask; a new box or mask replaces it.

    Attributes:
        frames: The image, as the only frame.
        size: (H, W) of the image.
        num_encoded_frames: Always 0: there is no image encoder.
        num_cache_bytes: Always 0.
    """

    num_encoded_frames = 0
    num_cache_bytes = 0

    def __init__(self, video: Video, *, fit_size: FitSize, patch_size: int) -> None:
        """Prepare without computing anything.

        Args:
            video: An image.
            fit_size: Returns the size to which the model resizes an image.
            patch_size: Side of a patch in pixels of the resized image.
        """
        self.frames = VideoFrames(video)
        self.size = (video.info.height, video.info.width)
        self._fit_size, self._patch_size = fit_size, patch_size

    def is_encoded(self, frame_index: int) -> bool:
        """Return whether the frame is the image, which needs no encoder."""
        return frame_index == 0

    def prompts_from_visual(
        self,
        object_id: int,
        prompts: Iterable[VisualPrompt],
        *,
        known_masks: Mapping[int, NDArray[np.bool_] | None] | None = None,
    ) -> list[ClipPrompt]:
        """Convert a user's prompts of one object to its mask.

        Args:
            object_id: Id of the object.
            prompts: In pixels of the image.
            known_masks: Mask (H, W) of the object by frame, to which points are added.

        Raises:
            ValueError: A prompt is outside the image, or a negative point.
        """
        given = list(prompts)
        mask = np.zeros(self.size, dtype=np.bool_)
        for prompt in given:
            check_prompt(prompt, frame_size=self.size, num_video_frames=1)
            mask |= self._fill(prompt)
        known = (known_masks or {}).get(0)
        if known is not None and all(isinstance(prompt, PointPrompt) for prompt in given):
            mask |= known
        return [ClipPrompt(object_id, 0, torch.from_numpy(mask)[None])] if given else []

    def track(self, prompts: Sequence[ClipPrompt], *, direction: Direction = "both") -> Iterator[TrackedVideoFrame]:
        """Yield the image with the latest mask of each object; there is no other frame in any direction."""
        del direction
        latest = {prompt.object_id: self._mask(prompt) for prompt in prompts}
        yield TrackedVideoFrame(self.frames.frame(0), latest)

    def segment_prompts(self, prompts: Sequence[ClipPrompt]) -> ObjectMask:
        """Return the mask of the latest prompt of one object."""
        return self._mask(prompts[-1])

    def _mask(self, prompt: ClipPrompt) -> ObjectMask:
        if not isinstance(prompt.prompt, torch.Tensor):
            raise TypeError("an image without a segmenter has masks only: create prompts with prompts_from_visual")
        mask = np.asarray(prompt.prompt[0].numpy(), dtype=np.bool_)
        return ObjectMask(mask, 1.0, bool(mask.any()))

    def _fill(self, prompt: VisualPrompt) -> NDArray[np.bool_]:
        if isinstance(prompt, PointPrompt):
            if not prompt.is_positive:
                raise ValueError(
                    f"the point ({prompt.x:g}, {prompt.y:g}) is outside the object, which corrects masks of SAM 2.1 "
                    "only: give a segmenter (--segmenter), or the mask of the object"
                )
            return self._patch_of(prompt.x, prompt.y)
        if isinstance(prompt, BoxPrompt):
            left, top, right, bottom = prompt.xyxy
            # Pixels whose centre is in the box; at least the one that contains its top left corner.
            rows, columns = (np.arange(side) + 0.5 for side in self.size)
            inside = ((rows > top) & (rows < bottom))[:, None] & ((columns > left) & (columns < right))
            inside[int(top), int(left)] = True
            return inside
        return np.asarray(prompt.mask) != 0

    def _patch_of(self, x: float, y: float) -> NDArray[np.bool_]:
        """Return the pixels of the patch that contains a point."""
        resized = self._fit_size(*self.size)
        inside = []
        for value, side, length in zip((y, x), self.size, resized, strict=True):
            # Pixels of the image from which the pixels of the patch are resized, by nearest neighbour. An enlarged
            # pixel on the border belongs to two patches and is left out.
            samples = ((np.arange(length) + 0.5) * side / length).astype(int).clip(max=side - 1)
            first = min(int(value * length / side), length - 1) // self._patch_size * self._patch_size
            last = first + self._patch_size
            start = samples[first] + int(first > 0 and samples[first - 1] == samples[first])
            stop = samples[last - 1] + int(last == length or samples[last] != samples[last - 1])
            inside.append((np.arange(side) >= start) & (np.arange(side) < stop))
        return inside[0][:, None] & inside[1]
