"""`unipixel chat`: a conversation about a video, with object memory."""

from __future__ import annotations

import argparse
from typing import Any

from unipixel.commands._options import (
    add_language_options,
    add_model_options,
    add_prompt_options,
    add_result_options,
)


def add_parser(subparsers: Any) -> None:
    """Describe the arguments of `unipixel chat`."""
    parser = subparsers.add_parser(
        "chat",
        help="a conversation about a video; reads lines from stdin",
        description="Reads lines from stdin: questions, in which [ID] names an object, and commands such as "
        "/point 1:640,360@12; /help lists them. The results of /save are those of `unipixel ask --out`.",
    )
    parser.add_argument("video", metavar="VIDEO", help="file, image, or folder of frames")
    add_prompt_options(parser)
    add_language_options(parser)
    add_model_options(parser)
    group = parser.add_argument_group("output of /save")
    add_result_options(group)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Talk until /quit or the end of the input.

    Raises:
        ValueError: Bad input on the command line; that in the conversation is answered there.
        OSError: The video or the model cannot be used.
    """
    from unipixel.commands._chat_loop import Chat

    Chat.open(arguments).run()
    return 0
