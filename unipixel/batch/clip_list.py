"""The clips of a batch: files, folders, patterns, and lists as JSONL or Parquet."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from unipixel.session.question_file import read_text
from unipixel.video.live import is_address

CLIP_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif"}


def list_clips(inputs: Iterable[str]) -> list[str]:
    """Return the clips of some inputs in their order, each once, as absolute paths; addresses stay as they are.

    Args:
        inputs: Files, folders of clips or of frames, patterns such as `clips/*.mp4`, and lists: a `.jsonl` whose lines
            are a path or an object with `clip`, or a `.parquet` with a column `clip`. Paths in a list are relative to
            its folder. A clip that does not exist is kept, so that it gets a row with its error.

    Raises:
        ValueError: An input is empty, a pattern matches nothing, or a list contains something else.
        OSError: A list cannot be read.
        ImportError: A Parquet list is given without pyarrow.
    """
    return list(dict.fromkeys(_absolute(clip) for name in inputs for clip in _expand(name)))


def clips_of_folder(folder: Path) -> list[Path]:
    """Return the clips in a folder; none for a file or a folder of frames."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in CLIP_SUFFIXES and file.is_file())


def _absolute(clip: str) -> str:
    return clip if is_address(clip) else os.path.abspath(clip)


def _expand(name: str) -> Iterator[str]:
    # An empty path would be the current folder.
    if not name.strip():
        raise ValueError("an INPUT is empty: give a file, a folder, a pattern, or a list as .jsonl or .parquet")
    path = Path(name)
    if is_address(name):
        yield name
    elif path.suffix.lower() in (".jsonl", ".parquet") and not path.is_dir():
        entries = _jsonl_entries(path) if path.suffix.lower() == ".jsonl" else _parquet_entries(path)
        for location, clip in entries:
            if not isinstance(clip, str) or not clip.strip():
                raise ValueError(f"{location}: a clip is a path or an object with the text `clip`, got {clip!r:.80}")
            yield clip if is_address(clip) else str(path.parent / clip)
    elif not path.exists() and glob.has_magic(name):
        found = sorted(glob.glob(name, recursive=True))
        if not found:
            raise ValueError(f"{name}: no file matches this pattern")
        yield from found
    else:
        yield from map(str, clips_of_folder(path) or [path])


def _jsonl_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the location and the clip of each line that is not blank."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: it is not valid JSON ({error})") from error
        yield f"{path}, line {number}", entry.get("clip") if isinstance(entry, dict) else entry


def _parquet_entries(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"{path}: Parquet needs pyarrow: install the extra `batch`, or give a .jsonl") from error
    try:
        with parquet.ParquetFile(path) as file:
            if "clip" not in file.schema_arrow.names:
                raise ValueError(f"{path}: no column `clip`; there are {file.schema_arrow.names!r:.200}")
            for rows in file.iter_batches(columns=["clip"]):
                yield from ((str(path), clip) for clip in rows.column(0).to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file ({error})") from error
