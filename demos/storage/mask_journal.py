"""A file to which masks are appended while objects are tracked, so that a killed server loses none of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import MAX_FRAME_INDEX, MaskRecord, check_integer

MAX_JOURNAL_BYTES = 2**30
"""Maximum size of a journal that is read."""


class MaskJournal:
    """Appends the masks of one frame at a time."""

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            OSError: The folder is not writable.
        """
        self._file = path.open("x", encoding="ascii")

    def append(self, frame_index: int, masks: Mapping[int, MaskRecord]) -> None:
        """Write the masks of a frame, by object id; they survive the end of the process.

        Raises:
            OSError: The disk is full.
        """
        row = [frame_index, [[object_id, mask.counts, mask.score] for object_id, mask in masks.items()]]
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> MaskJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def replay_journal(path: Path, bank: ObjectMemoryBank) -> None:
    """Write the masks of a journal to an object memory; a last line that is incomplete is ignored.

    Args:
        path: The file; masks of objects that the memory does not contain are ignored.
        bank: The memory.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged or too large.
    """
    if (size := path.stat().st_size) > MAX_JOURNAL_BYTES:
        raise ValueError(f"{path.name} has {size} bytes, the maximum is {MAX_JOURNAL_BYTES}")
    with path.open(encoding="ascii") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            try:
                frame_index, rows = json.loads(line)
                check_integer(frame_index, "frame_index", high=MAX_FRAME_INDEX)
                for object_id, counts, score in rows:
                    if object_id in bank:
                        mask = MaskRecord(counts, score)
                        pixels = mask.mask(bank.frame_size) if mask.is_visible else None
                        bank.update(object_id, frame_index, pixels, score=score)
            except (TypeError, RecursionError) as error:
                raise ValueError(f"{path.name} is damaged: {error}") from error
