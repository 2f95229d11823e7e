"""Runs a model on benchmarks: loads it once, continues their folders, shows progress."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._evaluation.evaluation_targets import EvaluationTarget
from unipixel.commands._evaluation.run_display import RunDisplay
from unipixel.commands._options import choose_device

if TYPE_CHECKING:
    from unipixel.session.settings import SessionSettings
    from unipixel.train.evaluation.running.predictions import PredictionFile
    from unipixel.train.evaluation.running.run_folder import RunFolder
    from unipixel.train.evaluation.running.shards import Shard

# Encoded frames of a clip that its expressions share: about 200 of the published models.
_MAX_FEATURE_BYTES = 2**31


def run_targets(
    targets: Sequence[EvaluationTarget], arguments: argparse.Namespace
) -> Iterator[tuple[EvaluationTarget, RunFolder, PredictionFile]]:
    """Run each benchmark with one loaded model, and yield its folder and predictions.

    A process that shares the samples with others yields nothing, unless it is the last to finish.

    Raises:
        ValueError: An option is missing, or a folder belongs to another run.
        OSError: A folder cannot be written, or the model cannot be read.
        SampleFailedError: A sample failed and `--strict` is given.
    """
    from unipixel.train.evaluation.benchmarks.annotation_files import check_media
    from unipixel.train.evaluation.running.run_folder import RunFolder
    from unipixel.train.evaluation.running.runner import RunSettings, run_benchmark
    from unipixel.train.evaluation.running.shards import Shard

    if arguments.model is None or arguments.out is None:
        raise ValueError("give --model and --out to run a model, or --predictions to score")
    for target in targets:
        check_media(target.benchmark, target.samples, target.data_dir, split=target.split)
    shard = Shard.of_environment(os.environ)
    session = _session_settings(arguments)
    load_model = _model_loader(arguments, shard)
    folders = [
        RunFolder(
            arguments.out / target.folder_name if len(targets) > 1 else arguments.out,
            _description(target, arguments, session),
        )
        for target in targets
    ]
    for target, folder in zip(targets, folders, strict=True):
        settings = RunSettings(
            variant=target.variant,
            session=session,
            decoder=arguments.decoder or "auto",
            is_strict=bool(arguments.strict),
            is_retried=bool(arguments.retry_failed),
            has_published_wording=arguments.wording != "session",
        )
        with RunDisplay(f"{target.benchmark.name} {target.split}", shard) as display:
            run_benchmark(
                target.benchmark,
                target.samples,
                folder=folder,
                shard=shard,
                load_model=load_model,
                settings=settings,
                report=display.show,
            )
        predictions = folder.merge([sample.name for sample in target.samples])
        if predictions is None:
            print(f"unipixel: process {shard.index} of {shard.count} has finished its samples", file=sys.stderr)
            continue
        yield target, folder, predictions


def _session_settings(arguments: argparse.Namespace) -> SessionSettings:
    from unipixel.model.generation import GenerationSettings
    from unipixel.session.settings import SessionSettings

    return SessionSettings(
        num_frames=arguments.language_frames,
        anchor=arguments.anchor or "auto",
        prefill=arguments.prefill or "model",
        is_postprocessed=bool(arguments.postprocess),
        max_feature_bytes=_MAX_FEATURE_BYTES,
        generation=GenerationSettings(max_new_tokens=arguments.max_new_tokens or 512),
    )


def _model_loader(arguments: argparse.Namespace, shard: Shard) -> Callable[[], tuple[Any, Any]]:
    """Return a function that loads the model when it is first called."""

    @cache
    def load() -> tuple[Any, Any]:
        import torch

        from unipixel.checkpoints.architecture import load_checkpoint

        device = choose_device(arguments.device or "auto")
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", shard.local_index)
        name = arguments.dtype or "auto"
        dtype: Any = name if name == "auto" else getattr(torch, name)
        return load_checkpoint(arguments.model, dtype=dtype, device=device)

    return load


def _description(target: EvaluationTarget, arguments: argparse.Namespace, session: SessionSettings) -> dict[str, Any]:
    """Return what must be equal for a run to be continued."""
    model = Path(arguments.model)
    return {
        "benchmark": target.benchmark.name,
        "split": target.split,
        "variant": target.variant,
        "model": str(model.resolve()) if model.exists() else str(arguments.model),
        "dtype": arguments.dtype or "auto",
        "language_frames": session.num_frames,
        "anchor": session.anchor,
        "prefill": session.prefill,
        "postprocess": session.is_postprocessed,
        "max_new_tokens": session.generation.max_new_tokens,
        "wording": arguments.wording or "published",
    }
