"""`unipixel score`: J, F and J&F of predicted masks, as defined by DAVIS."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel score`."""
    parser = subparsers.add_parser(
        "score",
        help="J, F and J&F of predicted masks, as defined by DAVIS",
        description="Compare folders SEQUENCE/00000.png of masks. Pixel values are object ids; a frame "
        "without a prediction scores 0.",
    )
    parser.add_argument("predicted", type=Path, metavar="PREDICTED", help="folder of predicted sequences")
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="folder of true sequences")
    parser.add_argument("--binary", action="store_true", help="all non-zero pixels are one object (off)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table (off)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare two folders and print the scores.

    Raises:
        ValueError: A mask has a wrong size, or a ground truth contains no object.
        OSError: A folder or file cannot be read.
    """
    from unipixel.train.evaluation.scoring.label_folders import score_folders

    scores = score_folders(arguments.predicted, arguments.truth, binary=arguments.binary)
    if arguments.json:
        print(json.dumps(scores, indent=2))
    else:
        print_table(scores)
    for name, files in scores["missing"].items():
        print(
            f"unipixel: {name}: {len(files)} frame(s) without a prediction, scored 0: {_shorten(files)}",
            file=sys.stderr,
        )
    return 0


def print_table(scores: dict[str, Any]) -> None:
    """Print percentages: a line per sequence, and the mean."""
    rows = [*scores["sequences"].items(), ("mean", scores["mean"])]
    width = max(len(name) for name, _ in rows)
    print(f"{'':{width}}    J&F      J      F")
    for name, row in rows:
        print(f"{name:{width}}  {100 * row['J&F']:5.1f}  {100 * row['J']:5.1f}  {100 * row['F']:5.1f}")


def _shorten(files: list[str]) -> str:
    return ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
