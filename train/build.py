"""What each stage of a recipe trains, on what, and what it leaves behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from unipixel.processing.processor import Processor
from unipixel.train.checkpoints import save_result, save_segmenter
from unipixel.train.datasets import synthetic_vos as tracks
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.collate import ExampleCollator, MaskSampling
from unipixel.train.datasets.mixture import ExampleDataset, SampleSource, built
from unipixel.train.datasets.preprocessing import ExampleBuilder
from unipixel.train.datasets.synthetic_vqa import SyntheticVqa
from unipixel.train.initialization import load_segmenter, load_start
from unipixel.train.objective import UniPixelObjective
from unipixel.train.parameter_groups import select_parts
from unipixel.train.recipe import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """A stage ready to run.

    Attributes:
        objective: Module that returns its loss.
        dataset: Samples in the order in which they are taken.
        collate: Makes the objective's arguments of a list of samples.
        save: Writes the result into a folder.
        validate: Given the step, returns figures; None where the stage has none.
    """

    objective: nn.Module
    dataset: Dataset
    collate: Callable[[list[Any]], dict[str, Any]]
    save: Callable[[Path], None]
    validate: Callable[[int], dict[str, float]] | None = None


def prepare(recipe: Recipe) -> TrainingRun:
    """Build what a recipe trains.

    Raises:
        ValueError: The recipe's parts do not fit together.
        OSError: Weights or data cannot be read.
    """
    torch.manual_seed(recipe.seed)
    return _prepare_segmenter(recipe) if recipe.stage == "segmenter" else _prepare_model(recipe)


def _prepare_segmenter(recipe: Recipe) -> TrainingRun:
    """The segmenter's own training on drawn clips."""
    objective = load_segmenter(recipe)
    settings = tracks.SyntheticVosSettings(
        image_size=objective.segmenter.config.image_size,
        num_frames=recipe.data.num_mask_frames,
        render_size=recipe.data.render_size,
        max_objects=recipe.data.max_objects,
        seed=recipe.seed * 1_000_000,
    )
    dataset = tracks.SyntheticVosDataset(_schedule(recipe), settings)
    return TrainingRun(objective, dataset, tracks.collate_tracks, lambda folder: save_segmenter(objective, folder))


def _prepare_model(recipe: Recipe) -> TrainingRun:
    model, processor = load_start(recipe)
    lora = select_parts(model, recipe.stage, recipe.lora)
    if recipe.loop.gradient_checkpointing:
        for part in (model.model.visual, model.model.language_model):
            # The name changes with transformers 5's releases.
            enable = getattr(part, "activation_checkpointing_enable", part.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
    plan = _mask_plan(recipe)
    builder = ExampleBuilder(processor, max_tokens=recipe.data.max_tokens, has_masks=plan is not None)
    return TrainingRun(
        UniPixelObjective(model, weights=recipe.losses),
        ExampleDataset(_schedule(recipe), built(_source(recipe), builder)),
        ExampleCollator(processor, plan),
        lambda folder: save_result(recipe, model, processor, folder, lora=lora),
        _validation(recipe, model, processor),
    )


def _source(recipe: Recipe) -> SampleSource:
    data = recipe.data
    if data.path is not None:
        from unipixel.train.datasets.jsonl import JsonlDataset

        return JsonlDataset.read(data.path, num_frames=data.num_frames, seed=recipe.seed)
    return SyntheticVqa(
        seed=recipe.seed * 1_000_000_000,
        num_frames=data.num_frames,
        render_size=data.render_size,
        max_turns=data.max_turns,
    )


def _mask_plan(recipe: Recipe) -> MaskSampling | None:
    data = recipe.data
    if recipe.stage == "stage1" or not data.num_mask_frames:
        return None
    return MaskSampling(data.num_mask_frames, data.max_objects, data.anchor, data.single_frame_fraction)


def _validation(recipe: Recipe, model: Any, processor: Processor) -> Callable[[int], dict[str, float]] | None:
    if recipe.loop.validate_every is None or recipe.data.path is not None:
        return None
    from unipixel.train.evaluation.prediction_grid import draw_predictions
    from unipixel.train.evaluation.synthetic import evaluate, headline

    def validate(step: int) -> dict[str, float]:
        draw_predictions(model, processor, Path(recipe.output) / "pictures" / f"step-{step}.png")
        # Few frames and small ones, so that training does not wait.
        report = evaluate(
            model, processor, split="val", limit=recipe.loop.num_validation, num_frames=16, render_size=160
        )
        return headline(report)

    return validate


def _schedule(recipe: Recipe) -> TaskBatchSampler:
    loop = recipe.loop
    return TaskBatchSampler(
        recipe.data.tasks,
        num_rounds=loop.max_steps * loop.accumulation,
        batch_size=_round_size(recipe),
        seed=recipe.seed,
    )


def _round_size(recipe: Recipe) -> int:
    """Samples of a micro batch over all processes."""
    return recipe.loop.batch_size * _num_processes()


def _num_processes() -> int:
    """Processes of the run; set by torchrun and accelerate, a run on one device has none."""
    return int(os.environ.get("WORLD_SIZE", "1"))
