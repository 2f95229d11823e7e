"""The masks of one object over time: in memory, and beyond a window on disk or forgotten."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from unipixel.memory.records import MAX_FRAME_INDEX, MaskRecord, check_integer

Entry: TypeAlias = tuple[MaskRecord, int]
"""How an object looked in a frame, and the bank's version when that was written."""


class MaskTrack:
    """Frames of one object, by index.

    With a window, the newest `max_frames` frames stay in memory; older ones go to a file, or are
    forgotten where there is none. The file is only ever appended to: a later line replaces an earlier
    one of the same frame. Memory therefore does not grow with the length of a video.
    """

    def __init__(self, *, max_frames: int | None = None, spill_file: Path | None = None) -> None:
        self._entries: dict[int, Entry] = {}
        self._max_frames = max_frames
        self._spill_file = spill_file
        self.latest_version = 0
        self.dropped: tuple[int, int] | None = None
        """First and last frame of which the mask was dropped, so that a gap is not taken for an absence."""

    def put(self, frame_index: int, memory: MaskRecord, version: int) -> bool:
        """Remember a frame, and return whether its mask is another than before; a new score alone is not."""
        held = self._entries.get(frame_index)
        if held is not None and held[0].counts == memory.counts:
            self._entries[frame_index] = (memory, held[1])
            return False
        self._entries[frame_index] = (memory, version)
        self.latest_version = max(self.latest_version, version)
        if self._max_frames is not None and len(self._entries) > self._max_frames:
            self._move_out([min(self._entries)])
        return True

    def restore(self, entries: Iterable[tuple[int, Entry]], *, dropped: tuple[int, int] | None) -> None:
        """Fill an empty timeline with what `items` of another yielded."""
        self.dropped = dropped
        for frame_index, (memory, version) in entries:
            self.put(frame_index, memory, version)

    def get(self, frame_indices: Collection[int]) -> dict[int, Entry]:
        """Return those of the frames that are remembered, in memory or on disk."""
        found = {index: self._entries[index] for index in frame_indices if index in self._entries}
        missing = set(frame_indices) - set(found)
        if missing and self._spill_file is not None:
            found.update(self._spilled(missing))
        return found

    def has_changed(self, version: int, frame_indices: Collection[int] | None) -> bool:
        """Whether one of the frames, or any where None is given, was written after a version."""
        if frame_indices is None or self.latest_version <= version:
            return self.latest_version > version
        return any(entry[1] > version for entry in self.get(frame_indices).values())

    def is_lost(self, frame_index: int) -> bool:
        """Whether a frame that is not remembered may have been, before it was dropped."""
        return self.dropped is not None and self.dropped[0] <= frame_index <= self.dropped[1]

    def items(self) -> Iterator[tuple[int, Entry]]:
        """Yield all frames that are remembered, in order."""
        merged = {**self._spilled(None), **self._entries}
        for index in sorted(merged):
            yield index, merged[index]

    def keep_only(self, frame_indices: Collection[int]) -> None:
        """Move all other frames out of memory."""
        self._move_out(sorted(set(self._entries) - set(frame_indices)))

    def forget_from(self, frame_index: int) -> None:
        """Forget a frame and all that follow it."""
        self._entries = {index: entry for index, entry in self._entries.items() if index < frame_index}
        if self._spill_file is not None and self._spill_file.is_file():
            self._append([{"from": frame_index}])
        if self.dropped is not None:
            first, last = self.dropped
            self.dropped = (first, min(last, frame_index - 1)) if first < frame_index else None

    def discard(self) -> None:
        """Forget all, on disk too."""
        self._entries.clear()
        self.dropped = None
        if self._spill_file is not None:
            self._spill_file.unlink(missing_ok=True)

    def _move_out(self, frame_indices: Collection[int]) -> None:
        if not frame_indices:
            return
        moved = [(index, self._entries.pop(index)) for index in frame_indices]
        if self._spill_file is None:
            known = self.dropped or (min(frame_indices), max(frame_indices))
            self.dropped = (min(known[0], *frame_indices), max(known[1], *frame_indices))
        else:
            self._append([to_row(index, entry) for index, entry in moved])

    def _append(self, rows: list[Any]) -> None:
        if self._spill_file is not None:
            with self._spill_file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)

    def _spilled(self, wanted: Collection[int] | None) -> dict[int, Entry]:
        """Read frames from the file; None reads all."""
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
                if wanted is None or index in wanted:
                    found[index] = entry
        return found


def to_row(frame_index: int, entry: Entry) -> list[Any]:
    """Return a frame as plain values."""
    memory, version = entry
    return [frame_index, version, memory.score, memory.counts]


def from_row(row: Any) -> tuple[int, Entry]:
    """Read and check what `to_row` returned.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(row, list) or len(row) != 4:
        raise ValueError(f"a frame is [index, version, score, counts], got {row!r:.80}")
    index, version, score, counts = row
    if counts is not None and not isinstance(counts, str):
        raise ValueError(f"counts must be a text or null, got {counts!r:.80}")
    check_integer(index, "frame index", high=MAX_FRAME_INDEX)
    check_integer(version, "version", high=2**63)
    return index, (MaskRecord(counts, score), version)
