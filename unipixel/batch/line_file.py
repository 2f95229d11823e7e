"""A file of JSON lines that only grows: whole lines, one writer at a time, continued after a kill."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


class LineFile:
    """Appends lines to a file, each whole, from any thread.

    A process that is killed leaves whole lines and at most one incomplete last line, which the next one removes.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it with its folder.

        Args:
            path: The file.

        Raises:
            OSError: The file cannot be written, or another process is writing it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+b")
        self._lock = threading.Lock()
        try:
            _reserve(self._file, path)
            self._file.truncate(_end_of_last_line(self._file))
            self._file.seek(0, os.SEEK_END)
        except BaseException:
            self._file.close()
            raise

    def append(self, content: bytes) -> None:
        """Write one line without its line break; it is in the file when this returns."""
        with self._lock:
            self._file.write(content + b"\n")
            self._file.flush()

    def append_json(self, content: Mapping[str, Any]) -> None:
        """Write an object as a line of JSON."""
        self.append(json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8"))

    def objects(self) -> Iterator[dict[str, Any]]:
        """Yield the object of each line that is in the file.

        Raises:
            ValueError: A line is not a JSON object.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    content = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{self.path}, line {number}: not a JSON object ({error})") from error
                if not isinstance(content, dict):
                    raise ValueError(f"{self.path}, line {number}: expected a JSON object, got {content!r:.80}")
                yield content

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _reserve(file: IO[bytes], path: Path) -> None:
    """Reserve a file for this process until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(f"{path}: another process is writing it; wait for it, or give another folder") from None
    except OSError as error:
        # Some network file systems have no locks.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise


def _end_of_last_line(file: IO[bytes]) -> int:
    """Return the offset behind the last line break."""
    position = file.seek(0, os.SEEK_END)
    while position:
        start = max(position - 65536, 0)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
