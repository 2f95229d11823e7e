"""Reading annotation files, with messages that show what was expected and what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample

_MAX_SHOWN = 8
_MAX_CHECKED = 32


def read_split(benchmark: Benchmark, data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
    """Read the samples of a split and check that their names are unique.

    Raises:
        OSError: A file is missing; the message shows the expected tree and what the folder contains.
        ValueError: An annotation has another form, a sample occurs twice, or there is no sample.
    """
    try:
        samples = benchmark.read(data_dir, split=split, variant=variant)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(error.filename or error, benchmark, data_dir, split=split) from error
    names: set[str] = set()
    for sample in samples:
        if sample.name in names:
            raise ValueError(f"{data_dir}: sample {sample.name!r} of {benchmark.name} {split} occurs twice")
        names.add(sample.name)
    if not samples:
        raise ValueError(f"{data_dir}: {benchmark.name} {split} has no sample there")
    return samples


def check_media(benchmark: Benchmark, samples: Sequence[BenchmarkSample], data_dir: Path, *, split: str) -> None:
    """Check, before a model is asked, that the folder has frames; a single missing clip is found when it is asked.

    Raises:
        FileNotFoundError: None of some samples over the split has its first frame.
    """
    first_frames = [sample.media.paths[0] for sample in samples if sample.problem is None and sample.media.paths]
    checked = first_frames[:: max(len(first_frames) // _MAX_CHECKED, 1)]
    if checked and not any(path.exists() for path in checked):
        raise _missing(checked[0], benchmark, data_dir, split=split)


def _missing(found: object, benchmark: Benchmark, data_dir: Path, *, split: str) -> FileNotFoundError:
    tree = ", ".join(benchmark.split(split).tree)
    return FileNotFoundError(
        f"{found}: no such file or folder; {benchmark.name} {split} expects under {data_dir}: {tree}; "
        f"found there: {_content(data_dir)}"
    )


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON.
    """
    with path.open("rb") as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a JSON file ({error})") from error


def field_of(entry: Any, name: str, kind: type | tuple[type, ...], *, location: str) -> Any:
    """Return a field of an annotation.

    Args:
        entry: The annotation.
        name: Name of the field.
        kind: Its type.
        location: File and entry, for error messages.

    Raises:
        ValueError: The entry is not an object, or the field is missing or of another type.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"{location}: expected an object, got {entry!r:.80}")
    if name not in entry:
        raise ValueError(f"{location}: the field `{name}` is missing; there are {', '.join(map(str, entry)) or 'none'}")
    value = entry[name]
    if not isinstance(value, kind):
        kinds = " or ".join(item.__name__ for item in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{location}: the field `{name}` must be {kinds}, got {value!r:.80}")
    return value


def first_existing(*paths: Path) -> Path:
    """Return the first path that exists.

    Raises:
        FileNotFoundError: None does; the first is named.
    """
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(2, "no such file or folder", str(paths[0]))


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "no folder"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return (", ".join(names[:_MAX_SHOWN]) or "nothing") + more
