"""The table of benchmarks."""

from __future__ import annotations

from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
from unipixel.train.evaluation.benchmarks.image_rows import IMAGE_ROWS
from unipixel.train.evaluation.benchmarks.question_rows import QUESTION_ROWS
from unipixel.train.evaluation.benchmarks.video_rows import VIDEO_ROWS

ROWS: tuple[Benchmark, ...] = (*VIDEO_ROWS, *IMAGE_ROWS, *QUESTION_ROWS)
BENCHMARKS: dict[str, Benchmark] = {row.name: row for row in ROWS}
"""All benchmarks by name."""
