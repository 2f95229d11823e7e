"""`unipixel stream`: track objects through a stream, a line of JSON per frame."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unipixel.commands._options import add_language_options, add_model_options, add_prompt_options


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel stream`."""
    parser = subparsers.add_parser(
        "stream",
        help="track objects through a camera, a network stream or a file; a line of JSON per frame",
        description="Track objects frame by frame and print a line of JSON for each frame: frame_index, "
        "timestamp_seconds and objects. The answer to --ask is a separate line after that of its frame.",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="rtsp or http address, file, folder, camera number, - for a container on stdin"
    )
    parser.add_argument(
        "query",
        metavar="QUERY",
        nargs="?",
        help="text that is segmented on the first frame, and again every --retry seconds until an object is found",
    )
    group = parser.add_argument_group("stream")
    group.add_argument("--every", type=int, default=1, metavar="N", help="process every N-th frame (1)")
    group.add_argument("--max-frames", type=int, metavar="N", help="end after N processed frames (at the end)")
    group.add_argument(
        "--ask", action="append", default=[], metavar="QUESTION", help="ask a question; repeatable (none)"
    )
    group.add_argument(
        "--ask-at",
        type=float,
        action="append",
        default=[],
        metavar="SECONDS",
        help="time of each --ask, in the time of the stream; by default the first frame",
    )
    group.add_argument("--retry", type=float, default=2.0, metavar="SECONDS", help="see QUERY (%(default)s)")
    group.add_argument(
        "--drop",
        default="auto",
        choices=("auto", "always", "never"),
        help="drop frames that arrive while another is processed; auto: those of cameras and live addresses (auto)",
    )
    group.add_argument(
        "--redetect-after", type=int, metavar="N", help="search again for an object after N frames without it (off)"
    )
    add_prompt_options(parser)
    add_language_options(parser, is_live=True)
    add_model_options(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder for the overlay, written while streaming (none)")
    group.add_argument("--overwrite", action="store_true", help="replace the results of an existing folder (off)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Track, print, and write the overlay.

    Returns:
        0, or 2 if a question failed, or a question or prompt was not reached.

    Raises:
        ValueError: Bad input.
        OSError: The source, the model or the output folder cannot be used.
    """
    from unipixel.commands._running.streaming import read_plan, run_plan

    return run_plan(arguments, read_plan(arguments))
