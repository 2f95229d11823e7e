"""Tracking of objects through a finite video: decodes, encodes and tracks one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from unipixel.processing.prompt_checks import check_prompt, check_prompt_group
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.video_frames import VideoFrames
from unipixel.tracking.clip_features import EncodedClip, FrameSelection
from unipixel.tracking.prompts import click_prompt, mask_prompt
from unipixel.tracking.propagation import (
    ClipPrompt,
    Direction,
    propagate_in_video,
    sample_candidate_frames,
    select_anchor_frames,
)
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import ObjectState
from unipixel.tracking.tracker import TrackedFrame
from unipixel.tracking.tracker_core import TrackerCore
from unipixel.tracking.types import FrameMasks, ObjectMask, SegmentPrompt
from unipixel.video.frame import Frame
from unipixel.video.open import Video

MAX_FEATURE_BYTES = 2**28
"""Default size of the cache of encoded frames; all frames of a short clip fit into it."""
# Magnitude of the logits of a known mask, as in SAM 2 (sam2_base.py).
_KNOWN_LOGIT = 10.0


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
        language_segmenter: Segmenter | None = None,
    ) -> None:
        """Prepare to track without computing anything.

        Args:
            segmenter: SAM 2.1.
            video: A finite video.
            memory_dtype: Type of SAM 2.1's memories.
            is_postprocessed: Whether SAM 2's mask post-processing is applied.
            max_feature_bytes: Bytes of encoded frames that are cached, of each segmenter.
            language_segmenter: SAM 2.1 that decodes the mask tokens of a language model; None is `segmenter`. Another
                one encodes its own frames, and objects are tracked from the masks that it decodes.

        Raises:
            ValueError: The video is a stream.
        """
        self.frames = VideoFrames(video)
        self.size = (video.info.height, video.info.width)
        self._segmenter = segmenter
        self._language_segmenter = language_segmenter or segmenter
        self._max_feature_bytes = max_feature_bytes
        self.clip = self._encoded(segmenter)
        self._language_clip = self.clip if language_segmenter is None else self._encoded(language_segmenter)
        self._make_core = partial(
            _tracker_core, segmenter, memory_dtype=memory_dtype, is_postprocessed=is_postprocessed
        )
        self._core = self._make_core(len(self.frames))

    @property
    def num_encoded_frames(self) -> int:
        """Number of frames that image encoders have processed."""
        return sum(clip.num_encoded for clip in {self.clip, self._language_clip})

    @property
    def num_cache_bytes(self) -> int:
        """Size of the cached features in bytes."""
        return sum(clip.num_cache_bytes for clip in {self.clip, self._language_clip})

    def is_encoded(self, frame_index: int) -> bool:
        """Return whether a frame can be segmented from prompts without running the image encoder."""
        return self.clip.is_encoded(frame_index)

    def track(self, prompts: Sequence[ClipPrompt], *, direction: Direction = "both") -> Iterator[TrackedVideoFrame]:
        """Track objects forwards from their first prompts, then backwards to the first frame.

        If the video turns out to be damaged, it ends before the damage; the frames before the first prompt are then
        tracked in a second pass.

        Args:
            prompts: At least one.
            direction: Frames from the first prompts on, frames before them, or both.

        Raises:
            ValueError: There are no prompts.
            OSError: The video is damaged before the first prompt.
        """
        try:
            yield from self._track(prompts, direction)
        except OSError:
            kept = [prompt for prompt in prompts if prompt.frame_index < len(self.frames)]
            # Reading has corrected the length of the video, if the damage is the cause.
            if len(self.frames) >= len(self.clip) or not kept:
                raise
        else:
            return
        has_language_clip = self._language_clip is not self.clip
        self.clip = self._encoded(self._segmenter)
        self._language_clip = self._encoded(self._language_segmenter) if has_language_clip else self.clip
        self._core = self._make_core(len(self.frames))
        if direction != "forward" and any(prompt.frame_index for prompt in kept):
            yield from self._track(kept, direction)

    def _track(self, prompts: Sequence[ClipPrompt], direction: Direction) -> Iterator[TrackedVideoFrame]:
        for tracked in propagate_in_video(self._core, self.clip, prompts, direction=direction):
            yield TrackedVideoFrame(self.frames.frame(tracked.frame_index), object_masks(tracked))

    def _encoded(self, segmenter: Segmenter) -> EncodedClip:
        return EncodedClip(segmenter, self.frames, size=self.size, max_cache_bytes=self._max_feature_bytes)

    def track_selection(
        self, prompts: Sequence[ClipPrompt], frame_indices: Sequence[int], *, direction: Direction = "both"
    ) -> Iterator[TrackedVideoFrame]:
        """Track objects through some frames of the video only, as if the others did not exist.

        Args:
            prompts: Prompts on some of these frames.
            frame_indices: Ascending indices.
            direction: Frames from the first prompts on, frames before them, or both.

        Raises:
            ValueError: There are no prompts, or one is on another frame.
        """
        selection = FrameSelection(self.clip, frame_indices)
        positions = {frame_index: position for position, frame_index in enumerate(selection.frame_indices)}
        if outside := sorted({prompt.frame_index for prompt in prompts} - set(positions)):
            raise ValueError(f"a prompt is on frame {outside[0]}, which is not tracked: select it too")
        moved = [replace(prompt, frame_index=positions[prompt.frame_index]) for prompt in prompts]
        core = self._make_core(len(selection))
        for tracked in propagate_in_video(core, selection, moved, direction=direction):
            frame = self.frames.frame(selection.frame_indices[tracked.frame_index])
            yield TrackedVideoFrame(frame, object_masks(tracked))

    @torch.no_grad()
    def segment_prompts(self, prompts: Sequence[ClipPrompt]) -> ObjectMask:
        """Segment one object on one frame from its prompts there, as tracking does before its first step.

        Args:
            prompts: At least one; all of the same object and frame, in the order in which they were given.
        """
        object_id, frame_index, state = prompts[0].object_id, prompts[0].frame_index, ObjectState()
        for prompt in prompts:
            segmented = self._core.prompt(self.clip[frame_index], state, frame_index, prompt.prompt)
        masks = FrameMasks(frame_index, segmented.mask_logits, segmented.object_score, segmented.iou)
        return object_masks(TrackedFrame(frame_index, (object_id,), masks, self.size))[object_id]

    def prompts_from_tokens(self, tokens: Mapping[int, Tensor], anchors: Mapping[int, int]) -> dict[int, ClipPrompt]:
        """Convert mask tokens (n, C) by id to prompts on the given frames."""
        if self._language_clip is self.clip:
            return {
                object_id: ClipPrompt(object_id, anchors[object_id], SegmentPrompt(tokens=rows[None]))
                for object_id, rows in tokens.items()
            }
        side = self._segmenter.config.image_size
        prompts = {}
        for object_id, rows in tokens.items():
            masks = self.segment_frame({object_id: rows}, anchors[object_id])
            prompts[object_id] = ClipPrompt(object_id, anchors[object_id], (masks.resized(side, side) > 0).float())
        return prompts

    def prompts_from_visual(
        self,
        object_id: int,
        prompts: Iterable[VisualPrompt],
        *,
        known_masks: Mapping[int, NDArray[np.bool_] | None] | None = None,
    ) -> list[ClipPrompt]:
        """Convert a user's prompts of one object to prompts of the tracker, one per frame; two for a corrected mask.

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
            mask, is_known = known_masks.get(frame_index), frame_index in known_masks
            first = group[0]
            if isinstance(first, MaskPrompt) and all(isinstance(prompt, PointPrompt) for prompt in group[1:]):
                converted.append(ClipPrompt(object_id, frame_index, self._combine([first])))
                if not (group := group[1:]):
                    continue
                # Clicks after a mask correct it.
                mask, is_known = first.mask, True
            check_prompt_group(group, is_known=is_known)
            combined = self._combine(group)
            if mask is not None and isinstance(combined, SegmentPrompt):
                combined = replace(combined, mask_logits=self._mask_logits(mask))
            converted.append(ClipPrompt(object_id, frame_index, combined))
        return converted

    def select_anchor_frames(self, tokens: Mapping[int, Tensor]) -> dict[int, int]:
        """Return the frame with the highest confidence for each object, among frames spread over the clip."""
        prompt = SegmentPrompt(tokens=torch.stack(list(tokens.values())))
        candidates = sample_candidate_frames(len(self.frames))
        frames = select_anchor_frames(self._language_segmenter, self._language_clip, prompt, candidates=candidates)
        return dict(zip(tokens, frames, strict=True))

    @torch.no_grad()
    def segment_frame(self, tokens: Mapping[int, Tensor], frame_index: int) -> FrameMasks:
        """Segment objects on one frame from mask tokens (n, C) by id, without memory and without storing it."""
        features, segmenter = self._language_clip[frame_index], self._language_segmenter
        embedding = segmenter.embed_without_memory(features, num_objects=len(tokens))
        prompt = SegmentPrompt(tokens=torch.stack(list(tokens.values())))
        decoded = segmenter.decode(features, embedding, prompt)
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


def _tracker_core(
    segmenter: Segmenter, num_frames: int, *, memory_dtype: torch.dtype, is_postprocessed: bool
) -> TrackerCore:
    return TrackerCore(segmenter, memory_dtype=memory_dtype, num_frames=num_frames, is_postprocessed=is_postprocessed)


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
