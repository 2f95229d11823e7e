"""Figures of a benchmark as JSON, and as a table beside published ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
    from unipixel.train.evaluation.scoring.scores import Scores

_MAX_SHOWN = 5


def scores_of(benchmark: Benchmark, split: str, variant: str, protocol: str, scores: Scores) -> dict[str, Any]:
    """Return scores as `--json` prints them: fractions of 1, or marks."""
    return {
        "benchmark": benchmark.name,
        "split": split,
        **({"variant": variant} if variant else {}),
        "protocol": protocol,
        "figures": dict(scores.figures),
        "samples": dict(scores.samples),
        "failed": [{"sample": name, "reason": reason} for name, reason in scores.failed.items()],
        **scores.others,
    }


def print_scores(
    benchmark: Benchmark, split: str, variant: str, scores: Mapping[str, Scores], *, as_json: bool
) -> None:
    """Print scores by protocol: one JSON object for each, or a table with the published figures.

    Args:
        benchmark: The benchmark.
        split: Name of the split.
        variant: Variant, or an empty text.
        scores: Scores by protocol.
        as_json: Whether JSON is printed.
    """
    if as_json:
        for protocol, result in scores.items():
            print(json.dumps(scores_of(benchmark, split, variant, protocol, result), ensure_ascii=False))
        return
    first = next(iter(scores.values()))
    title = " ".join(part for part in (benchmark.title, split, variant) if part)
    unit = "per cent" if benchmark.unit == "fraction" else "marks from 0 to 5"
    print(f"{title}: {len(first.samples)} scored, {len(first.failed)} failed; {unit}")
    _print_table(benchmark, split, scores)
    for name, result in first.others.items():
        if isinstance(result, Mapping) and isinstance(result.get("figures"), Mapping):
            shown = ", ".join(f"{key} {_shown(value, benchmark)}" for key, value in result["figures"].items())
            print(f"{name}: {shown}")
    for name, reason in list(first.failed.items())[:_MAX_SHOWN]:
        print(f"unipixel: sample {name} failed and counts 0: {reason}", file=sys.stderr)
    if len(first.failed) > _MAX_SHOWN:
        print(f"unipixel: {len(first.failed) - _MAX_SHOWN} more failed; --json lists them", file=sys.stderr)


def _print_table(benchmark: Benchmark, split: str, scores: Mapping[str, Scores]) -> None:
    published: dict[str, dict[str, float]] = {}
    for figure in benchmark.split(split).published:
        published.setdefault(f"{figure.model} ({figure.source})", {})[figure.figure] = figure.value
    columns: dict[str, Mapping[str, float]] = {name: result.figures for name, result in scores.items()}
    columns |= published
    names = list(dict.fromkeys(name for result in scores.values() for name in result.figures))
    width = max(map(len, names), default=0)
    keys = [f"[{number}]" for number in range(1, len(published) + 1)]
    heads = [*scores, *keys]
    print(f"{'':{width}}  " + "  ".join(f"{head:>7}" for head in heads))
    for name in names:
        cells = [_shown(column[name], benchmark) if name in column else "" for column in columns.values()]
        print(f"{name:{width}}  " + "  ".join(f"{cell:>7}" for cell in cells))
    for key, name in zip(keys, published, strict=True):
        print(f"{key} {name}")


def _shown(value: float, benchmark: Benchmark) -> str:
    return f"{100 * value:.2f}" if benchmark.unit == "fraction" else f"{value:.3f}"
