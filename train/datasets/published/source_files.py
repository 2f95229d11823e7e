"""Access to the annotation files of a training set, which records what was read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unipixel.train.datasets.plain_pickle import read_plain_pickle
from unipixel.train.datasets.published.json_members import JsonMembers

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""
_MAX_PARSED_BYTES = 2**28
_NUM_SHOWN = 8


class SourceFiles:
    """The files of one training set below the folder of all data sets.

    Attributes:
        root: Folder of all data sets.
        stamps: Stamp of each file and folder that was read, by its name.
    """

    def __init__(self, root: Path) -> None:
        """Give access to the files below a folder."""
        self.root = root
        self.stamps: dict[str, Stamp] = {}

    def choose(self, names: str | Sequence[str]) -> str:
        """Return the first of some names that exists, or the last.

        Args:
            names: Names relative to the root: where the authors of a set, and who packed it again, put it.
        """
        alternatives = [names] if isinstance(names, str) else list(names)
        return next((name for name in alternatives if (self.root / name).exists()), alternatives[-1])

    def find(self, names: str | Sequence[str]) -> Path:
        """Return the path of a file or folder, the first of some names that exists.

        Raises:
            FileNotFoundError: None exists; the message says what is there instead.
        """
        name = self.choose(names)
        path = resolve(self.root, name)
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: {describe_nearest(path)}")
        self.stamps[name] = stamp(path)
        return path

    def members(self, names: str | Sequence[str], keys: Sequence[str] = ()) -> JsonMembers:
        """Return the members of a large JSON file; see `JsonMembers.read`.

        Raises:
            OSError: The file is missing or cannot be read.
            ValueError: It is not JSON, or has no such container.
        """
        return JsonMembers.read(self.find(names), keys)

    def parse(self, names: str | Sequence[str], *, encodings: Sequence[str] = ("utf-8",)) -> Any:
        """Parse a small JSON file.

        Args:
            names: One name, or alternatives.
            encodings: Encodings to try in order.

        Raises:
            OSError: The file is missing or cannot be read.
            ValueError: It is not JSON, or larger than 256 MiB.
        """
        return parse_json(self.find(names), encodings=encodings)

    def unpickle(self, names: str | Sequence[str]) -> Any:
        """Read a pickle of plain values; see `read_plain_pickle`.

        Raises:
            OSError: The file is missing or cannot be read.
            ValueError: It contains anything else.
        """
        return read_plain_pickle(self.find(names))

    def names_in(self, names: str | Sequence[str], suffixes: Sequence[str]) -> list[str]:
        """Return the sorted names of the files with some suffixes in a folder.

        Raises:
            OSError: The folder is missing or cannot be read.
        """
        folder = self.find(names)
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} must be a folder")
        with os.scandir(folder) as found:
            return sorted(item.name for item in found if item.name.lower().endswith(tuple(suffixes)))


def parse_json(path: Path, *, encodings: Sequence[str] = ("utf-8",)) -> Any:
    """Parse a small JSON file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or larger than 256 MiB.
    """
    size = path.stat().st_size
    if size > _MAX_PARSED_BYTES:
        raise ValueError(f"{path} has {size} bytes: at most {_MAX_PARSED_BYTES} are parsed at once")
    content = path.read_bytes()
    *others, last = encodings
    try:
        encoding = next((one for one in others if _is_encoded(content, one)), last)
        return json.loads(content.decode(encoding))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _is_encoded(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def resolve(root: Path, name: str) -> Path:
    """Return the path of a name below a folder.

    Raises:
        ValueError: The name is absolute, or leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"the annotations name the file {name!r}, which is not below {root}")
    return root.joinpath(*parts)


def stamp(path: Path) -> Stamp:
    """Return the stamp of a file or folder.

    Raises:
        OSError: It does not exist.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def describe_nearest(path: Path) -> str:
    """Say which folder above a missing path exists, and what it contains."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = sorted(item.name + ("/" if item.is_dir() else "") for item in parent.iterdir())
    shown = ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")
    return f"{parent} contains {shown or 'nothing'}"
