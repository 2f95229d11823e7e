"""The samples of a run by their place in it; what cannot be used is named, never replaced."""

from __future__ import annotations

from typing import Protocol

from torch.utils.data import Dataset

from unipixel.train.collate import BrokenExample
from unipixel.train.datasets.world import Sample
from unipixel.train.examples import Example, ExampleBuilder
from unipixel.train.schedule import GroupSchedule


class SampleSource(Protocol):
    """Where samples come from: the drawn world, or files of the user."""

    def draw(self, group: str, number: int) -> Sample:
        """Return sample `number` of a group, the same at every call.

        Raises:
            ValueError: The sample contradicts itself.
            OSError: Its media cannot be read.
        """
        ...


class ExampleDataset(Dataset):
    """The examples of a run."""

    def __init__(self, schedule: GroupSchedule, source: SampleSource, builder: ExampleBuilder) -> None:
        """Describe a run.

        Args:
            schedule: Order of the groups.
            source: Where samples come from.
            builder: Turns samples into what the model reads.
        """
        self._schedule = schedule
        self._source = source
        self._builder = builder

    def __len__(self) -> int:
        """Samples of the run."""
        return len(self._schedule)

    def __getitem__(self, index: int) -> Example | BrokenExample:
        """Return example `index`, or what is wrong with it."""
        group, number = self._schedule.place(index)
        try:
            return self._builder.build(self._source.draw(group, number), seed=index)
        except (ValueError, KeyError, OSError) as error:
            return BrokenExample(f"{group}/{number}", f"{type(error).__name__}: {error}")
