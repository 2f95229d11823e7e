"""`unipixel eval`: figures of a model on benchmarks and on synthetic clips."""

from __future__ import annotations

import argparse
from typing import Any

from unipixel.commands._evaluation.argument_groups import add_options, check_options


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel eval`."""
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a model on benchmarks",
        description="Run a model on a benchmark and score it, or score predictions. `unipixel eval list` shows the "
        "benchmarks, and where their data come from.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the action and print its results.

    Raises:
        ValueError: An argument is out of range, or data, predictions or a run folder do not fit.
        OSError: Data, predictions or the model cannot be found or read.
        ImportError: An extra is not installed.
    """
    check_options(arguments)
    if arguments.action == "list":
        from unipixel.commands._evaluation.listing import print_benchmarks

        return print_benchmarks(as_json=bool(arguments.json))
    if arguments.action == "check":
        from unipixel.commands._evaluation.archive_check import check_archive

        return check_archive(arguments)
    if arguments.action == "report":
        from unipixel.commands._evaluation.run_report import print_report

        return print_report(arguments)
    if arguments.action == "synthetic":
        from unipixel.commands._evaluation.synthetic_clips import evaluate_synthetic

        return evaluate_synthetic(arguments)
    from unipixel.commands._evaluation.benchmark_run import evaluate_benchmarks

    return evaluate_benchmarks(arguments)
