"""A video and the objects in it: prompts, tracking and object memory, without a language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import check_object_ids
from unipixel.memory.records import Source
from unipixel.memory.storage import StoredObject
from unipixel.processing.clip_layout import record_prompt
from unipixel.processing.prompt_checks import check_prompt
from unipixel.processing.prompt_fitting import fit_prompt
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.callbacks import Callbacks, Cancelled
from unipixel.session.video_tracker import MAX_FEATURE_BYTES, TrackedVideoFrame, VideoTracker
from unipixel.tracking.propagation import ClipPrompt
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import ObjectMask
from unipixel.video.open import Video, open_video

_SOURCES: dict[type, Source] = {PointPrompt: "point", BoxPrompt: "box", MaskPrompt: "mask"}


@dataclass(frozen=True)
class ObjectSnapshot:
    """State of one object.

    Attributes:
        object_id: Its id.
        state: Its object memory; None if it has none.
        pending_prompts: Its prompts that were not tracked yet.
        tracked_prompts: Its prompts that were tracked.
    """

    object_id: int
    state: StoredObject | None
    pending_prompts: tuple[VisualPrompt, ...]
    tracked_prompts: tuple[ClipPrompt, ...]


class VideoObjects:
    """One finite video, its object memory, and the tracker that fills it.

    Prompts are pending until `track` is called. A correction of a known object tracks it through the whole
    video again, from all its prompts.

    Attributes:
        video: The video.
        bank: The object memory.
        tracker: Tracks objects through the video.
        pending_prompts: Prompts that were not tracked yet, by object id.
        timestamps_seconds: Presentation time of every frame that was tracked.
    """

    def __init__(
        self,
        segmenter: Segmenter | None,
        video: Video | Any,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        max_objects: int = 64,
        is_postprocessed: bool = False,
        max_feature_bytes: int = MAX_FEATURE_BYTES,
        language_segmenter: Segmenter | None = None,
        make_tracker: Callable[[Video], VideoTracker] | None = None,
    ) -> None:
        """Open a video without computing anything.

        Args:
            segmenter: SAM 2.1; None with `make_tracker`.
            video: A finite video, or any source that `open_video` accepts.
            memory_dtype: Type of SAM 2.1's memories.
            max_objects: Maximum number of objects.
            is_postprocessed: Whether SAM 2's mask post-processing is applied.
            max_feature_bytes: Bytes of encoded frames that are cached.
            language_segmenter: Decodes the mask tokens of a language model; see `VideoTracker`.
            make_tracker: Builds the tracker of an image that has no segmenter; the settings above are not used then.

        Raises:
            OSError: The video cannot be read.
            ValueError: The source is a stream, or a setting is out of range.
        """
        if max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {max_objects}")
        self.video = video if isinstance(video, Video) else open_video(video)
        self.bank = ObjectMemoryBank((self.video.info.height, self.video.info.width))
        if segmenter is not None:
            self.tracker = VideoTracker(
                segmenter,
                self.video,
                memory_dtype=memory_dtype,
                is_postprocessed=is_postprocessed,
                max_feature_bytes=max_feature_bytes,
                language_segmenter=language_segmenter,
            )
        elif make_tracker is not None:
            self.tracker = make_tracker(self.video)
        else:
            raise ValueError("prompts are tracked by a segmenter: give one (load_segmenter)")
        self.max_objects = max_objects
        self.pending_prompts: dict[int, list[VisualPrompt]] = {}
        self.timestamps_seconds: dict[int, float] = {}
        self._tracked_prompts: dict[int, list[ClipPrompt]] = {}

    @property
    def known_ids(self) -> set[int]:
        """Ids of objects in the memory or with pending prompts."""
        return {*self.bank.ids, *self.pending_prompts}

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> None:
        """Prompt a new object, or correct a known one.

        Args:
            object_id: New or known id, from 0.
            prompts: Points, a box or a mask, in pixels of the original frames.

        Raises:
            TypeError: A prompt is something else.
            ValueError: A prompt is outside the video, or there are too many objects.
        """
        size = self.bank.frame_size
        check_object_ids([object_id])
        if not prompts:
            raise ValueError(f"object {object_id}: give at least one point, box or mask")
        prompts = tuple(fit_prompt(prompt, frame_size=size) for prompt in prompts)
        for prompt in prompts:
            check_prompt(prompt, frame_size=size, num_video_frames=self.video.info.num_frames or 0)
        self.check_capacity([object_id])
        merged = [*self.pending_prompts.get(object_id, []), *prompts]
        self.tracker.prompts_from_visual(object_id, merged, known_masks=self._known_masks(object_id, merged))
        self.pending_prompts[object_id] = merged

    def track(
        self,
        callbacks: Callbacks | None = None,
        *,
        tokens: Mapping[int, Tensor] | None = None,
        anchors: Mapping[int, int] | None = None,
    ) -> None:
        """Track every object with pending prompts, in one pass through the video.

        Args:
            callbacks: Notified of each frame; may cancel the work.
            tokens: Mask tokens (n, C) by id, from a language model, that replace the first prompt of an object.
            anchors: Anchor frame of each of these objects.

        Raises:
            Cancelled: The work was cancelled; the prompts are pending as before.
        """
        with self._transaction(callbacks) as consume:
            consume(self.track_frames(tokens=tokens, anchors=anchors))

    def track_frames(
        self, *, tokens: Mapping[int, Tensor] | None = None, anchors: Mapping[int, int] | None = None
    ) -> Iterator[TrackedVideoFrame]:
        """Do the same as `track`, and yield each tracked frame."""
        from_tokens = self.tracker.prompts_from_tokens(tokens, anchors or {}) if tokens else {}
        pending, self.pending_prompts = self.pending_prompts, {}
        clip_prompts: list[ClipPrompt] = []
        for object_id, prompts in pending.items():
            tracked = self._tracked_prompts.setdefault(object_id, [])
            if object_id in from_tokens:
                first = from_tokens[object_id]
                # Other clicks on the anchor frame correct the mask that the tokens give in this pass.
                rest = self.tracker.prompts_from_visual(object_id, prompts[1:], known_masks={first.frame_index: None})
                tracked += [first, *rest]
            else:
                known = self._known_masks(object_id, prompts)
                tracked += self.tracker.prompts_from_visual(object_id, prompts, known_masks=known)
            clip_prompts += tracked
            if object_id in self.bank:
                for prompt in prompts:
                    self.bank.correct(object_id, record_prompt(prompt), is_whole=True)
            else:
                self._add(object_id, prompts, anchor_frame=tracked[0].frame_index)
        yield from self._track(clip_prompts)

    def segment_pending(self, object_id: int, frame_index: int, *, further: Sequence[VisualPrompt] = ()) -> ObjectMask:
        """Segment an object on a frame with pending prompts, without tracking it and without storing the mask.

        Args:
            object_id: A known or new object.
            frame_index: The frame.
            further: Prompts on this frame that follow the pending ones and are not stored.

        Raises:
            ValueError: There are no prompts on the frame, or a further one is outside the video.
        """
        pending = [prompt for prompt in self.pending_prompts.get(object_id, ()) if prompt.frame_index == frame_index]
        pending += [fit_prompt(prompt, frame_size=self.bank.frame_size) for prompt in further]
        if not pending:
            raise ValueError(f"object {object_id} has no pending prompts on frame {frame_index}: prompt it there first")
        earlier = [prompt for prompt in self.tracked_prompts(object_id) if prompt.frame_index == frame_index]
        known = self._known_masks(object_id, pending)
        return self.tracker.segment_prompts(
            [*earlier, *self.tracker.prompts_from_visual(object_id, pending, known_masks=known)]
        )

    def tracked_prompts(self, object_id: int) -> tuple[ClipPrompt, ...]:
        """Return the prompts of an object that are no longer pending."""
        return tuple(self._tracked_prompts.get(object_id, ()))

    def accept_pending(self, object_id: int, *, within: range) -> list[ClipPrompt]:
        """Move pending prompts of an object to the object memory, whose masks stay until tracking replaces them.

        Args:
            object_id: The object.
            within: Frames of the prompts; others stay pending.

        Returns:
            These prompts as prompts of the tracker.
        """
        pending = self.pending_prompts.get(object_id, [])
        accepted = [prompt for prompt in pending if prompt.frame_index in within]
        if not accepted:
            return []
        known = self._known_masks(object_id, accepted)
        prompts = self.tracker.prompts_from_visual(object_id, accepted, known_masks=known)
        self._tracked_prompts.setdefault(object_id, []).extend(prompts)
        if object_id in self.bank:
            for prompt in accepted:
                self.bank.correct(object_id, record_prompt(prompt), keeps_masks=True)
        else:
            self._add(object_id, accepted, anchor_frame=prompts[0].frame_index)
        rest = [prompt for prompt in pending if prompt.frame_index not in within]
        if rest:
            self.pending_prompts[object_id] = rest
        else:
            del self.pending_prompts[object_id]
        return prompts

    def store_masks(self, tracked_frames: Iterable[TrackedVideoFrame]) -> Iterator[TrackedVideoFrame]:
        """Store the masks of tracked frames in the object memory, and yield each frame."""
        for tracked in tracked_frames:
            for object_id, item in tracked.objects.items():
                mask = item.mask if item.visible else None
                self.bank.update(object_id, tracked.frame.index, mask, score=item.score)
            yield tracked

    def add_tokens(
        self,
        tokens: Mapping[int, Tensor],
        anchors: Mapping[int, int],
        *,
        expression: str,
        callbacks: Callbacks | None = None,
    ) -> None:
        """Add new objects from mask tokens of a language model, and track them.

        Args:
            tokens: Mask tokens (n, C) by id.
            anchors: Anchor frame of each object.
            expression: Text that describes the objects.
            callbacks: Notified of each frame; may cancel the work.

        Raises:
            ValueError: There are too many objects, or an id is in use.
            Cancelled: The work was cancelled; the objects were not added.
        """
        self.check_capacity(list(tokens))
        clip_prompts = self.tracker.prompts_from_tokens(tokens, anchors)
        self._add_described(list(clip_prompts.values()), expression=expression, callbacks=callbacks)

    def add_masks(
        self,
        masks: Mapping[int, NDArray[np.bool_]],
        *,
        frame_index: int,
        expression: str,
        callbacks: Callbacks | None = None,
    ) -> None:
        """Add new objects from masks of a language model on one frame, and track them.

        Args:
            masks: (H, W) by id, none of which is empty.
            frame_index: The frame.
            expression: Text that describes the objects.
            callbacks: Notified of each frame; may cancel the work.

        Raises:
            ValueError: There are too many objects, an id is in use, or a mask is empty.
            Cancelled: The work was cancelled; the objects were not added.
        """
        self.check_capacity(list(masks))
        prompts = [
            prompt
            for object_id, mask in masks.items()
            for prompt in self.tracker.prompts_from_visual(object_id, [MaskPrompt(mask, frame_index)])
        ]
        self._add_described(prompts, expression=expression, callbacks=callbacks)

    def forget(self, object_id: int) -> None:
        """Remove an object.

        Raises:
            KeyError: It is neither in the memory nor has pending prompts.
        """
        if self.pending_prompts.pop(object_id, None) is None or object_id in self.bank:
            self.bank.forget(object_id)
        self._tracked_prompts.pop(object_id, None)

    def snapshot_object(self, object_id: int) -> ObjectSnapshot:
        """Return the state of an object, known or not, for `restore_object`."""
        states = {stored.record.object_id: stored for stored in self.bank.state().objects}
        return ObjectSnapshot(
            object_id,
            states.get(object_id),
            tuple(self.pending_prompts.get(object_id, ())),
            tuple(self._tracked_prompts.get(object_id, ())),
        )

    def restore_object(self, snapshot: ObjectSnapshot) -> None:
        """Go back to an earlier state of one object; the other objects are not changed.

        Args:
            snapshot: From `snapshot_object`.
        """
        state, object_id = self.bank.state(), snapshot.object_id
        version = state.version + 1
        stored = {entry.record.object_id: entry for entry in state.objects}
        forgotten = {**state.forgotten}
        if snapshot.state is not None:
            # This is a change like any other: the next turn injects it.
            record = replace(snapshot.state.record, changed_version=version)
            stored[object_id] = replace(snapshot.state, record=record)
            forgotten.pop(object_id, None)
        elif stored.pop(object_id, None) is not None:
            forgotten[object_id] = version
        self.bank = ObjectMemoryBank.restore(
            replace(state, version=version, objects=tuple(stored.values()), forgotten=forgotten)
        )
        self.pending_prompts.pop(object_id, None)
        self._tracked_prompts.pop(object_id, None)
        if snapshot.pending_prompts:
            self.pending_prompts[object_id] = list(snapshot.pending_prompts)
        if snapshot.tracked_prompts:
            self._tracked_prompts[object_id] = list(snapshot.tracked_prompts)

    def restore_bank(self, bank: ObjectMemoryBank) -> None:
        """Continue from a saved object memory; corrections start from its masks.

        Raises:
            ValueError: It belongs to another video, or contains too many objects.
        """
        num_frames = self.video.info.num_frames or 0
        last = max((index for key in bank.ids for index, _ in bank.mask_records(key)), default=0)
        if bank.frame_size != self.bank.frame_size or last >= num_frames:
            raise ValueError(
                f"the memory belongs to a video of at least {last + 1} frames with (H, W) = {bank.frame_size}, "
                f"this video has {num_frames} with {self.bank.frame_size}"
            )
        self.bank, self.pending_prompts, self._tracked_prompts = bank, {}, {}
        self.check_capacity([])
        for object_id in bank.ids:
            record = bank[object_id]
            prompted = {record.anchor_frame, *(prompt.frame_index for prompt in record.prompts)}
            records = {index: bank.mask_record(object_id, index) for index in sorted(prompted)}
            masks = [
                MaskPrompt(mask_record.mask(bank.frame_size), index)
                for index, mask_record in records.items()
                if mask_record is not None and mask_record.is_visible
            ]
            self._tracked_prompts[object_id] = self.tracker.prompts_from_visual(object_id, masks)

    def check_capacity(self, object_ids: Sequence[int]) -> None:
        """Check that objects can be added.

        Raises:
            ValueError: There would be more than `max_objects`.
        """
        total = len(self.known_ids.union(object_ids))
        if total > self.max_objects:
            raise ValueError(f"{total} objects are more than the maximum of {self.max_objects}: forget some first")

    @contextmanager
    def _transaction(self, callbacks: Callbacks | None) -> Iterator[Callable[[Iterator[TrackedVideoFrame]], None]]:
        """Restore the objects if the block is cancelled; the value consumes frames and calls the callbacks."""
        callbacks = callbacks or Callbacks()
        state = self.bank.state() if callbacks.should_stop is not None else None
        pending = {key: list(prompts) for key, prompts in self.pending_prompts.items()}
        tracked = {key: list(prompts) for key, prompts in self._tracked_prompts.items()}

        def consume(frames: Iterator[TrackedVideoFrame]) -> None:
            callbacks.check()
            for frame in frames:
                callbacks.notify_frame(frame)
                callbacks.check()

        try:
            yield consume
        except Cancelled:
            if state is not None:
                self.bank = ObjectMemoryBank.restore(state)
                self.pending_prompts, self._tracked_prompts = pending, tracked
            raise

    def _add_described(self, prompts: list[ClipPrompt], *, expression: str, callbacks: Callbacks | None) -> None:
        """Add one new object per prompt, all described by one text, and track them."""
        with self._transaction(callbacks) as consume:
            for prompt in prompts:
                self._tracked_prompts[prompt.object_id] = [prompt]
                self.bank.add(
                    prompt.object_id, source="language", expression=expression, anchor_frame=prompt.frame_index
                )
            consume(self._track(prompts))

    def _track(self, prompts: Sequence[ClipPrompt]) -> Iterator[TrackedVideoFrame]:
        if prompts:
            yield from self.store_masks(self.tracker.track(prompts))

    def _add(self, object_id: int, prompts: Sequence[VisualPrompt], *, anchor_frame: int) -> None:
        self.bank.add(
            object_id,
            source=_SOURCES[type(prompts[0])],
            prompts=[record_prompt(prompt) for prompt in prompts],
            anchor_frame=anchor_frame,
        )

    def _known_masks(self, object_id: int, prompts: Sequence[VisualPrompt]) -> dict[int, Any]:
        """Return the masks in the memory on the frames of some prompts."""
        if object_id not in self.bank:
            return {}
        records = {prompt.frame_index: self.bank.mask_record(object_id, prompt.frame_index) for prompt in prompts}
        return {index: record.mask(self.bank.frame_size) for index, record in records.items() if record is not None}
