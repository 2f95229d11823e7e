"""The benchmarks that a command line names, with their samples."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unipixel.commands._evaluation.argument_groups import ACTIONS
from unipixel.commands._options import describe_unknown

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample


@dataclass(frozen=True)
class EvaluationTarget:
    """One benchmark of a command line.

    Attributes:
        benchmark: The benchmark.
        split: Name of the split.
        variant: Variant, or an empty text.
        samples: Its samples.
        data_dir: The folder of its data.
    """

    benchmark: Benchmark
    split: str
    variant: str
    samples: Sequence[BenchmarkSample]
    data_dir: Path

    @property
    def folder_name(self) -> str:
        """Name of the folder of a run of several benchmarks."""
        return "-".join(part for part in (self.benchmark.name, self.split, self.variant) if part)


def find(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        ValueError: There is no such benchmark.
    """
    from unipixel.train.evaluation.benchmarks.table import BENCHMARKS

    if name not in BENCHMARKS:
        raise ValueError(describe_unknown("benchmark", name, [*BENCHMARKS, *ACTIONS]))
    return BENCHMARKS[name]


def read_targets(arguments: argparse.Namespace) -> Iterator[EvaluationTarget]:
    """Read the samples of each benchmark of a command line.

    Raises:
        ValueError: A name is unknown, or the data have another form.
        OSError: A file of the data is missing.
    """
    benchmarks = [find(text.partition(":")[0]) for text in arguments.action.split(",")]
    if arguments.data is None:
        raise ValueError("give the folder of the data as --data; `unipixel eval list` shows what it must contain")
    names = arguments.action.split(",")
    if len(names) > 1 and (arguments.split or arguments.variant):
        raise ValueError("--split and --variant take one benchmark; of several, give the split as NAME:SPLIT")
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit must be at least 1, got {arguments.limit}")
    for text, benchmark in zip(names, benchmarks, strict=True):
        split = benchmark.split(text.partition(":")[2] or arguments.split).name
        variant = benchmark.variant(arguments.variant)
        # Several benchmarks share a data folder, or have one each within it.
        folders = [arguments.data / benchmark.name, arguments.data] if len(names) > 1 else [arguments.data]
        samples, folder = _read_first(benchmark, folders, split=split, variant=variant)
        yield EvaluationTarget(benchmark, split, variant, samples[: arguments.limit], folder)


def _read_first(
    benchmark: Benchmark, folders: Sequence[Path], *, split: str, variant: str
) -> tuple[Sequence[BenchmarkSample], Path]:
    """Read the samples from the first folder that has the files of the benchmark; return that folder too."""
    from unipixel.train.evaluation.benchmarks.annotation_files import read_split

    for folder in folders[:-1]:
        try:
            return read_split(benchmark, folder, split=split, variant=variant), folder
        except FileNotFoundError:  # noqa: PERF203 - the next folder may have them
            continue
    return read_split(benchmark, folders[-1], split=split, variant=variant), folders[-1]
