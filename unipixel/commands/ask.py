"""`unipixel ask` and `unipixel segment`: ask about a video and its objects, or segment what a text describes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unipixel.commands._options import (
    add_language_options,
    add_model_options,
    add_output_options,
    add_prompt_options,
)


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel ask` and `unipixel segment`."""
    ask = subparsers.add_parser(
        "ask",
        help="ask about a video; get an answer, and the mask of each object in it",
        description="Ask about a video. Prompts define objects that the question names as [ID].",
    )
    segment = subparsers.add_parser(
        "segment",
        help="segment what a text describes in every frame",
        description="Segment what a text describes: a noun phrase, or a question.",
    )
    for parser, metavar, run in ((ask, "QUESTION", run_ask), (segment, "QUERY", run_segment)):
        parser.add_argument(
            "video", metavar="VIDEO", nargs="?", help="file, image, folder of frames, or folder of clips"
        )
        parser.add_argument("question", metavar=metavar, nargs="?")
        parser.add_argument(
            "--questions", type=Path, metavar="FILE", help="JSONL: id, clip, question, points, boxes, masks (none)"
        )
        add_prompt_options(parser)
        add_language_options(parser)
        add_model_options(parser)
        add_output_options(parser)
        parser.set_defaults(run=run)


def run_ask(arguments: argparse.Namespace) -> int:
    """Answer questions, write the results and print the answers.

    Raises:
        ValueError: Bad input.
        OSError: The video, the model or the output folder cannot be used.
    """
    from unipixel.commands._running.jobs import run_jobs

    return run_jobs(arguments, "ask")


def run_segment(arguments: argparse.Namespace) -> int:
    """Segment what a text describes, write the results and print the answers.

    Raises:
        ValueError: Bad input.
        OSError: The video, the model or the output folder cannot be used.
    """
    from unipixel.commands._running.jobs import run_jobs

    return run_jobs(arguments, "segment")
