"""`unipixel eval report`: one table of finished runs beside published figures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def print_report(arguments: argparse.Namespace) -> int:
    """Print the table, and write it as an HTML page where one is asked for.

    Raises:
        ValueError: No folder is given, or it has no run with scores.
        OSError: A file cannot be read or written.
    """
    from unipixel.train.evaluation.reporting.run_table import json_rows, read_runs, report_page, text_table

    if arguments.path is None:
        raise ValueError("give the folder of the runs: unipixel eval report RUNS")
    rows = read_runs(arguments.path)
    print(json.dumps({"rows": json_rows(rows)}, ensure_ascii=False) if arguments.json else text_table(rows))
    if arguments.html is not None:
        write_page(arguments.html, report_page(rows))
    return 0


def write_page(path: Path, page: str) -> None:
    """Write an HTML page in one step, so that an interrupted command leaves none that is incomplete.

    Raises:
        OSError: It cannot be written.
    """
    from unipixel.train.evaluation.running.predictions import replaced_file

    with replaced_file(path) as file:
        file.write(page.encode("utf-8"))
