"""A stream and the objects in it: prompts, tracking and object memory, without a language model.

Its size does not grow with the length of the stream: the memories of the tracker are bounded, a limited number
of frames is stored, and the object memory has masks of these frames only.
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
from unipixel.processing.clip_layout import record_prompt
from unipixel.processing.prompt_checks import check_prompt, check_prompt_group
from unipixel.processing.prompt_fitting import fit_prompt
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.video_tracker import object_masks
from unipixel.tracking.clip_features import encode_frame
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import StreamingTracker, TrackedFrame
from unipixel.tracking.types import FrameFeatures, FrameMasks, ObjectMask, SegmentPrompt
from unipixel.video.frame import UNTIMED_FPS, Frame, as_rgb
from unipixel.video.frame_buffer import FrameBuffer


class StreamObjects:
    """A stream, its object memory, and the tracker that fills it frame by frame.

    Attributes:
        buffer: The stored frames.
        tracker: Tracks the objects.
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
        language_segmenter: Segmenter | None = None,
    ) -> None:
        """Start before the first frame.

        Args:
            segmenter: SAM 2.1.
            num_frames: Number of frames that are stored, at their full size, with their masks.
            max_objects: Maximum number of objects.
            memory_dtype: Type of SAM 2.1's memories.
            is_postprocessed: Whether SAM 2's mask post-processing is applied.
            redetect_after: See `StreamingTracker`.
            spill_folder: Folder for masks of frames that are no longer stored; None discards them.
            language_segmenter: SAM 2.1 that decodes the mask tokens of a language model; None is `segmenter`. Another
                one encodes the frames in which it searches for an object, which is then tracked from its mask.

        Raises:
            ValueError: A count is below 1.
        """
        self.buffer = FrameBuffer(num_frames)
        self.tracker = StreamingTracker(
            segmenter,
            memory_dtype=memory_dtype,
            max_objects=max_objects,
            is_postprocessed=is_postprocessed,
            redetect_after=redetect_after,
        )
        self._max_objects, self._spill_folder = max_objects, spill_folder
        self._language_segmenter = language_segmenter
        self._language_features: tuple[int, FrameFeatures] | None = None
        self._bank: ObjectMemoryBank | None = None
        self._masks: dict[int, ObjectMask] = {}
        # Mask tokens of objects that were not visible yet; every new frame is searched for them.
        self._undetected: dict[int, Tensor] = {}

    @property
    def bank(self) -> ObjectMemoryBank:
        """The object memory.

        Raises:
            RuntimeError: There was no frame yet.
        """
        if self._bank is None:
            raise RuntimeError("there was no frame yet: call step(frame) first")
        return self._bank

    @property
    def latest_frame(self) -> Frame:
        """The latest frame.

        Raises:
            RuntimeError: There was no frame yet.
        """
        if self.buffer.latest is None:
            raise RuntimeError("there was no frame yet: call step(frame) first")
        return self.buffer.latest

    @property
    def masks(self) -> dict[int, ObjectMask]:
        """Every object on the latest frame, by id."""
        return dict(self._masks)

    @property
    def num_bytes(self) -> int:
        """Bytes of the stored frames and the tracker's memories, without the run-length encoded masks."""
        return sum(frame.image.nbytes for frame in self.buffer.frames) + self.tracker.state.num_bytes

    def step(self, frame: Frame | NDArray[Any], timestamp_seconds: float | None = None) -> dict[int, ObjectMask]:
        """Track every object on the next frame.

        Args:
            frame: A frame of a `Video`, or a uint8 array (H, W, 3), RGB, which is copied.
            timestamp_seconds: Time of an array; None assumes 24 frames per second.

        Returns:
            Mask, confidence and visibility by id.

        Raises:
            TypeError: An array does not contain uint8 values.
            ValueError: The frame has another size than earlier ones, or its index is not above theirs.
        """
        new = frame if isinstance(frame, Frame) else self._to_frame(frame, timestamp_seconds)
        size = (new.image.shape[0], new.image.shape[1])
        if self._bank is not None and size != self._bank.frame_size:
            raise ValueError(f"frame {new.index} has (H, W) = {size}, earlier frames have {self._bank.frame_size}")
        self.buffer.add(new)
        if self._bank is None:
            self._bank = ObjectMemoryBank(size, spill_folder=self._spill_folder)
        tracked = self.tracker.step(new.image)
        self._masks = {}
        self._store(tracked, tracked.object_ids)
        for object_id, tokens in list(self._undetected.items()):
            self._detect(object_id, tokens)
        self._bank.keep_only(self.buffer.indices)
        return self.masks

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> dict[int, ObjectMask]:
        """Prompt a new object on the latest frame, or correct a known one.

        Args:
            object_id: New or known id, from 0.
            prompts: Points and a box, or a mask, in pixels of the latest frame.

        Returns:
            Every object on the latest frame, by id.

        Raises:
            RuntimeError: There was no frame yet.
            ValueError: A prompt is not on the latest frame, or there are too many objects.
        """
        frame_index = self.latest_frame.index
        check_object_ids([object_id])
        if not prompts:
            raise ValueError(f"object {object_id}: give at least one point, box or mask")
        size = self.bank.frame_size
        prompts = tuple(fit_prompt(prompt, frame_size=size) for prompt in prompts)
        for prompt in prompts:
            if prompt.frame_index != frame_index:
                raise ValueError(
                    f"a prompt of object {object_id} is on frame {prompt.frame_index}: "
                    f"a stream accepts prompts on its latest frame, {frame_index}, only"
                )
            check_prompt(prompt, frame_size=size, num_video_frames=frame_index + 1)
        check_prompt_group(prompts, is_known=object_id in self.tracker.object_ids)
        self.check_capacity([object_id])
        tracked = self._prompt_tracker(object_id, prompts)
        self._undetected.pop(object_id, None)
        records = [record_prompt(prompt) for prompt in prompts]
        if object_id in self.bank:
            for record in records:
                self.bank.correct(object_id, record)
        else:
            self.bank.add(object_id, source=records[0].kind, prompts=records, anchor_frame=frame_index)
        self._store(tracked, [object_id])
        return self.masks

    def add_tokens(self, tokens: Mapping[int, Tensor], *, expression: str) -> None:
        """Add new objects from mask tokens of a language model.

        Each is tracked from the latest frame on if it is visible there, else from the first later frame on
        which it is.

        Args:
            tokens: Mask tokens (n, C) by id.
            expression: Text that describes the objects.

        Raises:
            RuntimeError: There was no frame yet.
            ValueError: There are too many objects, or an id is in use.
        """
        self.check_capacity(list(tokens))
        for object_id, rows in tokens.items():
            self.bank.add(object_id, source="language", expression=expression, anchor_frame=self.latest_frame.index)
            self._detect(object_id, rows)

    def forget(self, object_id: int) -> None:
        """Stop tracking an object and remove it from the memory.

        Raises:
            KeyError: There is no such object.
        """
        self.bank.forget(object_id)
        self._masks.pop(object_id, None)
        if self._undetected.pop(object_id, None) is None:
            self.tracker.remove(object_id)

    def check_capacity(self, object_ids: Sequence[int]) -> None:
        """Check that objects can be added.

        Raises:
            ValueError: There would be more than `max_objects`.
        """
        total = len({*self.bank.ids, *object_ids})
        if total > self._max_objects:
            raise ValueError(f"{total} objects are more than the maximum of {self._max_objects}: forget some first")

    def _prompt_tracker(self, object_id: int, prompts: Sequence[VisualPrompt]) -> TrackedFrame:
        """Pass the prompts of one object on one frame to the tracker."""
        points = [(prompt.x, prompt.y) for prompt in prompts if isinstance(prompt, PointPrompt)]
        labels = [int(prompt.is_positive) for prompt in prompts if isinstance(prompt, PointPrompt)]
        for prompt in prompts:
            if isinstance(prompt, MaskPrompt):
                return self.tracker.add_mask(object_id, prompt.mask)
            if isinstance(prompt, BoxPrompt):
                return self.tracker.add_box(object_id, prompt.xyxy, points=points or None, labels=labels or None)
        return self.tracker.add_points(object_id, points, labels, is_extending=True)

    def _detect(self, object_id: int, tokens: Tensor) -> None:
        """Track an object from the latest frame on if it is visible there, else search the next frame."""
        if self._language_segmenter is None:
            tracked = self.tracker.add_tokens(object_id, tokens)
            self._store(tracked, [object_id])
            if not self._masks[object_id].visible:
                self.tracker.remove(object_id)
        else:
            found = self._decode(self._language_segmenter, object_id, tokens)
            if found.visible:
                self._store(self.tracker.add_mask(object_id, found.mask), [object_id])
            else:
                self._store_mask(object_id, found)
        if self._masks[object_id].visible:
            self._undetected.pop(object_id, None)
        else:
            self._undetected[object_id] = tokens

    @torch.no_grad()
    def _decode(self, segmenter: Segmenter, object_id: int, tokens: Tensor) -> ObjectMask:
        """Segment an object on the latest frame with the segmenter of the language model."""
        frame = self.latest_frame
        if self._language_features is None or self._language_features[0] != frame.index:
            self._language_features = (frame.index, encode_frame(segmenter, frame.image)[0])
        features = self._language_features[1]
        embedding = segmenter.embed_without_memory(features, num_objects=1)
        decoded = segmenter.decode(features, embedding, SegmentPrompt(tokens=tokens[None]))
        masks = FrameMasks(frame.index, decoded.mask_logits, decoded.object_score, decoded.iou)
        return object_masks(TrackedFrame(frame.index, (object_id,), masks, self.bank.frame_size))[object_id]

    def _store(self, tracked: TrackedFrame, object_ids: Sequence[int]) -> None:
        """Store the masks of some objects on the latest frame."""
        masks = object_masks(tracked)
        for object_id in object_ids:
            self._store_mask(object_id, masks[object_id])

    def _store_mask(self, object_id: int, item: ObjectMask) -> None:
        self._masks[object_id] = item
        mask = item.mask if item.visible else None
        self.bank.update(object_id, self.latest_frame.index, mask, score=item.score)

    def _to_frame(self, image: NDArray[Any], timestamp_seconds: float | None) -> Frame:
        latest = self.buffer.latest
        index = 0 if latest is None else latest.index + 1
        seconds = index / UNTIMED_FPS if timestamp_seconds is None else timestamp_seconds
        # A copy, because cameras often write the next frame into the same array.
        return Frame(index, seconds, as_rgb(np.array(image), name="a frame"))
