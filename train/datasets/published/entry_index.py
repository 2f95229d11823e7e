"""The entries of a training set in a cache: read from the annotation files once, then one by one.

A cache folder contains the groups of entries as JSON lines, and a table of the entries with the bytes of their group.
Workers map the table and read single groups, so that no process keeps the annotations in memory.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.published.entries import Entry, Group
from unipixel.train.datasets.published.source_files import SourceFiles, resolve, stamp

ReadGroups = Callable[..., Iterator[Group]]
_VERSION = 1
_GROUPS, _TABLE, _STAMPS = "groups.jsonl", "entries.npy", "sources.json"
_COLUMNS = 4


@dataclass(frozen=True)
class EntryIndex:
    """The entries of a training set.

    Attributes:
        folder: Folder of the cache.
    """

    folder: Path

    def __len__(self) -> int:
        """Number of entries."""
        return len(_table(self.folder))

    def __getitem__(self, number: int) -> Entry:
        """Read one entry.

        Raises:
            IndexError: There is no such entry.
            OSError: The cache cannot be read.
        """
        start, end, position, _ = _table(self.folder)[number].tolist()
        with (self.folder / _GROUPS).open("rb") as file:
            file.seek(start)
            return Entry.from_group(json.loads(file.read(end - start)), position)

    def groups(self) -> Iterator[Group]:
        """Yield the groups of entries in order.

        Raises:
            OSError: The cache cannot be read.
        """
        with (self.folder / _GROUPS).open("rb") as file:
            for line in file:
                yield json.loads(line)

    def numbers(self, *, has_media: bool) -> NDArray[np.uint32]:
        """Return the numbers of the entries with, or without, a clip or image."""
        return _numbers(self.folder, has_media)


def build_index(
    read_groups: ReadGroups, options: Mapping[str, Any], *, root: Path, cache: Path, name: str
) -> EntryIndex:
    """Return the index of a training set, read from its annotation files unless the cache has them unchanged.

    Args:
        read_groups: Reader of the annotation format.
        options: Its arguments.
        root: Folder of all data sets.
        cache: Folder of all caches.
        name: Name of the set.

    Raises:
        OSError: A file is missing or cannot be read, or the cache cannot be written.
        ValueError: The annotations have another form, or contain no entry.
    """
    key = json.dumps([_VERSION, str(root.resolve()), name, read_groups.__name__, options], sort_keys=True)
    folder = cache / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not _is_current(folder, root):
            _write(folder, read_groups, options, root=root, name=name)
    return EntryIndex(folder)


@lru_cache(maxsize=128)
def _table(folder: Path) -> NDArray[np.int64]:
    """Map the table of entries: start and end of the group, position in it, whether it has a clip or image."""
    return np.load(folder / _TABLE, mmap_mode="r")


@lru_cache(maxsize=128)
def _numbers(folder: Path, has_media: bool) -> NDArray[np.uint32]:
    return np.flatnonzero(_table(folder)[:, 3] == has_media).astype(np.uint32)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time build an index; the others wait and find it built."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_current(folder: Path, root: Path) -> bool:
    """Return whether all files and folders that the index was made from are unchanged."""
    try:
        stamps = json.loads((folder / _STAMPS).read_text(encoding="utf-8"))
        return all(list(stamp(resolve(root, name))) == found for name, found in stamps.items())
    except (OSError, ValueError):
        return False


def _line(group: Any, name: str) -> bytes:
    try:
        return json.dumps(group, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    # Values of a pickle that JSON does not know, and lone surrogates.
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: an entry contains a value that is not of JSON: {error}") from error


def _write(folder: Path, read_groups: ReadGroups, options: Mapping[str, Any], *, root: Path, name: str) -> None:
    files = SourceFiles(root)
    rows = array("q")
    (folder / _STAMPS).unlink(missing_ok=True)
    partial = folder / f"partial-{os.getpid()}"
    partial.mkdir()
    try:
        with (partial / _GROUPS).open("wb") as written:
            # Annotations are many small objects without cycles, among which the collector would search again and again.
            for group in _without_collection(_checked(read_groups(files, **options), files, name)):
                start = written.tell()
                written.write(_line(group, name))
                end, has_media = written.tell(), bool(group["media"])
                for position in range(len(group["entries"])):
                    rows.extend((start, end, position, has_media))
        if not rows:
            raise ValueError(f"{name}: the annotations contain no entry for training")
        np.save(partial / _TABLE, np.frombuffer(rows, np.int64).reshape(-1, _COLUMNS))
        for file in (_GROUPS, _TABLE):
            os.replace(partial / file, folder / file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _table.cache_clear()
    _numbers.cache_clear()
    # Written last: without it the index counts as missing.
    (folder / _STAMPS).write_text(json.dumps(files.stamps), encoding="utf-8")


def _without_collection(groups: Iterator[Group]) -> Iterator[Group]:
    """Yield groups with Python's cyclic garbage collector turned off."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield from groups
    finally:
        if was_enabled:
            gc.enable()


def _checked(groups: Iterator[Group], files: SourceFiles, name: str) -> Iterator[Group]:
    """Yield groups; an annotation without an expected field is reported with its file."""
    number = 0
    try:
        for group in groups:
            number += 1
            yield group
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, ValueError) and str(files.root) in str(error):
            raise
        source = next(reversed(files.stamps), "its files")
        raise ValueError(
            f"{name}: the annotation after {number} in {files.root / source} has another form than expected "
            f"({type(error).__name__}: {error})"
        ) from error
