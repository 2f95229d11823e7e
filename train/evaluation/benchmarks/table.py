"""The table of benchmarks."""

from __future__ import annotations

from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
from unipixel.train.evaluation.benchmarks.video_rows import VIDEO_ROWS

ROWS: tuple[Benchmark, ...] = (*VIDEO_ROWS,)
BENCHMARKS: dict[str, Benchmark] = {row.name: row for row in ROWS}
"""All benchmarks by name."""


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        ValueError: There is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}: known are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
