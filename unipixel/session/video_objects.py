"""A video and the objects in it: prompted, followed, remembered. Knows no language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import Source
from unipixel.memory.storage import StoredObject
from unipixel.processing.clip_layout import check_prompt, record_prompt
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.callbacks import Cancelled, Progress
from unipixel.session.video_tracker import MAX_FEATURE_BYTES, TrackedVideoFrame, VideoTracker
from unipixel.tracking.propagation import ClipPrompt
from unipixel.tracking.segmenter import Segmenter
from unipixel.video.open import Video, open_video

_SOURCES: dict[type, Source] = {PointPrompt: "point", BoxPrompt: "box", MaskPrompt: "mask"}


@dataclass(frozen=True)
class ObjectSnapshot:
    """One object as it was at some moment.

    Attributes:
        object_id: Its id.
        state: What was remembered of it; None where it was not in the memory.
        waiting: Its prompts that were not followed yet.
        tracks: Its prompts that were.
    """

    object_id: int
    state: StoredObject | None
    waiting: tuple[VisualPrompt, ...]
    tracks: tuple[ClipPrompt, ...]


class VideoObjects:
    """One finite video, its object memory bank, and the tracker that fills it.

    Prompts wait until they are needed; `track` follows what waits. A correction of an object that is
    remembered makes it be followed again through the whole video, from all its prompts.

    Attributes:
        video: The video.
        bank: What is remembered of each object.
        follower: Follows objects through the video.
        waiting: Prompts that were not followed yet, by object.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        video: Video | Any,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        max_objects: int = 64,
        is_postprocessed: bool = False,
        max_feature_bytes: int = MAX_FEATURE_BYTES,
    ) -> None:
        """Open a video; nothing is computed yet.

        Args:
            segmenter: SAM 2.1.
            video: A finite video, or what `open_video` takes.
            memory_dtype: Type of SAM's memories.
            max_objects: Ceiling on the objects.
            is_postprocessed: Whether SAM 2's own post-processing is on.
            max_feature_bytes: Memory for encoded frames.

        Raises:
            OSError: The video cannot be read.
            ValueError: It is a stream, or a setting is out of range.
        """
        if max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {max_objects}")
        self.video = video if isinstance(video, Video) else open_video(video)
        self.bank = ObjectMemoryBank((self.video.info.height, self.video.info.width))
        self.follower = VideoTracker(
            segmenter,
            self.video,
            memory_dtype=memory_dtype,
            is_postprocessed=is_postprocessed,
            max_feature_bytes=max_feature_bytes,
        )
        self.max_objects = max_objects
        self.waiting: dict[int, list[VisualPrompt]] = {}
        self._tracks: dict[int, list[ClipPrompt]] = {}

    @property
    def known_ids(self) -> set[int]:
        """Ids of objects that are remembered or wait to be followed."""
        return {*self.bank.ids, *self.waiting}

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> None:
        """Point at an object, or correct one that is remembered.

        Args:
            object_id: New or known id, from 0.
            prompts: Points, a box or a mask, in pixels of the original frames.

        Raises:
            ValueError: A prompt is not on the video, or there are too many objects.
        """
        size = self.bank.frame_size
        for prompt in prompts:
            check_prompt(prompt, frame_size=size, num_video_frames=self.video.info.num_frames or 0)
        self.check_capacity([object_id])
        merged = [*self.waiting.get(object_id, []), *prompts]
        self.follower.visual_prompts(object_id, merged, known=self._known_masks(object_id, merged))
        self.waiting[object_id] = merged

    def track(
        self,
        progress: Progress | None = None,
        *,
        tokens: Mapping[int, Tensor] | None = None,
        anchors: Mapping[int, int] | None = None,
    ) -> None:
        """Follow every object that waits, in one pass through the video.

        Args:
            progress: Who is told of each frame, and may stop the work.
            tokens: (n, C) by id: what a language model made of some objects' first prompts, in place of those.
            anchors: Frame on which each of these is segmented first.

        Raises:
            Cancelled: The work was stopped; the objects wait as before.
        """
        with self._whole(progress) as told:
            told(self.track_frames(tokens=tokens, anchors=anchors))

    def track_frames(
        self, *, tokens: Mapping[int, Tensor] | None = None, anchors: Mapping[int, int] | None = None
    ) -> Iterator[TrackedVideoFrame]:
        """Do what `track` does, and yield each frame as it is done."""
        read = self.follower.language_prompts(tokens or {}, anchors or {})
        waiting, self.waiting = self.waiting, {}
        follow: list[ClipPrompt] = []
        for object_id, prompts in waiting.items():
            track = self._tracks.setdefault(object_id, [])
            if object_id in read:
                first = read[object_id]
                # The pass that follows makes a mask on the anchor, which further clicks there correct.
                rest = self.follower.visual_prompts(object_id, prompts[1:], known={first.frame_index: None})
                track += [first, *rest]
            else:
                known = self._known_masks(object_id, prompts)
                track += self.follower.visual_prompts(object_id, prompts, known=known)
            follow += track
            if object_id in self.bank:
                for prompt in prompts:
                    self.bank.correct(object_id, record_prompt(prompt), is_whole=True)
            else:
                self._add(object_id, prompts, anchor_frame=track[0].frame_index)
        yield from self._follow(follow)

    def follow_named(
        self,
        tokens: Mapping[int, Tensor],
        anchors: Mapping[int, int],
        *,
        expression: str,
        progress: Progress | None = None,
    ) -> None:
        """Follow new objects that words named.

        Args:
            tokens: (n, C) by id.
            anchors: Frame on which each is segmented first.
            expression: The words.
            progress: Who is told of each frame, and may stop the work.

        Raises:
            ValueError: There are too many objects, or an id is in use.
            Cancelled: The work was stopped; the objects are not known.
        """
        self.check_capacity(list(tokens))
        with self._whole(progress) as told:
            follow = self.follower.language_prompts(tokens, anchors)
            for object_id, prompt in follow.items():
                self._tracks[object_id] = [prompt]
                self.bank.add(object_id, source="language", expression=expression, anchor_frame=prompt.frame_index)
            told(self._follow(list(follow.values())))

    def forget(self, object_id: int) -> None:
        """Forget an object.

        Raises:
            KeyError: It is neither remembered nor waiting.
        """
        if self.waiting.pop(object_id, None) is None or object_id in self.bank:
            self.bank.forget(object_id)
        self._tracks.pop(object_id, None)

    def keep(self, object_id: int) -> ObjectSnapshot:
        """Return an object as it is now, known or not, to `restore_object` later."""
        states = {held.record.object_id: held for held in self.bank.state().objects}
        return ObjectSnapshot(
            object_id,
            states.get(object_id),
            tuple(self.waiting.get(object_id, ())),
            tuple(self._tracks.get(object_id, ())),
        )

    def restore_object(self, kept: ObjectSnapshot) -> None:
        """Make an object what it was when it was kept; the others stay as they are.

        Args:
            kept: From `keep`.
        """
        state, object_id = self.bank.state(), kept.object_id
        version = state.version + 1
        held = {entry.record.object_id: entry for entry in state.objects}
        forgotten = {**state.forgotten}
        if kept.state is not None:
            # A change like any other: the next turn tells the model of it.
            record = replace(kept.state.record, changed_version=version)
            held[object_id] = replace(kept.state, record=record)
            forgotten.pop(object_id, None)
        elif held.pop(object_id, None) is not None:
            forgotten[object_id] = version
        self.bank = ObjectMemoryBank.restore(
            replace(state, version=version, objects=tuple(held.values()), forgotten=forgotten)
        )
        self.waiting.pop(object_id, None)
        self._tracks.pop(object_id, None)
        if kept.waiting:
            self.waiting[object_id] = list(kept.waiting)
        if kept.tracks:
            self._tracks[object_id] = list(kept.tracks)

    def adopt(self, bank: ObjectMemoryBank) -> None:
        """Go on with an object memory that was saved; corrections then start from its masks.

        Raises:
            ValueError: It is of another video, or holds too many objects.
        """
        num_frames = self.video.info.num_frames or 0
        last = max((index for key in bank.ids for index, _ in bank.mask_records(key)), default=0)
        if bank.frame_size != self.bank.frame_size or last >= num_frames:
            raise ValueError(
                f"the memory is of {last + 1} or more frames with (H, W) = {bank.frame_size}, "
                f"the video has {num_frames} with {self.bank.frame_size}"
            )
        self.bank, self.waiting, self._tracks = bank, {}, {}
        self.check_capacity([])
        for object_id in bank.ids:
            record = bank[object_id]
            prompted = {record.anchor_frame, *(prompt.frame_index for prompt in record.prompts)}
            looks = {index: bank.mask_record(object_id, index) for index in sorted(prompted)}
            masks = [
                MaskPrompt(look.mask(bank.frame_size), index)
                for index, look in looks.items()
                if look is not None and look.is_visible
            ]
            self._tracks[object_id] = self.follower.visual_prompts(object_id, masks)

    def check_capacity(self, object_ids: Sequence[int]) -> None:
        """Check that further objects fit.

        Raises:
            ValueError: They would be more than `max_objects`.
        """
        total = len(self.known_ids.union(object_ids))
        if total > self.max_objects:
            raise ValueError(
                f"objects {sorted(object_ids)} would make {total}: at most {self.max_objects} are kept, forget some"
            )

    def save(self, folder: str | Path) -> None:
        """Write the object memory to a folder. See `ObjectMemoryBank.save`."""
        self.bank.save(folder)

    @contextmanager
    def _whole(self, progress: Progress | None) -> Iterator[Callable[[Iterator[TrackedVideoFrame]], None]]:
        """Do a piece of work whole or, where it is stopped, not at all."""
        progress = progress or Progress()
        kept = self.bank.state() if progress.should_stop is not None else None
        waiting = {key: list(prompts) for key, prompts in self.waiting.items()}
        tracks = {key: list(prompts) for key, prompts in self._tracks.items()}

        def tell(frames: Iterator[TrackedVideoFrame]) -> None:
            progress.check()
            for followed in frames:
                progress.tell_frame(followed)
                progress.check()

        try:
            yield tell
        except Cancelled:
            if kept is not None:
                self.bank = ObjectMemoryBank.restore(kept)
                self.waiting, self._tracks = waiting, tracks
            raise

    def _follow(self, prompts: Sequence[ClipPrompt]) -> Iterator[TrackedVideoFrame]:
        if not prompts:
            return
        for followed in self.follower.follow(prompts):
            for object_id, item in followed.objects.items():
                mask = item.mask if item.visible else None
                self.bank.update(object_id, followed.frame.index, mask, score=item.score)
            yield followed

    def _add(self, object_id: int, prompts: Sequence[VisualPrompt], *, anchor_frame: int) -> None:
        self.bank.add(
            object_id,
            source=_SOURCES[type(prompts[0])],
            prompts=[record_prompt(prompt) for prompt in prompts],
            anchor_frame=anchor_frame,
        )

    def _known_masks(self, object_id: int, prompts: Sequence[VisualPrompt]) -> dict[int, Any]:
        """The object's masks on the frames of some prompts, as far as it is remembered there."""
        if object_id not in self.bank:
            return {}
        held = {prompt.frame_index: self.bank.mask_record(object_id, prompt.frame_index) for prompt in prompts}
        return {index: look.mask(self.bank.frame_size) for index, look in held.items() if look is not None}
