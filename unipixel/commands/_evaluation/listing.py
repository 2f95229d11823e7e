"""`unipixel eval list`, and the listing of the samples of a split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.benchmark import Benchmark, BenchmarkSplit
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample


def print_benchmarks(*, as_json: bool) -> int:
    """Print every benchmark: splits, metric, published figures, source and licence of the data."""
    from unipixel.train.evaluation.benchmarks.table import BENCHMARKS

    rows = [_describe(benchmark) for benchmark in BENCHMARKS.values()]
    if as_json:
        print(json.dumps({"benchmarks": rows}, ensure_ascii=False))
        return 0
    for benchmark, row in zip(BENCHMARKS.values(), rows, strict=True):
        variants = f" (variants: {', '.join(row['variants'])})" if row["variants"] else ""
        print(f"{benchmark.name}: {benchmark.title}{variants}")
        print(f"  metric     {benchmark.metric}")
        print(f"  data       {benchmark.source}")
        print(f"  licence    {benchmark.licence}")
        for split in benchmark.splits:
            print(f"  {split.name:10} {'' if split.has_truth else '(truth on a server) '}{', '.join(split.tree)}")
            for line in _shown_figures(benchmark, split):
                print(f"  {'':10} {line}")
        print()
    return 0


def _describe(benchmark: Benchmark) -> dict[str, Any]:
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "metric": benchmark.metric,
        "main_figure": benchmark.main_figure,
        "unit": benchmark.unit,
        "variants": [variant for variant in benchmark.variants if variant],
        "source": benchmark.source,
        "licence": benchmark.licence,
        "differences": benchmark.differences,
        "splits": [asdict(split) for split in benchmark.splits],
    }


def _shown_figures(benchmark: Benchmark, split: BenchmarkSplit) -> Iterator[str]:
    """Yield a line for each model and source."""
    factor = 100 if benchmark.unit == "fraction" else 1
    by_model: dict[str, list[str]] = {}
    for figure in split.published:
        value = f"{figure.figure} {round(factor * figure.value, 2):g}"
        by_model.setdefault(f"{figure.model} ({figure.source})", []).append(value)
    return (f"{model}: {', '.join(values)}" for model, values in by_model.items())


def print_samples(samples: Sequence[BenchmarkSample], *, as_json: bool) -> None:
    """Print the samples of a split; those that cannot be asked are listed apart, with the reason."""
    listed = [sample.listing() for sample in samples if sample.problem is None]
    missing = [{"sample": sample.name, "reason": sample.problem} for sample in samples if sample.problem is not None]
    if as_json:
        content = {"samples": listed, **({"missing": missing} if missing else {})}
        print(json.dumps(content, ensure_ascii=False))
        return
    for row in listed:
        print(f"{row['sample']}: {row['question']} ({len(row['frames'])} frame(s))")
    for row in missing:
        print(f"{row['sample']}: cannot be asked: {row['reason']}")
