"""A video and the objects in it: prompted, followed, remembered. Knows no language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unipixel.clip import check_prompt, record_prompt
from unipixel.following import FollowedFrame, VideoFollower
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import Source
from unipixel.prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.tracking.propagation import ClipPrompt
from unipixel.tracking.segmenter import Segmenter
from unipixel.video import Video, open_video

_SOURCES: dict[type, Source] = {PointPrompt: "point", BoxPrompt: "box", MaskPrompt: "mask"}


class Scene:
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
    ) -> None:
        """Open a video; nothing is computed yet.

        Args:
            segmenter: SAM 2.1.
            video: A finite video, or what `open_video` takes.
            memory_dtype: Type of SAM's memories.
            max_objects: Ceiling on the objects.
            is_postprocessed: Whether SAM 2's own post-processing is on.

        Raises:
            OSError: The video cannot be read.
            ValueError: It is a stream, or a setting is out of range.
        """
        if max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {max_objects}")
        self.video = video if isinstance(video, Video) else open_video(video)
        self.bank = ObjectMemoryBank((self.video.info.height, self.video.info.width))
        self.follower = VideoFollower(
            segmenter, self.video, memory_dtype=memory_dtype, is_postprocessed=is_postprocessed
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
        self.check_room([object_id])
        merged = [*self.waiting.get(object_id, []), *prompts]
        self.follower.visual_prompts(object_id, merged, known=self._known_masks(object_id, merged))
        self.waiting[object_id] = merged

    def track(self) -> None:
        """Follow every object that waits, from its prompts alone."""
        for _ in self.track_frames():
            pass

    def track_frames(self) -> Iterator[FollowedFrame]:
        """Do what `track` does, and yield each frame as it is done."""
        waiting, self.waiting = self.waiting, {}
        follow: list[ClipPrompt] = []
        for object_id, prompts in waiting.items():
            known = self._known_masks(object_id, prompts)
            track = self._tracks.setdefault(object_id, [])
            track += self.follower.visual_prompts(object_id, prompts, known=known)
            follow += track
            if object_id in self.bank:
                for prompt in prompts:
                    self.bank.correct(object_id, record_prompt(prompt), is_whole=True)
            else:
                self._add(object_id, prompts, anchor_frame=track[0].frame_index)
        yield from self._follow(follow)

    def follow_pointed(self, tokens: Mapping[int, Tensor], anchors: Mapping[int, int]) -> None:
        """Follow objects that wait, from a language model's tokens in place of their first prompt.

        Args:
            tokens: (n, C) by id.
            anchors: Frame on which each is segmented first.
        """
        follow: list[ClipPrompt] = []
        for object_id, prompt in self.follower.language_prompts(tokens, anchors).items():
            prompts = self.waiting.pop(object_id)
            # The pass that follows makes a mask on the anchor, which further clicks there correct.
            rest = self.follower.visual_prompts(object_id, prompts[1:], known={prompt.frame_index: None})
            self._tracks[object_id] = [prompt, *rest]
            follow += self._tracks[object_id]
            self._add(object_id, prompts, anchor_frame=prompt.frame_index)
        for _ in self._follow(follow):
            pass

    def follow_named(self, tokens: Mapping[int, Tensor], anchors: Mapping[int, int], *, expression: str) -> None:
        """Follow new objects that words named.

        Args:
            tokens: (n, C) by id.
            anchors: Frame on which each is segmented first.
            expression: The words.

        Raises:
            ValueError: There are too many objects, or an id is in use.
        """
        self.check_room(list(tokens))
        follow = self.follower.language_prompts(tokens, anchors)
        for object_id, prompt in follow.items():
            self._tracks[object_id] = [prompt]
            self.bank.add(object_id, source="language", expression=expression, anchor_frame=prompt.frame_index)
        for _ in self._follow(list(follow.values())):
            pass

    def forget(self, object_id: int) -> None:
        """Forget an object.

        Raises:
            KeyError: It is neither remembered nor waiting.
        """
        if self.waiting.pop(object_id, None) is None or object_id in self.bank:
            self.bank.forget(object_id)
        self._tracks.pop(object_id, None)

    def check_room(self, object_ids: Sequence[int]) -> None:
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

    def _follow(self, prompts: Sequence[ClipPrompt]) -> Iterator[FollowedFrame]:
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
        held = {prompt.frame_index: self.bank.frame(object_id, prompt.frame_index) for prompt in prompts}
        return {index: look.mask(self.bank.frame_size) for index, look in held.items() if look is not None}
