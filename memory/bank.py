"""The object memory bank (UniPixel, section 3.2): ids to masks over space and time.

Shape letters: n frames, O objects, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.memory.mask_track import MaskTrack
from unipixel.memory.records import (
    MAX_FRAME_INDEX,
    MaskRecord,
    ObjectRecord,
    PromptRecord,
    Source,
    check_integer,
)
from unipixel.memory.rle import MAX_MASK_PIXELS
from unipixel.memory.storage import BankState, StoredObject, read_state, write_state


@dataclass(frozen=True)
class BankChanges:
    """What became different since a version of a bank.

    Attributes:
        added: Ids of new objects.
        changed: Ids of objects whose masks or prompts changed.
        forgotten: Ids that are gone.
    """

    added: tuple[int, ...]
    changed: tuple[int, ...]
    forgotten: tuple[int, ...]


class ObjectMemoryBank:
    """Remembers objects: their masks on every frame, where they come from, and when they changed.

    `version` counts changes of objects and masks, so that a session can ask what is new since a turn. It is
    for one thread at a time.
    """

    def __init__(
        self, frame_size: tuple[int, int], *, max_frames: int | None = None, spill_folder: str | Path | None = None
    ) -> None:
        """Start empty.

        Args:
            frame_size: (H, W) of the video.
            max_frames: Frames per object that stay in memory, the newest ones; None keeps all.
            spill_folder: Where older frames go, a folder without banks of others; None forgets them.

        Raises:
            ValueError: A size is out of range, or the folder holds masks already.
        """
        height, width = (check_integer(side, "frame_size", low=1, high=MAX_MASK_PIXELS) for side in frame_size)
        if height * width > MAX_MASK_PIXELS:
            raise ValueError(f"a frame has at most {MAX_MASK_PIXELS} pixels, got {height} x {width}")
        if max_frames is not None:
            check_integer(max_frames, "max_frames", low=1, high=MAX_FRAME_INDEX)
        self.frame_size = (height, width)
        self.max_frames = max_frames
        self._spill_folder = None if spill_folder is None else Path(spill_folder)
        if self._spill_folder is not None:
            self._spill_folder.mkdir(parents=True, exist_ok=True)
            if stale := next(self._spill_folder.glob("*.jsonl"), None):
                raise ValueError(f"{self._spill_folder} holds masks already ({stale.name}): give an empty folder")
        self._objects: dict[int, ObjectRecord] = {}
        self._timelines: dict[int, MaskTrack] = {}
        self._forgotten: dict[int, int] = {}
        self.version = 0
        self.next_id = 1

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of all objects, in the order in which they were added."""
        return tuple(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._objects

    def __getitem__(self, object_id: int) -> ObjectRecord:
        """Return what is known of an object besides its masks.

        Raises:
            KeyError: There is no such object.
        """
        if object_id not in self._objects:
            raise KeyError(f"object {object_id} is not in the memory: known are {list(self.ids)}")
        return self._objects[object_id]

    def add(
        self,
        object_id: int | None = None,
        *,
        source: Source,
        prompts: Sequence[PromptRecord] = (),
        expression: str | None = None,
        anchor_frame: int = 0,
    ) -> int:
        """Add an object without masks, and return its id.

        Args:
            object_id: Its id; None takes the next one that was never used.
            source: What it was given by.
            prompts: Points, boxes and masks that it was given by.
            expression: Words that name it.
            anchor_frame: Frame on which its first mask is made.

        Raises:
            ValueError: The id is in use or out of range.
        """
        chosen = check_integer(self.next_id if object_id is None else object_id, "object_id", high=MAX_OBJECT_ID)
        anchor_frame = check_integer(anchor_frame, "anchor_frame", high=MAX_FRAME_INDEX)
        if chosen in self._objects:
            raise ValueError(f"object {chosen} is in the memory already: choose an id other than {list(self.ids)}")
        record = ObjectRecord(
            chosen, source, tuple(prompts), expression, anchor_frame, self.version + 1, self.version + 1
        )
        self.version += 1
        self._objects[chosen] = record
        self._timelines[chosen] = self._new_timeline(chosen)
        self._forgotten.pop(chosen, None)
        self.next_id = max(self.next_id, chosen + 1)
        return chosen

    def update(self, object_id: int, frame_index: int, mask: NDArray[Any] | None, *, score: float = 1.0) -> None:
        """Remember how an object looks in a frame, in place of what was remembered of it.

        Args:
            object_id: The object.
            frame_index: Frame of the video, from 0.
            mask: (H, W), non-zero where the object is; None or empty where it is not seen.
            score: Confidence of the tracker.

        Raises:
            KeyError: There is no such object.
            ValueError: The mask's size is not that of the video, or a number is out of range.
        """
        self[object_id]
        frame_index = check_integer(frame_index, "frame_index", high=MAX_FRAME_INDEX)
        if mask is not None and mask.shape != self.frame_size:
            raise ValueError(f"the mask has shape {mask.shape}, the video's frames have (H, W) = {self.frame_size}")
        memory = MaskRecord.of(mask, score=score)
        if self._timelines[object_id].put(frame_index, memory, self.version + 1):
            self.version += 1

    def correct(self, object_id: int, prompt: PromptRecord, *, is_whole: bool = False) -> None:
        """Note a further prompt, and forget the masks that it makes invalid.

        Args:
            object_id: The object.
            prompt: The correction.
            is_whole: Forget all masks, where a clip is to be followed again from its start; otherwise those
                from the prompt's frame on, as in a stream.

        Raises:
            KeyError: There is no such object.
        """
        record = self[object_id]
        self._timelines[object_id].forget_from(0 if is_whole else prompt.frame_index)
        self._touch(replace(record, prompts=(*record.prompts, prompt)))

    def merge(self, object_id: int, other_id: int) -> None:
        """Join two ids that turned out to be one object: the second goes into the first.

        On frames where both are seen the union is kept, with the higher score.

        Raises:
            KeyError: There is no such object.
            ValueError: Both ids are the same.
        """
        if object_id == other_id:
            raise ValueError(f"object {object_id} cannot be merged with itself: give two ids")
        record, other = self[object_id], self[other_id]
        for frame_index, memory in list(self.mask_records(other_id)):
            held = self._timelines[object_id].get([frame_index]).get(frame_index)
            union = memory.mask(self.frame_size) | (held[0].mask(self.frame_size) if held else False)
            self.update(object_id, frame_index, union, score=max(memory.score, held[0].score if held else memory.score))
        self._touch(
            replace(
                record,
                prompts=(*record.prompts, *other.prompts),
                expression=record.expression if record.expression is not None else other.expression,
            )
        )
        self.forget(other_id)

    def forget(self, object_id: int) -> None:
        """Remove an object. Its id is not given out again, but may be asked for.

        Raises:
            KeyError: There is no such object.
        """
        self[object_id]
        self._timelines.pop(object_id).discard()
        del self._objects[object_id]
        self.version += 1
        self._forgotten[object_id] = self.version

    def reset(self) -> None:
        """Forget everything, and start again at the first id and version."""
        for timeline in self._timelines.values():
            timeline.discard()
        self._objects, self._timelines, self._forgotten = {}, {}, {}
        self.version, self.next_id = 0, 1

    def mask_record(self, object_id: int, frame_index: int) -> MaskRecord | None:
        """Return how an object looked in a frame, or None where nothing is remembered.

        Raises:
            KeyError: There is no such object.
        """
        self[object_id]
        entry = self._timelines[object_id].get([frame_index]).get(frame_index)
        return None if entry is None else entry[0]

    def mask_records(self, object_id: int) -> Iterator[tuple[int, MaskRecord]]:
        """Yield index and look of every remembered frame of an object, in order.

        Raises:
            KeyError: There is no such object.
        """
        self[object_id]
        for frame_index, (memory, _) in self._timelines[object_id].items():
            yield frame_index, memory

    def masks_on(self, frame_indices: Sequence[int], *, object_ids: Sequence[int] | None = None) -> NDArray[np.bool_]:
        """Return the masks of objects on some frames, as the language model's memory needs them.

        Args:
            frame_indices: Frames of the video.
            object_ids: Objects in the order wanted; None is all.

        Returns:
            (n, O, H, W); empty where an object was not seen, or not followed.

        Raises:
            KeyError: There is no such object, or a frame's mask was dropped from the window.
        """
        chosen = self.ids if object_ids is None else tuple(object_ids)
        masks = np.zeros((len(frame_indices), len(chosen), *self.frame_size), dtype=bool)
        for column, object_id in enumerate(chosen):
            self[object_id]
            timeline = self._timelines[object_id]
            found = timeline.get(frame_indices)
            for row, frame_index in enumerate(frame_indices):
                if frame_index in found:
                    masks[row, column] = found[frame_index][0].mask(self.frame_size)
                elif timeline.is_lost(frame_index):
                    raise KeyError(
                        f"the mask of object {object_id} on frame {frame_index} was dropped: keep more frames "
                        f"(max_frames = {self.max_frames}), or give a spill_folder"
                    )
        return masks

    def changes_since(self, version: int, *, frame_indices: Collection[int] | None = None) -> BankChanges:
        """Tell what became different since a version, the memory that the next turn opens with.

        Args:
            version: The bank's version then.
            frame_indices: Look at masks on these frames only, those that the language model sees.
        """
        added = tuple(key for key, record in self._objects.items() if record.added_version > version)
        changed = tuple(
            key for key in self._objects if key not in added and self._has_changed(key, version, frame_indices)
        )
        return BankChanges(added, changed, tuple(key for key, gone in self._forgotten.items() if gone > version))

    def keep_only(self, frame_indices: Collection[int]) -> None:
        """Move the masks of all other frames out of memory: to disk, or forget them where there is no folder."""
        for timeline in self._timelines.values():
            timeline.keep_only(frame_indices)

    def copy(self) -> ObjectMemoryBank:
        """Return an independent bank with all that is remembered, held in memory without a window."""
        return ObjectMemoryBank.restore(self.state())

    def save(self, folder: str | Path) -> None:
        """Write everything that is remembered, on disk or in memory, to `bank.json` in a folder.

        Raises:
            OSError: The folder cannot be written.
        """
        write_state(self.state(), Path(folder))

    @classmethod
    def load(
        cls, folder: str | Path, *, max_frames: int | None = None, spill_folder: str | Path | None = None
    ) -> ObjectMemoryBank:
        """Read what `save` wrote; the file may come from anywhere and is checked.

        Args:
            folder: Holds `bank.json`.
            max_frames: See `ObjectMemoryBank`; None keeps all that was saved.
            spill_folder: See `ObjectMemoryBank`.

        Raises:
            OSError: There is no such file.
            ValueError: It is damaged or too large; the message says where.
        """
        return cls.restore(read_state(Path(folder)), max_frames=max_frames, spill_folder=spill_folder)

    def state(self) -> BankState:
        """Return all that is remembered as one value."""
        objects = tuple(
            StoredObject(record, tuple(self._timelines[key].items()), self._timelines[key].dropped)
            for key, record in self._objects.items()
        )
        return BankState(self.frame_size, self.version, self.next_id, dict(self._forgotten), objects)

    @classmethod
    def restore(
        cls, state: BankState, *, max_frames: int | None = None, spill_folder: str | Path | None = None
    ) -> ObjectMemoryBank:
        """Return a bank that remembers what `state` of another returned."""
        bank = cls(state.frame_size, max_frames=max_frames, spill_folder=spill_folder)
        bank.version, bank.next_id, bank._forgotten = state.version, state.next_id, dict(state.forgotten)
        for held in state.objects:
            object_id = held.record.object_id
            bank._objects[object_id] = held.record
            bank._timelines[object_id] = bank._new_timeline(object_id)
            bank._timelines[object_id].restore(held.entries, dropped=held.dropped)
        return bank

    def _new_timeline(self, object_id: int) -> MaskTrack:
        file = None if self._spill_folder is None else self._spill_folder / f"{object_id}.jsonl"
        return MaskTrack(max_frames=self.max_frames, spill_file=file)

    def _touch(self, record: ObjectRecord) -> None:
        self.version += 1
        self._objects[record.object_id] = replace(record, changed_version=self.version)

    def _has_changed(self, object_id: int, version: int, frame_indices: Collection[int] | None) -> bool:
        record, timeline = self._objects[object_id], self._timelines[object_id]
        return record.changed_version > version or timeline.has_changed(version, frame_indices)
