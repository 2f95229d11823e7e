"""`unipixel eval world`: the figures of a model in the drawn world."""

from __future__ import annotations

import argparse
import json
from typing import Any

BUNDLED_MODEL = "unipixel-nano"


def add_parser(subparsers: Any) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser("eval", help="measure a model", description="Measure a model on a benchmark.")
    parser.add_argument("benchmark", choices=("world",), help="world: clips of the drawn world, made on the spot")
    parser.add_argument("--model", default=BUNDLED_MODEL, help="bundled name, folder or hub id (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (default: %(default)s)")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other clips (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=90, metavar="M", help="samples over all tasks (default: 90)")
    parser.add_argument(
        "--tasks", metavar="NAMES", help="some of the tasks, with commas, such as track,segment/motion (default: all)"
    )
    parser.add_argument("--frames", type=int, metavar="N", default=0, help="frames of a clip, 0 for all (default)")
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
        help="follow objects, but tell the language model nothing of them: what a question gets without injection",
    )
    parser.add_argument(
        "--pooling",
        choices=("raster", "window"),
        help="order in which memory is pooled; another than the checkpoint's own measures the mismatch",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.train.evaluation.synthetic import TASKS, evaluate

    model = UniPixel.from_pretrained(args.model, device=args.device, memory_pool_order=args.pooling)
    report = evaluate(
        model,
        Processor.from_pretrained(args.model),
        split=args.split,
        seed=args.seed,
        limit=args.limit,
        tasks=args.tasks.split(",") if args.tasks is not None else TASKS,
        num_frames=args.frames or None,
        render_size=args.render_size or None,
        anchor=args.anchor,
        prefill=args.prefill,
        has_memory=not args.no_memory,
    )
    if args.json:
        print(json.dumps(report))
        return 0
    for task in ("track", "segment", "pixelqa"):
        for kind, figures in report[task].items():
            shown = "  ".join(f"{name} {value}" for name, value in figures.items())
            print(f"{task:8} {kind:14} {shown}")
    for name in ("no_target", "follow_up", "prefill", "exchange", "baselines", "settings", "num_samples"):
        print(f"{name}: {json.dumps(report[name])}")
    return 0
