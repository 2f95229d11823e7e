"""The masks of one object over time, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from unipixel.memory.records import MAX_FRAME_INDEX, MaskRecord, check_integer

Entry: TypeAlias = tuple[MaskRecord, int]
"""Mask record of a frame, and the version of the bank when the mask was written."""


class MaskTrack:
    """Mask records of one object by frame index.

    With `max_frames`, the newest frames stay in memory; older ones are appended to a file, or dropped if there is
    none. In the file, a later line replaces an earlier one of the same frame. Memory use therefore does not grow with
    the length of a video.
    """

    def __init__(self, *, max_frames: int | None = None, spill_file: Path | None = None) -> None:
        self._entries: dict[int, Entry] = {}
        self._max_frames = max_frames
        self._spill_file = spill_file
        self.latest_version = 0
        self.dropped: tuple[int, int] | None = None
        """First and last frame whose mask was dropped, which distinguishes dropped masks from absent objects."""

    def write(self, frame_index: int, record: MaskRecord, version: int) -> bool:
        """Write the mask record of a frame, and return whether the mask itself changed, not only its score."""
        existing = self._entries.get(frame_index)
        if existing is not None and existing[0].counts == record.counts:
            self._entries[frame_index] = (record, existing[1])
            return False
        self._entries[frame_index] = (record, version)
        self.latest_version = max(self.latest_version, version)
        if self._max_frames is not None and len(self._entries) > self._max_frames:
            self._evict([min(self._entries)])
        return True

    def restore(self, entries: Iterable[tuple[int, Entry]], *, dropped: tuple[int, int] | None) -> None:
        """Fill an empty track with the items of another."""
        self.dropped = dropped
        for frame_index, (record, version) in entries:
            self.write(frame_index, record, version)

    def get(self, frame_indices: Collection[int]) -> dict[int, Entry]:
        """Return the entries of those frames that are stored, in memory or on disk."""
        found = {index: self._entries[index] for index in frame_indices if index in self._entries}
        missing = set(frame_indices) - set(found)
        if missing and self._spill_file is not None:
            found.update(self._read_spilled(missing))
        return found

    def has_changed(self, version: int, frame_indices: Collection[int] | None) -> bool:
        """Return whether one of the frames, or any frame if None, changed after a version."""
        if frame_indices is None or self.latest_version <= version:
            return self.latest_version > version
        return any(entry[1] > version for entry in self.get(frame_indices).values())

    def is_dropped(self, frame_index: int) -> bool:
        """Return whether the mask of a frame that is not stored may have been dropped."""
        return self.dropped is not None and self.dropped[0] <= frame_index <= self.dropped[1]

    def items(self) -> Iterator[tuple[int, Entry]]:
        """Yield index and entry of all stored frames, in order."""
        merged = {**self._read_spilled(None), **self._entries}
        for index in sorted(merged):
            yield index, merged[index]

    def keep_only(self, frame_indices: Collection[int]) -> None:
        """Move all other frames to disk, or drop them."""
        self._evict(sorted(set(self._entries) - set(frame_indices)))

    def delete_from(self, frame_index: int) -> None:
        """Delete a frame and all later ones."""
        self._entries = {index: entry for index, entry in self._entries.items() if index < frame_index}
        if self._spill_file is not None and self._spill_file.is_file():
            self._append([{"from": frame_index}])
        if self.dropped is not None:
            first, last = self.dropped
            self.dropped = (first, min(last, frame_index - 1)) if first < frame_index else None

    def clear(self) -> None:
        """Delete all frames, on disk too."""
        self._entries.clear()
        self.dropped = None
        if self._spill_file is not None:
            self._spill_file.unlink(missing_ok=True)

    def _evict(self, frame_indices: Collection[int]) -> None:
        if not frame_indices:
            return
        evicted = [(index, self._entries.pop(index)) for index in frame_indices]
        if self._spill_file is None:
            indices = [*frame_indices, *(self.dropped or ())]
            self.dropped = (min(indices), max(indices))
        else:
            self._append([to_row(index, entry) for index, entry in evicted])

    def _append(self, rows: list[Any]) -> None:
        if self._spill_file is not None:
            with self._spill_file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)

    def _read_spilled(self, frame_indices: Collection[int] | None) -> dict[int, Entry]:
        """Read the given frames, or all if None, from the file."""
        found: dict[int, Entry] = {}
        if self._spill_file is None or not self._spill_file.is_file():
            return found
        with self._spill_file.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if isinstance(row, dict):
                    found = {index: entry for index, entry in found.items() if index < row["from"]}
                    continue
                index, entry = from_row(row)
                if frame_indices is None or index in frame_indices:
                    found[index] = entry
        return found


def to_row(frame_index: int, entry: Entry) -> list[Any]:
    """Return an entry as plain values."""
    record, version = entry
    return [frame_index, version, record.score, record.counts]


def from_row(row: Any) -> tuple[int, Entry]:
    """Read and validate the values of `to_row`.

    Raises:
        ValueError: A value is invalid.
    """
    if not isinstance(row, list) or len(row) != 4:
        raise ValueError(f"a frame must be [index, version, score, counts], got {row!r:.80}")
    index, version, score, counts = row
    if counts is not None and not isinstance(counts, str):
        raise ValueError(f"counts must be a string or null, got {counts!r:.80}")
    check_integer(index, "frame index", high=MAX_FRAME_INDEX)
    check_integer(version, "version", high=2**63)
    return index, (MaskRecord(counts, score), version)
