"""The results of a batch: `results.jsonl`, one row per clip and question set, appended line by line.

A run that is killed leaves whole rows and at most one incomplete last line, which the next run removes. `batch.json`
has the options of the run, so that rows of different runs are not mixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from unipixel.batch.line_file import LineFile

ROWS_NAME = "results.jsonl"
OPTIONS_NAME = "batch.json"

Row: TypeAlias = "dict[str, Any]"
"""A row: `clip`, `id` and either `error` or the answers and objects."""


class RowFile:
    """Appends rows to `results.jsonl` and knows which are there."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Open the file in a new folder or in that of an earlier run with the same options.

        Raises:
            ValueError: The folder has results of other options, or a line is not a row.
            OSError: It cannot be written, or another process is writing it.
        """
        self.path = folder / ROWS_NAME
        self._file = LineFile(self.path)
        try:
            self._check_options(folder / OPTIONS_NAME, dict(options))
            self.num_failed = 0
            self.finished = self._read_finished()
        except BaseException:
            self._file.close()
            raise

    def append(self, row: Row) -> bool:
        """Write a row, which is in the file when this returns; return False if its clip and id have one already."""
        key = (row["clip"], row["id"])
        if key in self.finished:
            return False
        self._file.append_json(row)
        self.finished.add(key)
        self.num_failed += row["error"] is not None
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _check_options(self, path: Path, options: dict[str, Any]) -> None:
        if not path.exists():
            if self.path.stat().st_size:
                raise ValueError(f"{self.path} exists and is not of this command: give another --out")
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(options, indent=1) + "\n", encoding="utf-8")
            temporary.replace(path)
            return
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON ({error}): give another --out") from error
        if earlier != options:
            names = [name for name in options if not isinstance(earlier, dict) or earlier.get(name) != options[name]]
            raise ValueError(f"{path.parent} has results with other options ({', '.join(names)}): give another --out")

    def _read_finished(self) -> set[tuple[str, str]]:
        """Return clip and id of the rows, and count those that failed."""
        finished = set()
        for row in read_rows(self.path):
            finished.add((row["clip"], row["id"]))
            self.num_failed += row.get("error") is not None
        return finished


def parse_row(line: bytes, *, location: str) -> Row:
    """Parse a line of the file.

    Raises:
        ValueError: It is not a row.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{location}: not a JSON object ({error})") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("clip", "id")):
        raise ValueError(f"{location}: a row is a JSON object with the texts `clip` and `id`")
    return row


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, one at a time.

    Raises:
        OSError: It cannot be read.
        ValueError: A line is not a row.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield parse_row(line, location=f"{path}, line {number}")
