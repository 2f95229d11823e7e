"""`unipixel segment`: find what a text means."""

from __future__ import annotations

import argparse
from typing import Any

from unipixel.commands._options import add_question_parser


def add_parser(subparsers: Any) -> None:
    """Describe the arguments of `unipixel segment`."""
    parser = add_question_parser(
        subparsers,
        "segment",
        summary="find what words mean; get its mask in every frame",
        description="Segment what a text means: a noun phrase, or a question.",
        metavar="QUERY",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer, write the results and print the answer.

    Raises:
        ValueError: Bad input.
        OSError: The video, the model or the output folder cannot be used.
    """
    from unipixel.commands._ask_jobs import run_jobs

    return run_jobs(arguments, lambda session, question: session.segment(question))
