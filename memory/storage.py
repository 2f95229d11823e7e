"""The content of an object memory bank, and its JSON file, which is validated when read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.memory.mask_track import Entry, from_row, to_row
from unipixel.memory.records import (
    MAX_FRAME_INDEX,
    ObjectRecord,
    PromptRecord,
    check_fields,
    check_format,
    check_integer,
)
from unipixel.memory.rle import MAX_MASK_PIXELS, check_rle

BANK_FILE = "bank.json"
MAX_BANK_BYTES = 2**31
"""Size in bytes of the largest file that is read."""
_FORMAT = "unipixel-object-memory-1"
_TOP_FIELDS = {"format", "frame_size", "version", "next_id", "forgotten", "objects"}
_OBJECT_FIELDS = {
    "object_id", "source", "prompts", "expression", "anchor_frame", "added_version", "changed_version",
    "dropped", "frames",
}  # fmt: skip
_MAX_VERSION = 2**53


@dataclass(frozen=True)
class StoredObject:
    """The stored record and masks of one object.

    Attributes:
        record: Its properties other than masks.
        entries: Frame index and entry of every stored frame, in order.
        dropped: First and last frame whose mask was dropped, or None.
    """

    record: ObjectRecord
    entries: tuple[tuple[int, Entry], ...]
    dropped: tuple[int, int] | None


@dataclass(frozen=True)
class BankState:
    """The content of a bank.

    Attributes:
        frame_size: (H, W) of the video.
        version: Number of changes.
        next_id: Next id that is assigned.
        forgotten: Ids of removed objects, with the version at which they were removed.
        objects: Objects in the order in which they were added.
    """

    frame_size: tuple[int, int]
    version: int
    next_id: int
    forgotten: Mapping[int, int]
    objects: tuple[StoredObject, ...]


def write_state(state: BankState, folder: Path) -> None:
    """Write `bank.json` atomically.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": _FORMAT,
        "frame_size": list(state.frame_size),
        "version": state.version,
        "next_id": state.next_id,
        "forgotten": [[object_id, version] for object_id, version in state.forgotten.items()],
        "objects": [_object_to_json(stored) for stored in state.objects],
    }
    with tempfile.TemporaryDirectory(dir=folder) as temporary_folder:
        part = Path(temporary_folder) / BANK_FILE
        part.write_text(json.dumps(content), encoding="utf-8")
        os.replace(part, folder / BANK_FILE)


def read_state(folder: Path) -> BankState:
    """Read and validate a file of `write_state`.

    Raises:
        OSError: There is no such file.
        ValueError: The file is damaged, too large, or of another version.
    """
    file = folder / BANK_FILE
    if (size := file.stat().st_size) > MAX_BANK_BYTES:
        raise ValueError(f"{file} has {size} bytes: at most {MAX_BANK_BYTES} are allowed")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        check_format(content, _FORMAT, "the file")
        return _state_from_json(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not an object memory of this version: {error}") from error


def _object_to_json(stored: StoredObject) -> dict[str, Any]:
    record = stored.record
    return {
        "object_id": record.object_id,
        "source": record.source,
        "prompts": [prompt.to_json() for prompt in record.prompts],
        "expression": record.expression,
        "anchor_frame": record.anchor_frame,
        "added_version": record.added_version,
        "changed_version": record.changed_version,
        "dropped": None if stored.dropped is None else list(stored.dropped),
        "frames": [to_row(index, entry) for index, entry in stored.entries],
    }


def _state_from_json(content: Any) -> BankState:
    fields = check_fields(content, _TOP_FIELDS, "the file")
    height, width = (
        check_integer(side, "frame_size", low=1, high=MAX_MASK_PIXELS) for side in _pair(fields["frame_size"])
    )
    version = check_integer(fields["version"], "version", high=_MAX_VERSION)
    objects = tuple(_object_from_json(item, (height, width), version) for item in _list(fields["objects"], "objects"))
    ids = [stored.record.object_id for stored in objects]
    if len(set(ids)) != len(ids):
        raise ValueError(f"object ids must be distinct, got {ids}")
    next_id = check_integer(fields["next_id"], "next_id", low=max([0, *ids]) + bool(ids), high=MAX_OBJECT_ID + 1)
    removed = [_pair(item) for item in _list(fields["forgotten"], "forgotten")]
    forgotten = {
        check_integer(object_id, "forgotten id", high=MAX_OBJECT_ID): check_integer(at_version, "version", high=version)
        for object_id, at_version in removed
    }
    return BankState((height, width), version, next_id, forgotten, objects)


def _object_from_json(content: Any, frame_size: tuple[int, int], version: int) -> StoredObject:
    fields = check_fields(content, _OBJECT_FIELDS, "an object")
    object_id = check_integer(fields["object_id"], "object_id", high=MAX_OBJECT_ID)
    dropped = None
    if fields["dropped"] is not None:
        first, last = _pair(fields["dropped"])
        last = check_integer(last, "last dropped frame", high=MAX_FRAME_INDEX)
        dropped = (check_integer(first, "first dropped frame", high=last), last)
    entries = {}
    for row in _list(fields["frames"], "frames"):
        index, (mask_record, version_written) = from_row(row)
        check_integer(version_written, f"version of frame {index}", high=version)
        if (rle := mask_record.rle(frame_size)) is not None:
            check_rle(rle)
        entries[index] = (mask_record, version_written)
    record = ObjectRecord(
        object_id=object_id,
        source=fields["source"],
        prompts=tuple(PromptRecord.from_json(item, frame_size) for item in _list(fields["prompts"], "prompts")),
        expression=fields["expression"],
        anchor_frame=fields["anchor_frame"],
        added_version=check_integer(fields["added_version"], "added_version", high=version),
        changed_version=check_integer(fields["changed_version"], "changed_version", high=version),
    )
    return StoredObject(record, tuple(sorted(entries.items())), dropped)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {value!r:.80}")
    return value


def _pair(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"expected a list of two values, got {value!r:.80}")
    return value[0], value[1]
