"""`unipixel eval synthetic`: metrics of a model on synthetic clips."""

from __future__ import annotations

import argparse
import json
from typing import Any

from unipixel.checkpoints.early_checks import check_checkpoint
from unipixel.commands._options import DEFAULT_MODEL

_DEFAULT_LIMIT = 90
_SPLITS = ("test", "val", "train")


def evaluate_synthetic(arguments: argparse.Namespace) -> int:
    """Evaluate a model and print its metrics.

    Raises:
        ValueError: An argument is out of range.
        OSError: The model cannot be found, downloaded or read.
        ImportError: The extra `train` is not installed.
    """
    split: Any = arguments.split or _SPLITS[0]
    if split not in _SPLITS:
        raise ValueError(f"synthetic clips have no split {split!r}: allowed are {', '.join(_SPLITS)}")
    name = arguments.model or DEFAULT_MODEL
    check_checkpoint(name)
    # Imported after the checks, because torch and transformers take seconds.
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.train.evaluation.synthetic import TASKS, evaluate

    model = UniPixel.from_pretrained(name, device=arguments.device or "cpu", memory_pool_order=arguments.pooling)
    report = evaluate(
        model,
        Processor.from_pretrained(name),
        split=split,
        seed=arguments.seed or 0,
        limit=_DEFAULT_LIMIT if arguments.limit is None else arguments.limit,
        tasks=arguments.tasks.split(",") if arguments.tasks is not None else TASKS,
        num_frames=arguments.frames or None,
        render_size=arguments.render_size or None,
        anchor=arguments.anchor or "auto",
        prefill=arguments.prefill or "model",
        has_memory=not arguments.no_memory,
    )
    if arguments.json:
        print(json.dumps(report))
        return 0
    for task in ("track", "segment", "pixelqa"):
        for kind, figures in report[task].items():
            shown = "  ".join(f"{figure} {value}" for figure, value in figures.items())
            print(f"{task:8} {kind:14} {shown}")
    for figure in ("no_target", "follow_up", "prefill", "exchange", "baselines", "settings", "num_samples"):
        print(f"{figure}: {json.dumps(report[figure])}")
    return 0
