"""Published training sets as a source of samples for the trainer."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.published.definitions import SetDefinition, find_set
from unipixel.train.datasets.published.entry_index import EntryIndex, build_index
from unipixel.train.datasets.published.entry_samples import EntrySampler
from unipixel.train.datasets.samples import Sample

# A task is the name of a set, with one of these after a colon where its samples need different modules of the model:
# all processes of a run take the same task at the same time, because gradients are averaged module by module.
TEXT = "text"
PROMPT_KINDS = ("point", "box")


@dataclass(frozen=True)
class PublishedSets:
    """Some published sets below one folder.

    Attributes:
        root: Folder of all data sets.
        indices: Entries of each set by name.
        num_frames: Most frames of a clip.
        max_turns: Most expressions of one image that become turns.
        seed: Seed of the order and of all choices.
    """

    root: Path
    indices: Mapping[str, EntryIndex]
    num_frames: int = 8
    max_turns: int = 1
    seed: int = 0

    @classmethod
    def open(
        cls,
        names: Sequence[str],
        root: str | Path,
        *,
        cache: str | Path | None = None,
        num_frames: int = 8,
        max_turns: int = 1,
        seed: int = 0,
    ) -> PublishedSets:
        """Read the annotations of some sets, or find them in the cache.

        Args:
            names: Names of the sets.
            root: Folder of all data sets.
            cache: Folder of the index of each set; None is that of `default_cache`.
            num_frames: Most frames of a clip.
            max_turns: Most expressions of one image that become turns.
            seed: Seed of the order and of all choices.

        Raises:
            OSError: A file is missing or cannot be read; the message says what is there and which command shows more.
            ValueError: A name is unknown, or annotations have another form.
        """
        indices = {name: _open_for_training(name, Path(root), cache) for name in names}
        return cls(Path(root), indices, num_frames, max_turns, seed)

    def tasks(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return the weight of each task, given those of the sets.

        Entries without a clip are the task `NAME:text`, and samples with prompts the tasks `NAME:point` and `NAME:box`.
        """
        tasks: dict[str, float] = {}
        for name, weight in weights.items():
            index = self.indices[name]
            fraction = len(index.numbers(has_media=False)) / len(index)
            if index[0].task in ("refer", "prefill"):
                tasks |= {f"{name}:{kind}": weight / len(PROMPT_KINDS) for kind in PROMPT_KINDS}
            elif fraction < 1:
                tasks[name] = weight * (1 - fraction)
            if fraction > 0:
                tasks[f"{name}:{TEXT}"] = weight * fraction
        return tasks

    def draw(self, task: str, number: int) -> Sample:
        """Return sample `number` of a task; each epoch has a different order.

        Args:
            task: One of `tasks`.
            number: From 0 and unlimited.

        Raises:
            OSError: A file is missing or cannot be decoded.
            ValueError: There is no such task, or the entry is damaged.
        """
        name, _, variant = task.partition(":")
        if name not in self.indices or variant not in ("", TEXT, *PROMPT_KINDS):
            raise ValueError(f"there is no task {task!r}: the opened sets are {list(self.indices)}")
        index = self.indices[name]
        numbers = index.numbers(has_media=variant != TEXT)
        if not len(numbers):
            raise ValueError(f"{name} has no entries for the task {task!r}")
        epoch, position = divmod(number, len(numbers))
        chosen = int(numbers[_order(f"{self.seed}/{task}/{epoch}", len(numbers))[position]])
        sampler = EntrySampler(find_set(name), self.root, num_frames=self.num_frames, max_turns=self.max_turns)
        return sampler.draw(
            index[chosen],
            number=number,
            generator=random.Random(f"{self.seed}/{task}/{number}"),
            prompt_kind=variant if variant in PROMPT_KINDS else None,
        )


def open_set(definition: SetDefinition, root: Path, *, cache: str | Path | None = None) -> EntryIndex:
    """Read the annotations of one set, or find them in the cache.

    Args:
        definition: The set.
        root: Folder of all data sets.
        cache: Folder of the index of each set; None is that of `default_cache`.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The annotations have another form.
    """
    return build_index(
        definition.read_groups,
        definition.options,
        root=root,
        cache=Path(cache) if cache is not None else default_cache(),
        name=definition.name,
    )


def _open_for_training(name: str, root: Path, cache: str | Path | None) -> EntryIndex:
    try:
        return open_set(find_set(name), root, cache=cache)
    except OSError as error:
        command = f"unipixel data check {name} --data {root}"
        raise OSError(f"data set {name}: {error}; `{command}` shows what is expected") from error


def default_cache() -> Path:
    """Return the folder of the indices: `unipixel/annotations` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unipixel" / "annotations"


# The permutations of one epoch of every set; those of a million entries take 4 MB each.
@lru_cache(maxsize=64)
def _order(seed: str, size: int) -> NDArray[np.uint32]:
    generator = np.random.default_rng(list(seed.encode()))
    return generator.permutation(size).astype(np.uint32)
