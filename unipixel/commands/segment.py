"""`unipixel segment`: find what a text means."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unipixel.commands._options import add_language_options, add_model_options, add_output_options
from unipixel.commands._prompts import add_prompt_options


def add_parser(subparsers: Any) -> None:
    """Describe the arguments of `unipixel segment`."""
    parser = subparsers.add_parser(
        "segment",
        help="find what words mean; get its mask in every frame",
        description="Segment what a text means: a noun phrase, or a question.",
    )
    parser.add_argument("video", metavar="VIDEO", nargs="?", help="file, image, folder of frames, or folder of clips")
    parser.add_argument("question", metavar="QUERY", nargs="?")
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="JSONL: id, clip, question, points, boxes, masks"
    )
    add_prompt_options(parser)
    add_language_options(parser)
    add_model_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer, write the results and print the answer.

    Raises:
        ValueError: Bad input.
        OSError: The video, the model or the output folder cannot be used.
    """
    from unipixel.commands._asking import run_jobs

    return run_jobs(arguments, lambda session, question: session.segment(question))
