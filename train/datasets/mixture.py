"""The samples of a run in order; invalid ones are reported, never replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch.utils.data import Dataset

from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.datasets.preprocessing import Example, ExampleBuilder
from unipixel.train.datasets.samples import Sample


class SampleSource(Protocol):
    """A source of samples: synthetic clips, or a data set in files."""

    def draw(self, task: str, number: int) -> Sample:
        """Return sample `number` of a task, the same at every call.

        Raises:
            ValueError: The sample is inconsistent.
            OSError: Its media cannot be read.
        """
        ...


@dataclass(frozen=True)
class SourceMixture:
    """Several sources, of which each draws its own tasks.

    Attributes:
        sources: Source of each task.
    """

    sources: Mapping[str, SampleSource]

    def draw(self, task: str, number: int) -> Sample:
        """Return sample `number` of a task.

        Raises:
            ValueError: There is no such task, or the sample is inconsistent.
            OSError: Its media cannot be read.
        """
        if task not in self.sources:
            raise ValueError(f"there is no task {task!r}: there are {list(self.sources)}")
        return self.sources[task].draw(task, number)


LoadExample = Callable[[str, int], Example | InvalidExample]
"""Returns example `number` of a task, the same at every call."""


def example_loader(source: SampleSource, builder: ExampleBuilder) -> LoadExample:
    """Return a function that loads the examples of a source; for an invalid sample it returns the reason."""

    def load(task: str, number: int) -> Example | InvalidExample:
        try:
            return builder.build(source.draw(task, number), seed=number)
        except (ValueError, KeyError, OSError) as error:
            return InvalidExample(f"{task}/{number}", f"{type(error).__name__}: {error}")

    return load


class ExampleDataset(Dataset):
    """The examples of a run."""

    def __init__(self, sampler: TaskBatchSampler, load: LoadExample) -> None:
        """Describe a run.

        Args:
            sampler: Order of the tasks.
            load: Loads an example.
        """
        self._sampler = sampler
        self._load = load

    def __len__(self) -> int:
        """Samples of the run."""
        return len(self._sampler)

    def __getitem__(self, index: int) -> Example | InvalidExample:
        """Return example `index`, or why it is invalid."""
        example = self._load(*self._sampler.locate(index))
        if isinstance(example, InvalidExample):
            return example
        return replace(example, batch_number=self._sampler.batch_number(index))
