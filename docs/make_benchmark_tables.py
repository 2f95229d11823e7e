"""Writes the section of `docs/evaluation.md` about each benchmark, from the table that `unipixel eval` uses.

python docs/make_benchmark_tables.py
"""

from __future__ import annotations

from pathlib import Path

from unipixel.train.evaluation.benchmarks.benchmark import Benchmark, BenchmarkSplit
from unipixel.train.evaluation.benchmarks.table import ROWS

PAGE = Path(__file__).with_name("evaluation.md")
BEGIN, END = "<!-- begin of the generated section -->", "<!-- end of the generated section -->"


def section() -> str:
    """Return the section as Markdown."""
    return "\n".join(_describe(benchmark) for benchmark in ROWS)


def page_with_section(page: str) -> str:
    """Return the page with its generated section replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section()}\n{END}{after}"


def _describe(benchmark: Benchmark) -> str:
    variants = [f"`{name}`" for name in benchmark.variants if name]
    lines = [
        f"### {benchmark.title} (`{benchmark.name}`)",
        "",
        f"- Metric: {benchmark.metric}. The paper prints `{benchmark.main_figure}` first.",
        f"- Data: {benchmark.source}. Licence: {benchmark.licence}.",
    ]
    if variants:
        lines.append(f"- Variants (`--variant`): {', '.join(variants)}; the first is the default.")
    if benchmark.differences:
        lines.append(f"- `paper` and `honest`: {benchmark.differences}")
    lines += ["", "```", *_trees(benchmark), "```", ""]
    lines += _published(benchmark)
    return "\n".join(lines)


def _trees(benchmark: Benchmark) -> list[str]:
    lines: list[str] = []
    for split in benchmark.splits:
        truth = "" if split.has_truth else "   (truth on a server)"
        lines += [f"unipixel eval {benchmark.name} --split {split.name} --data DIR ...{truth}"]
        lines += [f"    DIR/{path}" for path in split.tree]
    return lines


def _published(benchmark: Benchmark) -> list[str]:
    lines = []
    for split in benchmark.splits:
        lines += [f"| {cell} |" for cell in _rows_of(benchmark, split)]
    if not lines:
        return []
    unit = "per cent" if benchmark.unit == "fraction" else "marks from 0 to 5"
    return [f"Published ({unit}):", "", "| split | model | figures | source |", "|---|---|---|---|", *lines, ""]


def _rows_of(benchmark: Benchmark, split: BenchmarkSplit) -> list[str]:
    factor = 100 if benchmark.unit == "fraction" else 1
    figures: dict[tuple[str, str], list[str]] = {}
    for own in split.published:
        figures.setdefault((own.model, own.source), []).append(f"{own.figure} {round(factor * own.value, 2):g}")
    return [f"{split.name} | {model} | {', '.join(values)} | {source}" for (model, source), values in figures.items()]


if __name__ == "__main__":
    PAGE.write_text(page_with_section(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
