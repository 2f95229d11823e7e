"""`unipixel ask`: ask about a video and its objects."""

from __future__ import annotations

import argparse
from typing import Any

from unipixel.commands._options import add_question_parser


def add_parser(subparsers: Any) -> None:
    """Describe the arguments of `unipixel ask`."""
    parser = add_question_parser(
        subparsers,
        "ask",
        summary="ask about a video; get an answer, and the mask of each object in it",
        description="Ask about a video. Prompts name objects that the question mentions as [ID].",
        metavar="QUESTION",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer, write the results and print the answer.

    Raises:
        ValueError: Bad input.
        OSError: The video, the model or the output folder cannot be used.
    """
    from unipixel.commands._ask_jobs import run_jobs

    return run_jobs(arguments, lambda session, question: session.ask(question))
