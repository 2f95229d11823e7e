"""Tracking of objects through a part of a video, frame by frame, so that an interruption keeps what is done."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from unipixel.processing.visual_prompts import MaskPrompt
from unipixel.session.video_objects import VideoObjects
from unipixel.session.video_tracker import TrackedVideoFrame
from unipixel.tracking.propagation import ClipPrompt, Direction


@dataclass(frozen=True)
class FrameRange:
    """The frames of a video on which objects are tracked.

    Attributes:
        start_frame: Frame from whose masks tracking starts; None for the prompted frames of each object.
        direction: Frames after the start, before it, or both.
        first_frame: First frame of the range.
        last_frame: Last frame of the range; None for that of the video.
        stride: Every how many frames an object is tracked, counted from the start; prompted frames are always included.
    """

    start_frame: int | None = None
    direction: Direction = "both"
    first_frame: int = 0
    last_frame: int | None = None
    stride: int = 1

    def bounds(self, num_frames: int) -> tuple[int, int]:
        """Return the first and the last frame, with the direction from the start taken into account.

        Raises:
            ValueError: The range is empty, outside the video, or does not contain the start.
        """
        last = num_frames - 1 if self.last_frame is None else self.last_frame
        if not 0 <= self.first_frame <= last < num_frames:
            raise ValueError(
                f"the range {self.first_frame} to {last} is not in the video of frames 0 to {num_frames - 1}, or "
                "its first frame is after its last"
            )
        if not 1 <= self.stride <= num_frames:
            raise ValueError(f"the stride must be 1 to {num_frames}, got {self.stride}")
        if self.start_frame is None:
            return self.first_frame, last
        if not self.first_frame <= self.start_frame <= last:
            raise ValueError(f"frame {self.start_frame} is not in the range {self.first_frame} to {last}")
        first = self.start_frame if self.direction == "forward" else self.first_frame
        return first, self.start_frame if self.direction == "backward" else last

    def select(self, num_frames: int, prompted: Collection[int]) -> list[int]:
        """Return the frames on which objects are tracked, ascending.

        Args:
            num_frames: Length of the video.
            prompted: Prompted frames, which are included where they are in the range.

        Raises:
            ValueError: See `bounds`.
        """
        first, last = self.bounds(num_frames)
        start = min(prompted) if self.start_frame is None and prompted else self.start_frame or 0
        regular = range(first + (start - first) % self.stride, last + 1, self.stride)
        return sorted({*regular, *(index for index in prompted if first <= index <= last)})


@dataclass(frozen=True)
class RangeTracking:
    """Tracking that was prepared by `track_range`.

    Attributes:
        object_ids: Objects that are tracked.
        num_frames: Number of different frames that are tracked.
        frames: Tracks the next frame when it is asked for it, and yields it after its masks were stored.
    """

    object_ids: tuple[int, ...]
    num_frames: int
    frames: Iterator[TrackedVideoFrame]


def track_range(
    objects: VideoObjects, frames: FrameRange, *, object_ids: Collection[int] | None = None
) -> RangeTracking:
    """Prepare to track objects through a range of frames.

    Masks of earlier tracking stay until they are replaced, so the tracking may be abandoned at any frame. The prompts
    in the range are no longer pending after this call.

    Args:
        objects: The objects.
        frames: The range. Without a start frame, objects with pending prompts are tracked from all their prompts;
            with one, objects that are visible or have pending prompts on that frame.
        object_ids: Objects to track; None for all of these.

    Raises:
        ValueError: The range is not in the video, or none of the objects can be tracked in it.
    """
    num_frames = len(objects.tracker.frames)
    first, last = frames.bounds(num_frames)
    within = range(first, last + 1)
    by_default = objects.pending_prompts if frames.start_frame is None else objects.known_ids
    chosen = sorted(by_default if object_ids is None else objects.known_ids.intersection(object_ids))
    masks = {} if frames.start_frame is None else _start_masks(objects, chosen, frames.start_frame)
    prompts: list[ClipPrompt] = []
    for object_id in chosen:
        pending = objects.accept_pending(object_id, within=within)
        if frames.start_frame is None:
            prompts += [prompt for prompt in objects.tracked_prompts(object_id) if prompt.frame_index in within]
        else:
            start = [masks[object_id]] if object_id in masks else []
            prompts += [*objects.tracker.prompts_from_visual(object_id, start), *pending]
    if not prompts:
        raise ValueError(
            f"there is no object to track in frames {first} to {last}: click one there first"
            if frames.start_frame is None
            else f"no object is visible on frame {frames.start_frame}: click one there first"
        )
    selection = frames.select(num_frames, {prompt.frame_index for prompt in prompts})
    anchors = {prompt.object_id: prompt.frame_index for prompt in sorted(prompts, key=lambda each: -each.frame_index)}
    if len(selection) == num_frames:
        tracked = objects.tracker.track(prompts, direction=frames.direction)
    else:
        tracked = objects.tracker.track_selection(prompts, selection, direction=frames.direction)
    first = min(anchors.values()) if frames.direction == "forward" else 0
    last = max(anchors.values()) - 1 if frames.direction == "backward" else num_frames - 1
    count = sum(first <= index <= last for index in selection)
    return RangeTracking(tuple(sorted(anchors)), count, objects.store_masks(tracked))


def _start_masks(objects: VideoObjects, object_ids: Collection[int], frame_index: int) -> dict[int, MaskPrompt]:
    """Return the known masks on the start frame, except where new prompts give them."""
    masks = {}
    for object_id in object_ids:
        if any(prompt.frame_index == frame_index for prompt in objects.pending_prompts.get(object_id, ())):
            continue
        record = objects.bank.mask_record(object_id, frame_index) if object_id in objects.bank else None
        if record is not None and record.is_visible:
            masks[object_id] = MaskPrompt(record.mask(objects.bank.frame_size), frame_index)
    return masks
