"""Checks of a published set on disk: which files are missing, and whether entries can be decoded."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unipixel.train.datasets.published.definitions import SetDefinition
from unipixel.train.datasets.published.entries import Entry
from unipixel.train.datasets.published.entry_index import EntryIndex
from unipixel.train.datasets.published.entry_samples import EntrySampler
from unipixel.train.datasets.published.published_sets import open_set
from unipixel.train.datasets.published.source_files import describe_nearest, resolve

_VARYING = re.compile(r"\b(NUMBER|FOLDER|VIDEO|FRAME|IMAGE|CLIP)\b")
_DECODED_FRAMES = 8


@dataclass(frozen=True)
class SetProblem:
    """One thing that is missing or broken.

    Attributes:
        location: The file, or the entry.
        reason: What is wrong, and what is there instead.
    """

    location: str
    reason: str


@dataclass(frozen=True)
class SetReport:
    """Result of a check.

    Attributes:
        definition: The set.
        root: Folder of all data sets.
        index: Its entries; None where the annotations cannot be read.
        problems: Everything that is missing or broken.
    """

    definition: SetDefinition
    root: Path
    index: EntryIndex | None
    problems: tuple[SetProblem, ...]

    def layout(self) -> Iterator[tuple[str, bool]]:
        """Yield each path of the expected layout, and whether there is such a file."""
        for path in self.definition.layout:
            yield path, is_present(self.root, path)


def check_set(
    definition: SetDefinition,
    root: Path,
    *,
    cache: Path | None = None,
    num_decoded: int | None = 20,
    follow: Callable[[int, int], None] = lambda done, total: None,
) -> SetReport:
    """Check that the annotations can be read, that every file they name is there, and that entries can be decoded.

    Args:
        definition: The set.
        root: Folder of all data sets.
        cache: Folder of the indices; None is that of the user.
        num_decoded: Entries, chosen at random, whose frames and masks are decoded; None decodes all.
        follow: Called with the number of entries whose files were looked for, and their total.
    """
    try:
        index = open_set(definition, root, cache=cache)
    except (OSError, ValueError) as error:
        return SetReport(definition, root, None, (SetProblem("annotations", str(error)),))
    problems = list(_missing_files(index, root, follow))
    numbers: Sequence[int] = range(len(index))
    if num_decoded is not None and num_decoded < len(index):
        numbers = sorted(random.Random(0).sample(numbers, num_decoded))
    problems += _damaged_entries(index, definition, root, numbers)
    return SetReport(definition, root, index, tuple(problems))


def is_present(root: Path, path: str) -> bool:
    """Return whether a file of the expected layout is there; names in capitals stand for any."""
    fixed = _VARYING.split(path, maxsplit=1)[0]
    if fixed == path:
        return (root / path).exists()
    folder = root / fixed.rpartition("/")[0]
    pattern = path[len(fixed.rpartition("/")[0]) :].lstrip("/").replace("FOLDER/", "**/")
    return folder.is_dir() and next(folder.glob(_VARYING.sub("*", pattern)), None) is not None


def _missing_files(index: EntryIndex, root: Path, follow: Callable[[int, int], None]) -> Iterator[SetProblem]:
    seen: set[str] = set()
    num_entries = 0
    for group in index.groups():
        num_entries += len(group["entries"])
        for name in _files_of(Entry.from_group({**group, "entries": [{}]}, 0)):
            if name in seen:
                continue
            seen.add(name)
            if (problem := _file_problem(root, name)) is not None:
                yield problem
        follow(num_entries, len(index))


def _file_problem(root: Path, name: str) -> SetProblem | None:
    try:
        path = resolve(root, name)
    except ValueError as error:
        return SetProblem(name, str(error))
    return None if path.is_file() else SetProblem(str(path), f"is missing: {describe_nearest(path)}")


def _files_of(entry: Entry) -> Iterator[str]:
    yield from entry.media.files
    for reference in (entry.objects or {}).values():
        if "file" in reference:
            yield reference["file"]
        yield from reference.get("labels", ())
        if "panoptic" in reference:
            yield reference["panoptic"]


def _damaged_entries(
    index: EntryIndex, definition: SetDefinition, root: Path, numbers: Sequence[int]
) -> Iterator[SetProblem]:
    """Decode entries; files that are missing are reported elsewhere."""
    sampler = EntrySampler(definition, root, num_frames=_DECODED_FRAMES, max_turns=len(definition.class_names()) or 1)
    for number in numbers:
        entry = index[number]
        if any(_file_problem(root, name) is not None for name in _files_of(entry)):
            continue
        try:
            sampler.draw(entry, number=number, generator=random.Random(number))
        except (OSError, ValueError) as error:
            yield SetProblem(f"entry {number} ({entry.name})", str(error))
