"""The object memory bank (UniPixel, section 3.2), which maps object ids to masks over time.

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
    """Changes since a version of a bank.

    Attributes:
        added: Ids of new objects.
        changed: Ids of objects whose masks or prompts changed.
        forgotten: Ids of removed objects.
    """

    added: tuple[int, ...]
    changed: tuple[int, ...]
    forgotten: tuple[int, ...]


class ObjectMemoryBank:
    """Stores objects with their masks on every frame, their prompts, and the version of their last change.

    `version` is incremented by every change of an object or a mask, so that a session can determine the changes since
    the last turn. The bank is not thread-safe.
    """

    def __init__(
        self, frame_size: tuple[int, int], *, max_frames: int | None = None, spill_folder: str | Path | None = None
    ) -> None:
        """Create an empty bank.

        Args:
            frame_size: (H, W) of the video.
            max_frames: Number of newest frames per object that stay in memory; None for all.
            spill_folder: Folder to which older frames are written, used by no other bank; None drops them.

        Raises:
            ValueError: A size is out of range, or the folder already contains masks.
        """
        height, width = (check_integer(side, "frame_size", low=1, high=MAX_MASK_PIXELS) for side in frame_size)
        if height * width > MAX_MASK_PIXELS:
            raise ValueError(f"a frame must have at most {MAX_MASK_PIXELS} pixels, got {height} x {width}")
        if max_frames is not None:
            check_integer(max_frames, "max_frames", low=1, high=MAX_FRAME_INDEX)
        self.frame_size = (height, width)
        self.max_frames = max_frames
        self._spill_folder = None if spill_folder is None else Path(spill_folder)
        if self._spill_folder is not None:
            self._spill_folder.mkdir(parents=True, exist_ok=True)
            if stale := next(self._spill_folder.glob("*.jsonl"), None):
                raise ValueError(f"{self._spill_folder} already contains masks ({stale.name}): give an empty folder")
        self._objects: dict[int, ObjectRecord] = {}
        self._mask_tracks: dict[int, MaskTrack] = {}
        self._forgotten: dict[int, int] = {}
        self.version = 0
        self.next_id = 1

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of all objects, in the order in which they were added."""
        return tuple(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def __repr__(self) -> str:
        height, width = self.frame_size
        return f"<ObjectMemoryBank of {width} x {height} pixels: objects {list(self.ids)}, version {self.version}>"

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._objects

    def __getitem__(self, object_id: int) -> ObjectRecord:
        """Return the record of an object.

        Raises:
            KeyError: There is no such object.
        """
        if object_id not in self._objects:
            raise KeyError(f"object {object_id} is not in the memory: ids are {list(self.ids)}")
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
            object_id: Id of the object; None for the next unused id.
            source: Kind of its first prompt.
            prompts: Points, boxes and masks.
            expression: Referring expression.
            anchor_frame: Frame on which its first mask is predicted.

        Raises:
            ValueError: The id is in use or out of range.
        """
        new_id = check_integer(self.next_id if object_id is None else object_id, "object_id", high=MAX_OBJECT_ID)
        anchor_frame = check_integer(anchor_frame, "anchor_frame", high=MAX_FRAME_INDEX)
        if new_id in self._objects:
            raise ValueError(f"object {new_id} is already in the memory: choose an id other than {list(self.ids)}")
        record = ObjectRecord(
            new_id, source, tuple(prompts), expression, anchor_frame, self.version + 1, self.version + 1
        )
        self.version += 1
        self._objects[new_id] = record
        self._mask_tracks[new_id] = self._new_mask_track(new_id)
        self._forgotten.pop(new_id, None)
        self.next_id = max(self.next_id, new_id + 1)
        return new_id

    def update(self, object_id: int, frame_index: int, mask: NDArray[Any] | None, *, score: float = 1.0) -> None:
        """Write the mask of an object on a frame, replacing an earlier one.

        Args:
            object_id: The object.
            frame_index: Frame of the video, from 0.
            mask: (H, W), non-zero on the object; None or empty if it is not visible.
            score: Confidence of the tracker.

        Raises:
            KeyError: There is no such object.
            ValueError: The mask is not of the video's size, or a number is out of range.
        """
        self[object_id]
        frame_index = check_integer(frame_index, "frame_index", high=MAX_FRAME_INDEX)
        if mask is not None and not hasattr(mask, "shape"):
            raise TypeError(f"a mask is an array (H, W) or None, got {type(mask).__name__}")
        if mask is not None and mask.shape != self.frame_size:
            raise ValueError(f"the mask has shape {mask.shape}, the video's frames have (H, W) = {self.frame_size}")
        record = MaskRecord.of(mask, score=score)
        if self._mask_tracks[object_id].write(frame_index, record, self.version + 1):
            self.version += 1

    def correct(
        self, object_id: int, prompt: PromptRecord, *, is_whole: bool = False, keeps_masks: bool = False
    ) -> None:
        """Add a correction to an object, and delete the masks that it invalidates.

        Args:
            object_id: The object.
            prompt: The correction.
            is_whole: Whether all masks are deleted, because the clip is tracked again; otherwise those from the
                frame of the prompt on, as in a stream.
            keeps_masks: Whether no mask is deleted, because tracking replaces them one by one.

        Raises:
            KeyError: There is no such object.
        """
        record = self[object_id]
        if not keeps_masks:
            self._mask_tracks[object_id].delete_from(0 if is_whole else prompt.frame_index)
        self._replace_record(replace(record, prompts=(*record.prompts, prompt)))

    def merge(self, object_id: int, other_id: int) -> None:
        """Merge the second object into the first.

        The mask of a frame is the union of both masks, with the higher score.

        Raises:
            KeyError: There is no such object.
            ValueError: Both ids are the same.
        """
        if object_id == other_id:
            raise ValueError(f"object {object_id} cannot be merged with itself: give two ids")
        record, other = self[object_id], self[other_id]
        for frame_index, added in list(self.mask_records(other_id)):
            mask, score, existing = added.mask(self.frame_size), added.score, self.mask_record(object_id, frame_index)
            if existing is not None:
                mask, score = mask | existing.mask(self.frame_size), max(score, existing.score)
            self.update(object_id, frame_index, mask, score=score)
        self._replace_record(
            replace(
                record,
                prompts=(*record.prompts, *other.prompts),
                expression=record.expression if record.expression is not None else other.expression,
            )
        )
        self.forget(other_id)

    def forget(self, object_id: int) -> None:
        """Remove an object. Its id is not assigned again, but may be requested.

        Raises:
            KeyError: There is no such object.
        """
        self[object_id]
        self._mask_tracks.pop(object_id).clear()
        del self._objects[object_id]
        self.version += 1
        self._forgotten[object_id] = self.version

    def reset(self) -> None:
        """Remove all objects, and restart at the first id and version."""
        for mask_track in self._mask_tracks.values():
            mask_track.clear()
        self._objects, self._mask_tracks, self._forgotten = {}, {}, {}
        self.version, self.next_id = 0, 1

    def mask_record(self, object_id: int, frame_index: int) -> MaskRecord | None:
        """Return the mask record of an object on a frame, or None if there is none.

        Raises:
            KeyError: There is no such object.
        """
        self[object_id]
        entry = self._mask_tracks[object_id].get([frame_index]).get(frame_index)
        return None if entry is None else entry[0]

    def mask_records(self, object_id: int) -> Iterator[tuple[int, MaskRecord]]:
        """Yield frame index and mask record of every stored frame of an object, in order.

        Raises:
            KeyError: There is no such object.
        """
        self[object_id]
        for frame_index, (record, _) in self._mask_tracks[object_id].items():
            yield frame_index, record

    def masks_on(self, frame_indices: Sequence[int], *, object_ids: Sequence[int] | None = None) -> NDArray[np.bool_]:
        """Return the masks of objects on the given frames, for injection into the language model.

        Args:
            frame_indices: Frames of the video.
            object_ids: Objects in the order of the result; None for all.

        Returns:
            (n, O, H, W) bool; empty where an object was not visible or not tracked.

        Raises:
            KeyError: There is no such object, or a mask was dropped to limit memory use.
        """
        selected = self.ids if object_ids is None else tuple(object_ids)
        masks = np.zeros((len(frame_indices), len(selected), *self.frame_size), dtype=bool)
        for column, object_id in enumerate(selected):
            self[object_id]
            mask_track = self._mask_tracks[object_id]
            found = mask_track.get(frame_indices)
            for row, frame_index in enumerate(frame_indices):
                if frame_index in found:
                    masks[row, column] = found[frame_index][0].mask(self.frame_size)
                elif mask_track.is_dropped(frame_index):
                    raise KeyError(
                        f"the mask of object {object_id} on frame {frame_index} was dropped: increase max_frames "
                        f"(now {self.max_frames}) or give a spill_folder"
                    )
        return masks

    def changes_since(self, version: int, *, frame_indices: Collection[int] | None = None) -> BankChanges:
        """Return the changes since a version, which the next turn of a conversation injects.

        Args:
            version: An earlier version of the bank.
            frame_indices: Frames of the language model's input; changes of masks on other frames are ignored.
        """
        added = tuple(key for key, record in self._objects.items() if record.added_version > version)
        changed = tuple(
            key for key in self._objects if key not in added and self._has_changed(key, version, frame_indices)
        )
        return BankChanges(added, changed, tuple(key for key, removed in self._forgotten.items() if removed > version))

    def keep_only(self, frame_indices: Collection[int]) -> None:
        """Move the masks of all other frames to disk, or drop them if there is no folder."""
        for mask_track in self._mask_tracks.values():
            mask_track.keep_only(frame_indices)

    def copy(self) -> ObjectMemoryBank:
        """Return an independent bank with all stored masks in memory."""
        return ObjectMemoryBank.restore(self.state())

    def save(self, folder: str | Path) -> None:
        """Write the whole bank to `bank.json` in a folder.

        Raises:
            OSError: The folder cannot be written.
        """
        write_state(self.state(), Path(folder))

    @classmethod
    def load(
        cls, folder: str | Path, *, max_frames: int | None = None, spill_folder: str | Path | None = None
    ) -> ObjectMemoryBank:
        """Load a bank that `save` wrote; the file is validated.

        Args:
            folder: Folder of `bank.json`.
            max_frames: See `ObjectMemoryBank`.
            spill_folder: See `ObjectMemoryBank`.

        Raises:
            OSError: There is no such file.
            ValueError: The file is damaged or too large.
        """
        return cls.restore(read_state(Path(folder)), max_frames=max_frames, spill_folder=spill_folder)

    def state(self) -> BankState:
        """Return the whole content of the bank."""
        objects = tuple(
            StoredObject(record, tuple(self._mask_tracks[key].items()), self._mask_tracks[key].dropped)
            for key, record in self._objects.items()
        )
        return BankState(self.frame_size, self.version, self.next_id, dict(self._forgotten), objects)

    @classmethod
    def restore(
        cls, state: BankState, *, max_frames: int | None = None, spill_folder: str | Path | None = None
    ) -> ObjectMemoryBank:
        """Create a bank from the result of `state`."""
        bank = cls(state.frame_size, max_frames=max_frames, spill_folder=spill_folder)
        bank.version, bank.next_id, bank._forgotten = state.version, state.next_id, dict(state.forgotten)
        for stored in state.objects:
            object_id = stored.record.object_id
            bank._objects[object_id] = stored.record
            bank._mask_tracks[object_id] = bank._new_mask_track(object_id)
            bank._mask_tracks[object_id].restore(stored.entries, dropped=stored.dropped)
        return bank

    def _new_mask_track(self, object_id: int) -> MaskTrack:
        file = None if self._spill_folder is None else self._spill_folder / f"{object_id}.jsonl"
        return MaskTrack(max_frames=self.max_frames, spill_file=file)

    def _replace_record(self, record: ObjectRecord) -> None:
        self.version += 1
        self._objects[record.object_id] = replace(record, changed_version=self.version)

    def _has_changed(self, object_id: int, version: int, frame_indices: Collection[int] | None) -> bool:
        record, mask_track = self._objects[object_id], self._mask_tracks[object_id]
        return record.changed_version > version or mask_track.has_changed(version, frame_indices)
