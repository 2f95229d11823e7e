"""One table of all runs below a folder, beside published figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from unipixel.train.evaluation.benchmarks.benchmark import PublishedFigure
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.reporting.html_page import html_page
from unipixel.train.evaluation.running.run_folder import RUN_FILE, SCORES_FILE

_OWN_MODELS = ("UniPixel-3B", "UniPixel-7B")
_NO_FIGURE = "-"
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class RunRow:
    """One figure of one run.

    Attributes:
        folder: Folder of the run.
        title: Benchmark, split and variant.
        figure: Name of the figure.
        is_main: Whether it is the figure that the paper prints first.
        model: The model of the run.
        num_samples: Scored samples.
        num_failed: Samples that failed, which count 0.
        honest: Its value without the quirks of the published code.
        paper: Its value as the published code computes it; None where that is the same.
        published: Published figures of the same name: those of UniPixel by model, then the best known.
        unit: `fraction`, shown in per cent, or `marks`.
    """

    folder: Path
    title: str
    figure: str
    is_main: bool
    model: str
    num_samples: int
    num_failed: int
    honest: float
    paper: float | None
    published: tuple[PublishedFigure, ...]
    unit: str

    def shown(self, value: float | None) -> str:
        """Return a value as it is printed."""
        if value is None:
            return _NO_FIGURE
        return f"{100 * value:.2f}" if self.unit == "fraction" else f"{value:.3f}"

    def published_of(self, model: str) -> str:
        """Return the published figure of a model as it is printed."""
        return self.shown(next((own.value for own in self.published if own.model == model), None))

    @property
    def best_known(self) -> str:
        """The best figure of other models, with its name."""
        others = [own for own in self.published if own.model not in _OWN_MODELS]
        best = max(others, key=lambda own: own.value, default=None)
        return _NO_FIGURE if best is None else f"{self.shown(best.value)} ({best.model})"


def read_runs(folder: Path) -> list[RunRow]:
    """Read the scores of all runs in a folder and below it.

    Raises:
        OSError: There is no such folder, or a file cannot be read.
        ValueError: No run with scores was found, or a file has another form.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: not a folder; give the folder of a run, or one that contains runs")
    files = sorted(folder.rglob(SCORES_FILE))
    if not files:
        raise ValueError(
            f"{folder} contains no run with scores ({SCORES_FILE}): run `unipixel eval NAME --data DIR --model MODEL "
            f"--out {folder}/NAME` first"
        )
    return [row for file in files for row in _rows_of(file)]


def _rows_of(file: Path) -> Iterable[RunRow]:
    scores, description = _read(file), _read(file.with_name(RUN_FILE))
    protocols = scores.get("protocols")
    if not isinstance(protocols, Mapping) or not protocols:
        raise ValueError(f"{file}: no `protocols`; was it written by `unipixel eval`?")
    own = protocols.get("honest") or next(iter(protocols.values()))
    benchmark = BENCHMARKS.get(str(own.get("benchmark")))
    if benchmark is None:
        raise ValueError(f"{file}: unknown benchmark {own.get('benchmark')!r}: there are {', '.join(BENCHMARKS)}")
    split = benchmark.split(own.get("split"))
    title = " ".join(part for part in (benchmark.title, split.name, own.get("variant", "")) if part)
    paper = protocols.get("paper", {}).get("figures", {})
    names = list(own["figures"])
    # The figure that the paper prints first leads.
    names.sort(key=lambda name: name != benchmark.main_figure)
    for name in names:
        yield RunRow(
            folder=file.parent,
            title=title,
            figure=name,
            is_main=name == benchmark.main_figure,
            model=str(scores.get("model", description.get("model", ""))),
            num_samples=len(own.get("samples", {})),
            num_failed=len(own.get("failed", ())),
            honest=float(own["figures"][name]),
            paper=float(paper[name]) if name in paper else None,
            published=tuple(figure for figure in split.published if figure.figure == name),
            unit=benchmark.unit,
        )


def _read(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{file}: larger than {_MAX_BYTES} bytes")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a JSON object was expected")
    return content


_HEADS = ("benchmark", "figure", "model", "samples", "failed", "honest", "paper", *_OWN_MODELS, "best known")


def _cells(row: RunRow) -> tuple[str, ...]:
    return (
        row.title, row.figure, row.model, str(row.num_samples), str(row.num_failed), row.shown(row.honest),
        row.shown(row.paper), *(row.published_of(model) for model in _OWN_MODELS), row.best_known,
    )  # fmt: skip


def text_table(rows: Sequence[RunRow]) -> str:
    """Return the main figures as a text table."""
    shown = [_HEADS, *(_cells(row) for row in rows if row.is_main)]
    widths = [max(len(cells[column]) for cells in shown) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in shown]
    return "\n".join(line.rstrip() for line in lines)


def json_rows(rows: Sequence[RunRow]) -> list[dict[str, Any]]:
    """Return all figures as values for JSON."""
    return [
        {
            "folder": str(row.folder),
            "benchmark": row.title,
            "figure": row.figure,
            "is_main": row.is_main,
            "model": row.model,
            "num_samples": row.num_samples,
            "num_failed": row.num_failed,
            "honest": row.honest,
            "paper": row.paper,
            "published": [{"model": own.model, "value": own.value, "source": own.source} for own in row.published],
        }
        for row in rows
    ]


def report_page(rows: Sequence[RunRow]) -> str:
    """Return all figures as an HTML page, with the sources of the published ones."""
    head = "".join(f'<th class="{_cell_class(column)}">{escape(name)}</th>' for column, name in enumerate(_HEADS))
    body = "".join(_html_row(row) for row in rows)
    sources = sorted({(own.model, own.source) for row in rows for own in row.published})
    notes = "".join(f"<li>{escape(model)}: {escape(source)}</li>" for model, source in sources)
    return html_page(
        "Evaluation report",
        "<h1>Evaluation report</h1>"
        '<p class="soft">Per cent, or marks where a benchmark gives marks. Failed samples count 0. Published figures '
        "have other training data and protocols.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"<h2>Sources</h2><ul>{notes}</ul>",
    )


def _html_row(row: RunRow) -> str:
    cells = []
    for column, cell in enumerate(_cells(row)):
        text = f"<strong>{escape(cell)}</strong>" if row.is_main and column < 2 else escape(cell)
        cells.append(f'<td class="{_cell_class(column)}">{text}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _cell_class(column: int) -> str:
    return "number" if column >= 3 else ""
