"""Tracking of objects through a finite video: decodes, encodes and tracks one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from unipixel.processing.clip_layout import check_prompt
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.tracking.clip_features import EncodedClip
from unipixel.tracking.prompts import click_prompt, mask_prompt
from unipixel.tracking.propagation import (
    ClipPrompt,
    propagate_in_video,
    sample_candidate_frames,
    select_anchor_frames,
)
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import TrackedFrame
from unipixel.tracking.tracker_core import TrackerCore
from unipixel.tracking.types import FrameMasks, ObjectMask, SegmentPrompt
from unipixel.video.frame import Frame
from unipixel.video.open import Video

# Frames that are decoded together when a clip is read backwards, since decoding runs forwards only.
_BACKWARD_BLOCK = 16
MAX_FEATURE_BYTES = 2**28
"""Default size of the cache of encoded frames; all frames of a short clip fit into it."""
# Magnitude of the logits of a known mask, as in SAM 2 (sam2_base.py).
_KNOWN_LOGIT = 10.0


class VideoFrames:
    """Frames of a finite video by index, decoded sequentially where they are read in order."""

    def __init__(self, video: Video) -> None:
        """Wrap a video.

        Raises:
            ValueError: It is a stream, whose length is unknown.
        """
        if video.is_stream or not video.info.num_frames:
            raise ValueError(f"{video.info.path} is a stream: use a live session, a clip must be finite")
        self._video = video
        self._iterator: Iterator[Frame] | None = None
        self._next_index = 0
        self._last_index = -1
        self._cache: dict[int, Frame] = {}

    def __len__(self) -> int:
        return int(self._video.info.num_frames or 0)

    def __getitem__(self, frame_index: int) -> NDArray[np.uint8]:
        return self.frame(frame_index).image

    def frame(self, frame_index: int) -> Frame:
        """Return a frame with its time; the frames that were decoded last are cached.

        Raises:
            OSError: The video is damaged before this frame.
        """
        if frame_index not in self._cache:
            last = self._last_index
            if frame_index == last - 1:
                block = range(max(0, frame_index + 1 - _BACKWARD_BLOCK), frame_index + 1)
                self._cache = {frame.index: frame for frame in self._video.read(block)}
            elif frame_index == last + 1:
                self._cache = {frame_index: self._read_next(frame_index)}
            else:
                self._cache = {frame_index: self._video.read([frame_index])[0]}
        self._last_index = frame_index
        return self._cache[frame_index]

    def _read_next(self, frame_index: int) -> Frame:
        """Read the next frame of a pass; a pass that is already beyond it is started again."""
        if self._iterator is None or self._next_index > frame_index:
            self._iterator, self._next_index = iter(self._video), 0
        for frame in self._iterator:
            self._next_index = frame.index + 1
            if frame.index == frame_index:
                return frame
        raise OSError(f"{self._video.info.path} ends before frame {frame_index}: the file is damaged there")


@dataclass(frozen=True)
class TrackedVideoFrame:
    """Objects on one frame of a video.

    Attributes:
        frame: The frame.
        objects: Mask, confidence and visibility by id.
    """

    frame: Frame
    objects: dict[int, ObjectMask]


class VideoTracker:
    """Tracks objects through one finite video with SAM 2.1."""

    def __init__(
        self,
        segmenter: Segmenter,
        video: Video,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        is_postprocessed: bool = False,
        max_feature_bytes: int = MAX_FEATURE_BYTES,
    ) -> None:
        """Prepare to track without computing anything.

        Args:
            segmenter: SAM 2.1.
            video: A finite video.
            memory_dtype: Type of SAM 2.1's memories.
            is_postprocessed: Whether SAM 2's mask post-processing is applied.
            max_feature_bytes: Bytes of encoded frames that are cached.

        Raises:
            ValueError: The video is a stream.
        """
        self.frames = VideoFrames(video)
        self.size = (video.info.height, video.info.width)
        self.clip = EncodedClip(segmenter, self.frames, size=self.size, max_cache_bytes=max_feature_bytes)
        self._segmenter = segmenter
        self._core = TrackerCore(
            segmenter, memory_dtype=memory_dtype, num_frames=len(self.frames), is_postprocessed=is_postprocessed
        )

    def track(self, prompts: Sequence[ClipPrompt]) -> Iterator[TrackedVideoFrame]:
        """Track objects forwards from their first prompts, then backwards to the first frame.

        Raises:
            ValueError: There are no prompts.
        """
        for tracked in propagate_in_video(self._core, self.clip, prompts):
            yield TrackedVideoFrame(self.frames.frame(tracked.frame_index), object_masks(tracked))

    def prompts_from_tokens(self, tokens: Mapping[int, Tensor], anchors: Mapping[int, int]) -> dict[int, ClipPrompt]:
        """Convert mask tokens (n, C) by id to prompts on the given frames."""
        return {
            object_id: ClipPrompt(object_id, anchors[object_id], SegmentPrompt(tokens=rows[None]))
            for object_id, rows in tokens.items()
        }

    def prompts_from_visual(
        self,
        object_id: int,
        prompts: Iterable[VisualPrompt],
        *,
        known_masks: Mapping[int, NDArray[np.bool_] | None] | None = None,
    ) -> list[ClipPrompt]:
        """Convert a user's prompts of one object to prompts of the tracker, one per frame.

        Args:
            object_id: Id of the object.
            prompts: In pixels of the original frames.
            known_masks: Masks (H, W) of the object by frame that clicks correct; None where an earlier
                prompt of the same pass gives the mask.

        Raises:
            ValueError: A prompt is outside the video, or a frame has negative points only.
        """
        by_frame: dict[int, list[VisualPrompt]] = {}
        for prompt in prompts:
            check_prompt(prompt, frame_size=self.size, num_video_frames=len(self.frames))
            by_frame.setdefault(prompt.frame_index, []).append(prompt)
        known_masks = known_masks or {}
        converted = []
        for frame_index, group in sorted(by_frame.items()):
            check_prompt_group(group, is_known=frame_index in known_masks)
            combined = self._combine(group)
            mask = known_masks.get(frame_index)
            if mask is not None and isinstance(combined, SegmentPrompt):
                combined = replace(combined, mask_logits=self._mask_logits(mask))
            converted.append(ClipPrompt(object_id, frame_index, combined))
        return converted

    def select_anchor_frames(self, tokens: Mapping[int, Tensor]) -> dict[int, int]:
        """Return the frame with the highest confidence for each object, among frames spread over the clip."""
        prompt = SegmentPrompt(tokens=torch.stack(list(tokens.values())))
        candidates = sample_candidate_frames(len(self.frames))
        frames = select_anchor_frames(self._segmenter, self.clip, prompt, candidates=candidates)
        return dict(zip(tokens, frames, strict=True))

    @torch.no_grad()
    def segment_frame(self, tokens: Mapping[int, Tensor], frame_index: int) -> FrameMasks:
        """Segment objects on one frame from mask tokens (n, C) by id, without memory and without storing it."""
        features = self.clip[frame_index]
        embedding = self._segmenter.embed_without_memory(features, num_objects=len(tokens))
        prompt = SegmentPrompt(tokens=torch.stack(list(tokens.values())))
        decoded = self._segmenter.decode(features, embedding, prompt)
        return FrameMasks(frame_index, decoded.mask_logits, decoded.object_score, decoded.iou)

    def _combine(self, prompts: Sequence[VisualPrompt]) -> SegmentPrompt | Tensor:
        image_size = self._segmenter.config.image_size
        boxes = [prompt for prompt in prompts if isinstance(prompt, BoxPrompt)]
        points = [prompt for prompt in prompts if isinstance(prompt, PointPrompt)]
        for prompt in prompts:
            if isinstance(prompt, MaskPrompt):
                return mask_prompt(prompt.mask, size=self.size, image_size=image_size)
        return click_prompt(
            [(point.x, point.y) for point in points] or None,
            [int(point.is_positive) for point in points] or None,
            box=boxes[0].xyxy if boxes else None,
            size=self.size,
            image_size=image_size,
        )

    def _mask_logits(self, mask: NDArray[np.bool_]) -> Tensor:
        """Return the logits (1, S/4, S/4) of a known mask, as input of a correction."""
        side = self._segmenter.config.mask_size
        values = torch.from_numpy(np.ascontiguousarray(mask)).float()[None, None]
        resized = F.interpolate(values, size=(side, side), mode="bilinear", antialias=True)[0]
        return (resized * 2 - 1) * _KNOWN_LOGIT


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


def object_masks(tracked: TrackedFrame) -> dict[int, ObjectMask]:
    """Convert logits to masks at the size of the video; the mask of an absent object is empty."""
    if not tracked.object_ids:
        return {}
    masks = (tracked.mask_logits() > 0).cpu().numpy()
    present, confidence = tracked.is_present.tolist(), tracked.confidence.tolist()
    return {
        object_id: ObjectMask(masks[row], float(confidence[row]), bool(present[row] and masks[row].any()))
        for row, object_id in enumerate(tracked.object_ids)
    }
