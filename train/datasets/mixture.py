"""The samples of a run by their place in it; what cannot be used is named, never replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch.utils.data import Dataset

from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.datasets.preprocessing import Example, ExampleBuilder
from unipixel.train.datasets.synthetic import Sample


class SampleSource(Protocol):
    """Where samples come from: the drawn world, or files of the user."""

    def draw(self, group: str, number: int) -> Sample:
        """Return sample `number` of a group, the same at every call.

        Raises:
            ValueError: The sample contradicts itself.
            OSError: Its media cannot be read.
        """
        ...


Draw = Callable[[str, int], Example | InvalidExample]
"""Returns example `number` of a group, the same at every call."""


def built(source: SampleSource, builder: ExampleBuilder) -> Draw:
    """Return the examples of a source; what cannot be used is named."""

    def draw(group: str, number: int) -> Example | InvalidExample:
        try:
            return builder.build(source.draw(group, number), seed=number)
        except (ValueError, KeyError, OSError) as error:
            return InvalidExample(f"{group}/{number}", f"{type(error).__name__}: {error}")

    return draw


class ExampleDataset(Dataset):
    """The examples of a run."""

    def __init__(self, schedule: TaskBatchSampler, draw: Draw) -> None:
        """Describe a run.

        Args:
            schedule: Order of the groups.
            draw: Where examples come from.
        """
        self._schedule = schedule
        self._draw = draw

    def __len__(self) -> int:
        """Samples of the run."""
        return len(self._schedule)

    def __getitem__(self, index: int) -> Example | InvalidExample:
        """Return example `index`, or what is wrong with it."""
        return self._draw(*self._schedule.place(index))
