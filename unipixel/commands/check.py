"""`unipixel check DATA.jsonl`: reads a data set for fine-tuning and says what is wrong with it."""

from __future__ import annotations

import argparse
from typing import Any

_BROKEN = 1


def add_parser(subparsers: Any) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        "check",
        help="check a data set for fine-tuning",
        description="Read every sample of a data set, its media and masks, and list what is wrong.",
    )
    parser.add_argument("data", help="JSONL file; its format is described in unipixel/train/datasets/own.py")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="frames per clip that are read (default: 8)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print a line per problem, and return 1 where there is one."""
    from unipixel.train.datasets.jsonl import JsonlDataset

    data = JsonlDataset.read(args.data, num_frames=args.frames)
    problems = list(data.problems())
    for problem in problems:
        print(f"{problem.name}: {problem.reason}")
    print(f"{len(data.lines)} samples, {len(problems)} broken")
    return _BROKEN if problems else 0
