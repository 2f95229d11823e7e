"""`unipixel eval synthetic`: metrics of a model on synthetic clips."""

from __future__ import annotations

import argparse
import json
from typing import Any

from unipixel.commands._options import DEFAULT_MODEL


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel eval`."""
    parser = subparsers.add_parser("eval", help="evaluate a model", description="Evaluate a model on a benchmark.")
    parser.add_argument(
        "benchmark", choices=("synthetic",), help="synthetic: clips that are generated during the evaluation"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundled name, folder or hub id (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (default: %(default)s)")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clips (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=90, metavar="M", help="samples over all tasks (default: 90)")
    parser.add_argument(
        "--tasks", metavar="NAMES", help="comma-separated tasks, such as track,segment/motion (default: all)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        metavar="N",
        default=0,
        help="length of the clips in frames, 0 for the full length (default)",
    )
    parser.add_argument(
        "--render-size", type=int, default=0, metavar="PX", help="shorter side, 0 for a random size (default)"
    )
    parser.add_argument(
        "--anchor", choices=("auto", "prompt", "best", "first"), default="auto", help="as in `unipixel ask` (auto)"
    )
    parser.add_argument(
        "--prefill", choices=("model", "model-only", "tracker"), default="model", help="as in `unipixel ask` (model)"
    )
    parser.add_argument(
        "--no-memory",
        action="store_true",
        help="track objects, but do not inject their memory: the answers without memory injection",
    )
    parser.add_argument(
        "--pooling",
        choices=("raster", "window"),
        help="order of memory pooling; by default that of the checkpoint",
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate a model and print its metrics.

    Raises:
        ValueError: An argument is out of range.
        OSError: The model cannot be found, downloaded or read.
        ImportError: The extra `train` is not installed.
    """
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.train.evaluation.synthetic import TASKS, evaluate

    model = UniPixel.from_pretrained(arguments.model, device=arguments.device, memory_pool_order=arguments.pooling)
    report = evaluate(
        model,
        Processor.from_pretrained(arguments.model),
        split=arguments.split,
        seed=arguments.seed,
        limit=arguments.limit,
        tasks=arguments.tasks.split(",") if arguments.tasks is not None else TASKS,
        num_frames=arguments.frames or None,
        render_size=arguments.render_size or None,
        anchor=arguments.anchor,
        prefill=arguments.prefill,
        has_memory=not arguments.no_memory,
    )
    if arguments.json:
        print(json.dumps(report))
        return 0
    for task in ("track", "segment", "pixelqa"):
        for kind, figures in report[task].items():
            shown = "  ".join(f"{name} {value}" for name, value in figures.items())
            print(f"{task:8} {kind:14} {shown}")
    for name in ("no_target", "follow_up", "prefill", "exchange", "baselines", "settings", "num_samples"):
        print(f"{name}: {json.dumps(report[name])}")
    return 0
