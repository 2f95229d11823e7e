"""`unipixel batch`: the same questions about many clips, resumable, with one row per clip and question set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unipixel.commands._options import MAX_FRAMES, add_language_options, add_model_options


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel batch`."""
    parser = subparsers.add_parser(
        "batch",
        help="ask the same questions about many clips; resumable",
        description="Ask about many clips. A run that was stopped continues when the same command is given again.",
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="file, folder, pattern, or list of clips: .jsonl, or .parquet with the extra `batch`",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        required=True,
        help="JSONL of question sets: id, question, points, boxes, masks; each is asked about every clip",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for results.jsonl")
    parser.add_argument("--strict", action="store_true", help="stop at the first clip with an error (off)")
    parser.add_argument(
        "--max-frames", type=int, default=MAX_FRAMES, metavar="N", help="refuse longer videos (%(default)s)"
    )
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="",
        help="run on a Ray cluster, or without ADDRESS on one that is started on this machine (off; extra `ray`)",
    )
    group.add_argument(
        "--cores", type=int, default=4, metavar="N", help="with --ray and no GPU, cores of each worker (%(default)s)"
    )
    add_language_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer the questions about all clips, write the rows and print a summary.

    Raises:
        ValueError: Bad input, results of other options in the folder, or an error of a clip with `--strict`.
        OSError: The questions, a list of clips, the model or the output folder cannot be used.
        ImportError: A library is missing.
    """
    from unipixel.commands._running.batch_run import run_batch

    return run_batch(arguments)
