"""`unipixel eval synthetic`: metrics of a model on synthetic clips, or of Pixel-SAIL on drawn images."""

from __future__ import annotations

import argparse
import json
from typing import Any

from unipixel.checkpoints.architecture import is_sail_checkpoint
from unipixel.checkpoints.early_checks import check_checkpoint
from unipixel.commands._options import DEFAULT_MODEL

_DEFAULT_LIMIT = 90
_SPLITS = ("test", "val", "train")
# Pixel-SAIL reads single images of fixed sizes, and has neither memory nor tracker.
_CLIP_OPTIONS = ("frames", "render_size", "anchor", "prefill", "no_memory", "pooling")


def evaluate_synthetic(arguments: argparse.Namespace) -> int:
    """Evaluate a model and print its metrics.

    Raises:
        ValueError: An argument is out of range, or not for the model.
        OSError: The model cannot be found, downloaded or read.
        ImportError: The extra `train` is not installed.
    """
    split: Any = arguments.split or _SPLITS[0]
    if split not in _SPLITS:
        raise ValueError(f"synthetic clips have no split {split!r}: allowed are {', '.join(_SPLITS)}")
    name = arguments.model or DEFAULT_MODEL
    check_checkpoint(name)
    limit = _DEFAULT_LIMIT if arguments.limit is None else arguments.limit
    if is_sail_checkpoint(name):
        return _evaluate_images(name, arguments, split=split, limit=limit)
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
        limit=limit,
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


def _evaluate_images(name: str, arguments: argparse.Namespace, *, split: Any, limit: int) -> int:
    """Evaluate a Pixel-SAIL checkpoint on drawn images and print its metrics."""
    if given := [option for option in _CLIP_OPTIONS if getattr(arguments, option) is not None]:
        shown = given[0].replace("_", "-")
        raise ValueError(f"--{shown} is about clips: {name} is a Pixel-SAIL checkpoint, which reads drawn images")
    from unipixel.checkpoints.architecture import load_checkpoint
    from unipixel.train.sail.drawn_turns import SAIL_TASKS
    from unipixel.train.sail.sail_evaluation import evaluate_sail

    tasks = arguments.tasks.split(",") if arguments.tasks is not None else SAIL_TASKS
    if unknown := [task for task in tasks if task not in SAIL_TASKS]:
        raise ValueError(f"Pixel-SAIL has no task {unknown[0]!r}: allowed are {', '.join(SAIL_TASKS)}")
    model, processor = load_checkpoint(name, device=arguments.device or "cpu")
    seed = arguments.seed or 0
    report = evaluate_sail(model, processor, split=split, seed=seed, limit=limit, tasks=tasks)  # type: ignore[arg-type]
    if arguments.json:
        print(json.dumps(report))
        return 0
    for task, figures in report.items():
        if isinstance(figures, dict):
            print(f"{task:14} " + "  ".join(f"{figure} {_shown(value)}" for figure, value in figures.items()))
    print(f"num_samples: {report['num_samples']}")
    return 0


def _shown(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
