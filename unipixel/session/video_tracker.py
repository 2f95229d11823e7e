"""Objects through a finite video: decode, encode, follow, one frame at a time."""

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
from unipixel.tracking.propagation import ClipPrompt, select_anchor_frames, propagate_in_video, sample_candidate_frames
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import TrackedFrame
from unipixel.tracking.tracker_core import TrackerCore
from unipixel.tracking.types import FrameMasks, ObjectMask, SegmentPrompt
from unipixel.video.frame import Frame
from unipixel.video.open import Video

# Frames that are decoded at once when a clip is read backwards; a decoder can only run forwards.
_BACKWARD_BLOCK = 16
MAX_FEATURE_BYTES = 2**28
"""Memory for encoded frames by default, so that a short clip is encoded once for all that is asked about it."""
# Logit of a pixel of a known mask: sure, as SAM 2 makes them of given masks (sam2_base.py).
_KNOWN_LOGIT = 10.0


class VideoFrames:
    """A finite video indexed by frame, decoded in order where it is read in order."""

    def __init__(self, video: Video) -> None:
        """Wrap a video.

        Raises:
            ValueError: It is a stream, whose length is not known.
        """
        if video.is_stream or not video.info.num_frames:
            raise ValueError(f"{video.info.path} is a stream: follow it live, a clip must have an end")
        self._video = video
        self._ahead: Iterator[Frame] | None = None
        self._next = 0
        self._last = -1
        self._kept: dict[int, Frame] = {}

    def __len__(self) -> int:
        return int(self._video.info.num_frames or 0)

    def __getitem__(self, frame_index: int) -> NDArray[np.uint8]:
        return self.frame(frame_index).image

    def frame(self, frame_index: int) -> Frame:
        """Return a frame with its time; the last ones read are kept.

        Raises:
            OSError: The video turned out to be damaged before this frame.
        """
        if frame_index not in self._kept:
            last = self._last
            if frame_index == last - 1:
                block = range(max(0, frame_index + 1 - _BACKWARD_BLOCK), frame_index + 1)
                self._kept = {frame.index: frame for frame in self._video.read(block)}
            elif frame_index == last + 1:
                self._kept = {frame_index: self._read_on(frame_index)}
            else:
                self._kept = {frame_index: self._video.read([frame_index])[0]}
        self._last = frame_index
        return self._kept[frame_index]

    def _read_on(self, frame_index: int) -> Frame:
        """Read the next frame of a pass, which starts over where an earlier pass went further."""
        if self._ahead is None or self._next > frame_index:
            self._ahead, self._next = iter(self._video), 0
        for frame in self._ahead:
            self._next = frame.index + 1
            if frame.index == frame_index:
                return frame
        raise OSError(f"{self._video.info.path} ends before frame {frame_index}: the file is damaged there")


@dataclass(frozen=True)
class TrackedVideoFrame:
    """Objects on one frame of a video.

    Attributes:
        frame: The frame.
        objects: Mask, confidence and presence by id.
    """

    frame: Frame
    objects: dict[int, ObjectMask]


class VideoTracker:
    """Follows objects through one finite video with SAM 2.1."""

    def __init__(
        self,
        segmenter: Segmenter,
        video: Video,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        is_postprocessed: bool = False,
        max_feature_bytes: int = MAX_FEATURE_BYTES,
    ) -> None:
        """Prepare to follow.

        Args:
            segmenter: SAM 2.1.
            video: Finite.
            memory_dtype: Type in which memories are stored.
            is_postprocessed: Whether SAM 2's own post-processing is on.
            max_feature_bytes: Memory for encoded frames.

        Raises:
            ValueError: The video is a stream.
        """
        self.frames = VideoFrames(video)
        self.size = (video.info.height, video.info.width)
        self.clip = EncodedClip(segmenter, self.frames, size=self.size, max_cache_bytes=max_feature_bytes)
        self._segmenter = segmenter
        self._follower = TrackerCore(
            segmenter, memory_dtype=memory_dtype, num_frames=len(self.frames), is_postprocessed=is_postprocessed
        )

    def follow(self, prompts: Sequence[ClipPrompt]) -> Iterator[TrackedVideoFrame]:
        """Follow objects forwards from their first prompts, then backwards before them.

        Raises:
            ValueError: There are no prompts.
        """
        for tracked in propagate_in_video(self._follower, self.clip, prompts):
            yield TrackedVideoFrame(self.frames.frame(tracked.frame_index), object_masks(tracked))

    def language_prompts(self, tokens: Mapping[int, Tensor], anchors: Mapping[int, int]) -> dict[int, ClipPrompt]:
        """Turn a language model's tokens (n, C) by id into prompts on given frames."""
        return {
            object_id: ClipPrompt(object_id, anchors[object_id], SegmentPrompt(tokens=own[None]))
            for object_id, own in tokens.items()
        }

    def visual_prompts(
        self,
        object_id: int,
        prompts: Iterable[VisualPrompt],
        *,
        known: Mapping[int, NDArray[np.bool_] | None] | None = None,
    ) -> list[ClipPrompt]:
        """Turn a user's prompts of one object into the tracker's; clicks and a box on one frame go together.

        Args:
            object_id: Id of the object.
            prompts: In pixels of the original frames.
            known: Masks (H, W) of the object on frames where clicks correct it; None where an earlier
                prompt of the same pass makes it.

        Raises:
            ValueError: A prompt is not on the video, or nothing on a frame says where the object is.
        """
        by_frame: dict[int, list[VisualPrompt]] = {}
        for prompt in prompts:
            check_prompt(prompt, frame_size=self.size, num_video_frames=len(self.frames))
            by_frame.setdefault(prompt.frame_index, []).append(prompt)
        known = known or {}
        made = []
        for frame_index, group in sorted(by_frame.items()):
            check_group(group, is_known=frame_index in known)
            joined = self._joined(group)
            mask = known.get(frame_index)
            if mask is not None and isinstance(joined, SegmentPrompt):
                joined = replace(joined, mask_logits=self._feedback(mask))
            made.append(ClipPrompt(object_id, frame_index, joined))
        return made

    def select_anchor_frames(self, tokens: Mapping[int, Tensor]) -> dict[int, int]:
        """Find the frame on which the decoder is surest to see each object, over frames spread through the clip."""
        stacked = SegmentPrompt(tokens=torch.stack(list(tokens.values())))
        candidates = sample_candidate_frames(len(self.frames))
        return dict(zip(tokens, select_anchor_frames(self._segmenter, self.clip, stacked, candidates=candidates), strict=True))

    @torch.no_grad()
    def segment_frame(self, tokens: Mapping[int, Tensor], frame_index: int) -> FrameMasks:
        """Segment objects on one frame by a language model's tokens (n, C) alone; nothing is remembered of it."""
        features = self.clip[frame_index]
        start = self._segmenter.embed_without_memory(features, num_objects=len(tokens))
        made = self._segmenter.decode(features, start, SegmentPrompt(tokens=torch.stack(list(tokens.values()))))
        return FrameMasks(frame_index, made.mask_logits, made.object_score, made.iou)

    def _joined(self, prompts: Sequence[VisualPrompt]) -> SegmentPrompt | Tensor:
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

    def _feedback(self, mask: NDArray[np.bool_]) -> Tensor:
        """(1, S/4, S/4) logits of a known mask, which a click then corrects."""
        side = self._segmenter.config.mask_size
        values = torch.from_numpy(np.ascontiguousarray(mask)).float()[None, None]
        resized = F.interpolate(values, size=(side, side), mode="bilinear", antialias=True)[0]
        return (resized * 2 - 1) * _KNOWN_LOGIT


def check_group(prompts: Sequence[VisualPrompt], *, is_known: bool) -> None:
    """Check that the prompts of one object on one frame go together.

    Args:
        prompts: At least one.
        is_known: Whether a mask of the object on the frame is known, which negative points alone may correct.

    Raises:
        ValueError: They do not.
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
    """Turn logits into masks at the size of the video; an object that is absent has an empty one."""
    if not tracked.object_ids:
        return {}
    masks = (tracked.mask_logits() > 0).cpu().numpy()
    present, confidence = tracked.is_present.tolist(), tracked.confidence.tolist()
    return {
        object_id: ObjectMask(masks[row], float(confidence[row]), bool(present[row] and masks[row].any()))
        for row, object_id in enumerate(tracked.object_ids)
    }
