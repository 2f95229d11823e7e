"""A stream and the objects in it: prompted, followed, remembered. Knows no language model.

Nothing in it grows with the length of the stream: the tracker's memories are bounded, a window of
frames is kept, and the object memory holds masks on those frames alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import check_object_ids
from unipixel.processing.clip_layout import check_prompt, record_prompt
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.video_tracker import check_group, object_masks
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import StreamingTracker, TrackedFrame
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import UNTIMED_FPS, Frame, as_rgb
from unipixel.video.frame_buffer import FrameBuffer


class StreamObjects:
    """A stream, its object memory bank, and the tracker that fills it, fed frame by frame.

    Attributes:
        window: The frames that are kept.
        tracker: Follows the objects.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        num_frames: int = 16,
        max_objects: int = 64,
        memory_dtype: torch.dtype = torch.bfloat16,
        is_postprocessed: bool = False,
        redetect_after: int | None = None,
        spill_folder: Path | None = None,
    ) -> None:
        """Start before the first frame.

        Args:
            segmenter: SAM 2.1.
            num_frames: Frames that are kept, at their full size, with the masks on them.
            max_objects: Ceiling on the objects.
            memory_dtype: Type of SAM's memories.
            is_postprocessed: Whether SAM 2's own post-processing is on.
            redetect_after: See `StreamingTracker`.
            spill_folder: Where masks of frames go that are not kept; None forgets them.

        Raises:
            ValueError: A count is below 1.
        """
        self.window = FrameBuffer(num_frames)
        self.tracker = StreamingTracker(
            segmenter,
            memory_dtype=memory_dtype,
            max_objects=max_objects,
            is_postprocessed=is_postprocessed,
            redetect_after=redetect_after,
        )
        self._max_objects, self._spill_folder = max_objects, spill_folder
        self._bank: ObjectMemoryBank | None = None
        self._masks: dict[int, ObjectMask] = {}
        # Objects that language named and the newest frame does not show: looked for on each frame.
        self._sought: dict[int, Tensor] = {}

    @property
    def bank(self) -> ObjectMemoryBank:
        """What is remembered of each object.

        Raises:
            RuntimeError: No frame was seen yet.
        """
        if self._bank is None:
            raise RuntimeError("no frame was seen yet: call step(frame) first")
        return self._bank

    @property
    def newest(self) -> Frame:
        """The newest frame.

        Raises:
            RuntimeError: No frame was seen yet.
        """
        if self.window.newest is None:
            raise RuntimeError("no frame was seen yet: call step(frame) first")
        return self.window.newest

    @property
    def masks(self) -> dict[int, ObjectMask]:
        """Every object on the newest frame, by id."""
        return dict(self._masks)

    @property
    def num_bytes(self) -> int:
        """Bytes of the frames kept and of what the tracker remembers; run lengths of masks are not counted."""
        return sum(frame.image.nbytes for frame in self.window.frames) + self.tracker.state.num_bytes

    def step(self, frame: Frame | NDArray[Any], timestamp_seconds: float | None = None) -> dict[int, ObjectMask]:
        """Follow every object into the next frame.

        Args:
            frame: A frame of a `Video`, or a uint8 array (H, W, 3), RGB, which is copied.
            timestamp_seconds: When an array is shown; None counts frames at 24 per second.

        Returns:
            Mask, confidence and presence by id.

        Raises:
            TypeError: An array does not hold uint8 values.
            ValueError: The frame has another size than those before, or does not come after them.
        """
        taken = frame if isinstance(frame, Frame) else self._taken(frame, timestamp_seconds)
        size = (taken.image.shape[0], taken.image.shape[1])
        if self._bank is not None and size != self._bank.frame_size:
            raise ValueError(f"frame {taken.index} has (H, W) = {size}, those before have {self._bank.frame_size}")
        self.window.add(taken)
        if self._bank is None:
            self._bank = ObjectMemoryBank(size, spill_folder=self._spill_folder)
        tracked = self.tracker.step(taken.image)
        self._masks = {}
        self._show(tracked, tracked.object_ids)
        for object_id, tokens in list(self._sought.items()):
            self._seek(object_id, tokens)
        self._bank.keep_only(self.window.indices)
        return self.masks

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> dict[int, ObjectMask]:
        """Point at an object on the newest frame, or correct one that is followed.

        Args:
            object_id: New or known id, from 0.
            prompts: Points and a box, or a mask, in pixels of the newest frame.

        Returns:
            Every object on the newest frame, by id.

        Raises:
            RuntimeError: No frame was seen yet.
            ValueError: A prompt is not on the newest frame, or there are too many objects.
        """
        frame_index = self.newest.index
        check_object_ids([object_id])
        if not prompts:
            raise ValueError(f"object {object_id}: give at least one point, box or mask")
        for prompt in prompts:
            if prompt.frame_index != frame_index:
                raise ValueError(
                    f"a prompt of object {object_id} is on frame {prompt.frame_index}: "
                    f"a stream takes prompts on its newest frame, {frame_index}, only"
                )
            check_prompt(prompt, frame_size=self.bank.frame_size, num_video_frames=frame_index + 1)
        check_group(prompts, is_known=object_id in self.tracker.object_ids)
        self.check_capacity([object_id])
        tracked = self._track(object_id, prompts)
        self._sought.pop(object_id, None)
        records = [record_prompt(prompt) for prompt in prompts]
        if object_id in self.bank:
            for record in records:
                self.bank.correct(object_id, record)
        else:
            self.bank.add(object_id, source=records[0].kind, prompts=records, anchor_frame=frame_index)
        self._show(tracked, [object_id])
        return self.masks

    def add_named(self, tokens: Mapping[int, Tensor], *, expression: str) -> None:
        """Add new objects that words named, from a language model's tokens.

        Each is followed from the newest frame on if it is there, else from the first later frame that
        shows it.

        Args:
            tokens: (n, C) by id.
            expression: The words.

        Raises:
            RuntimeError: No frame was seen yet.
            ValueError: There are too many objects, or an id is in use.
        """
        self.check_capacity(list(tokens))
        for object_id, own in tokens.items():
            self.bank.add(object_id, source="language", expression=expression, anchor_frame=self.newest.index)
            self._seek(object_id, own)

    def forget(self, object_id: int) -> None:
        """Stop following an object, and forget it.

        Raises:
            KeyError: There is no such object.
        """
        self.bank.forget(object_id)
        self._masks.pop(object_id, None)
        if self._sought.pop(object_id, None) is None:
            self.tracker.remove(object_id)

    def check_capacity(self, object_ids: Sequence[int]) -> None:
        """Check that further objects fit.

        Raises:
            ValueError: They would be more than `max_objects`.
        """
        total = len({*self.bank.ids, *object_ids})
        if total > self._max_objects:
            raise ValueError(
                f"objects {sorted(object_ids)} would make {total}: at most {self._max_objects} are "
                "followed, forget some"
            )

    def _track(self, object_id: int, prompts: Sequence[VisualPrompt]) -> TrackedFrame:
        """Hand prompts that go together to the tracker."""
        points = [(prompt.x, prompt.y) for prompt in prompts if isinstance(prompt, PointPrompt)]
        labels = [int(prompt.is_positive) for prompt in prompts if isinstance(prompt, PointPrompt)]
        for prompt in prompts:
            if isinstance(prompt, MaskPrompt):
                return self.tracker.add_mask(object_id, prompt.mask)
            if isinstance(prompt, BoxPrompt):
                return self.tracker.add_box(object_id, prompt.xyxy, points=points or None, labels=labels or None)
        return self.tracker.add_points(object_id, points, labels, is_extending=True)

    def _seek(self, object_id: int, tokens: Tensor) -> None:
        """Follow an object from the newest frame on if its tokens show it there, else seek it on the next."""
        tracked = self.tracker.add_tokens(object_id, tokens)
        self._show(tracked, [object_id])
        if self._masks[object_id].visible:
            self._sought.pop(object_id, None)
        else:
            self._sought[object_id] = tokens
            self.tracker.remove(object_id)

    def _show(self, tracked: TrackedFrame, object_ids: Sequence[int]) -> None:
        """Note how some objects look on the newest frame."""
        frame_index, found = self.newest.index, object_masks(tracked)
        for object_id in object_ids:
            item = self._masks[object_id] = found[object_id]
            self.bank.update(object_id, frame_index, item.mask if item.visible else None, score=item.score)

    def _taken(self, image: NDArray[Any], timestamp_seconds: float | None) -> Frame:
        newest = self.window.newest
        index = 0 if newest is None else newest.index + 1
        seconds = index / UNTIMED_FPS if timestamp_seconds is None else timestamp_seconds
        # A camera's next picture often goes where this one lies.
        return Frame(index, seconds, as_rgb(np.array(image), name="a frame"))
