"""`unipixel synth`: show synthetic samples, or write them as training data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel synth`."""
    parser = subparsers.add_parser(
        "synth",
        help="show or write synthetic samples, as used to train unipixel-nano",
        description="Write an HTML page with animated clips, mask outlines, questions and answers, or a data set "
        "in the format that `unipixel check` and `unipixel train` read.",
    )
    parser.add_argument("--show", type=int, default=12, metavar="N", help="number of samples (default 12)")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="PAGE.html", help="page to write (none)")
    target.add_argument("--data", type=Path, metavar="FOLDER", help="folder of a data set to write (none)")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="%(default)s by default")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--task", help="a single task, such as segment/motion (default: all in turn)")
    parser.add_argument("--style", choices=("shapes", "vos"), default="shapes", help="%(default)s by default")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="shorter side (default: 128 to 640)")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="frames per clip (default 16)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Generate the samples and write the page or the data set.

    Raises:
        ValueError: An argument is out of range, or the task is unknown.
        OSError: The page or folder cannot be written.
        ImportError: The extra `train` is not installed.
    """
    from unipixel.train.datasets.jsonl import write_samples
    from unipixel.train.datasets.synthetic.gallery import gallery_page
    from unipixel.train.datasets.synthetic.sample_generation import TASKS, generate

    if arguments.show < 1 or arguments.frames < 1 or arguments.seed < 0:
        raise ValueError("--show and --frames must be at least 1, --seed at least 0")
    samples = []
    for number in range(arguments.show):
        task = arguments.task
        if task is None and arguments.style == "shapes":
            tasks = TASKS if arguments.data is None else [task for task in TASKS if task != "track"]
            task = tasks[number % len(tasks)]
        samples.append(
            generate(
                arguments.seed + number,
                split=arguments.split,
                task=task,
                render_size=arguments.size,
                num_frames=arguments.frames,
                style=arguments.style,
            )
        )
    if arguments.data is not None:
        print(f"{write_samples(samples, arguments.data)}: {len(samples)} samples")
        return 0
    title = f"Synthetic samples: {arguments.split}, seeds {arguments.seed} to {arguments.seed + arguments.show - 1}"
    arguments.out.write_text(gallery_page(samples, title=title), encoding="utf-8")
    print(f"{arguments.out}: {len(samples)} samples")
    return 0
