"""Preparation of a training run: model, objective, data set and results of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from unipixel.processing.processor import Processor
from unipixel.train.checkpoints import save_result
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.collate import ExampleCollator, MaskSampling
from unipixel.train.datasets.mixture import ExampleDataset, SampleSource, SourceMixture, example_loader
from unipixel.train.datasets.preprocessing import ExampleBuilder
from unipixel.train.datasets.synthetic_vqa import SyntheticVqa
from unipixel.train.initialization import load_initial_model
from unipixel.train.objective import UniPixelObjective
from unipixel.train.parameter_groups import select_parts
from unipixel.train.recipe import Recipe
from unipixel.train.sharding import num_processes


@dataclass(frozen=True)
class TrainingRun:
    """A prepared training run.

    Attributes:
        objective: Module that returns its loss.
        dataset: Samples in the order of training.
        collate: Makes the objective's keyword arguments from a list of samples.
        save: Writes the result into a folder.
        validate: Returns metrics, given the step; None without validation.
    """

    objective: nn.Module
    dataset: Dataset
    collate: Callable[[list[Any]], dict[str, Any]]
    save: Callable[[Path], None]
    validate: Callable[[int], dict[str, float]] | None = None


def prepare(recipe: Recipe) -> TrainingRun:
    """Build the run of a recipe.

    Raises:
        ValueError: The settings of the recipe contradict each other.
        OSError: Weights or data cannot be read.
    """
    if recipe.stage == "finetune" and recipe.data.path is None and recipe.data.root is None:
        raise ValueError(
            "the recipe lacks data.path: give data.path=DATA.jsonl, the data set to train on, in the format of "
            "docs/training.md"
        )
    torch.manual_seed(recipe.seed)
    # Before the model, whose weights take longer to load than a missing file takes to find.
    source, weights = _source(recipe)
    model, processor = load_initial_model(recipe)
    lora = select_parts(model, recipe.stage, recipe.lora)
    if recipe.training.gradient_checkpointing:
        for part in (model.model.visual, model.model.language_model):
            # The method's name differs among the releases of transformers 5.
            enable = getattr(part, "activation_checkpointing_enable", part.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
    mask_sampling = _mask_sampling(recipe)
    builder = ExampleBuilder(processor, max_tokens=recipe.data.max_tokens, has_masks=mask_sampling is not None)
    return TrainingRun(
        UniPixelObjective(model, weights=recipe.losses),
        ExampleDataset(_sampler(recipe, weights), example_loader(source, builder)),
        ExampleCollator(processor, mask_sampling),
        lambda folder: save_result(recipe, model, processor, folder, lora=lora),
        _validation(recipe, model, processor),
    )


def _source(recipe: Recipe) -> tuple[SampleSource, Mapping[str, float]]:
    """Return the source of the samples, and the weights of its tasks."""
    data = recipe.data
    mixture: dict[str, SampleSource] = {}
    weights: dict[str, float] = {}
    if data.path is not None:
        from unipixel.train.datasets.jsonl import JsonlDataset

        lines = JsonlDataset.read(data.path, num_frames=data.num_frames, seed=recipe.seed)
        mixture |= dict.fromkeys(data.tasks, lines)
        weights |= data.tasks
    if data.root is not None:
        from unipixel.train.datasets.published.published_sets import PublishedSets

        used = {name: weight for name, weight in data.sets.items() if weight}
        published = PublishedSets.open(
            list(used),
            data.root,
            cache=data.cache,
            num_frames=data.num_frames,
            max_turns=data.max_turns,
            seed=recipe.seed,
        )
        tasks = published.tasks(used)
        mixture |= dict.fromkeys(tasks, published)
        weights |= tasks
    if mixture:
        return SourceMixture(mixture), weights
    synthetic = SyntheticVqa(
        seed=recipe.seed,
        num_frames=data.num_frames,
        render_size=data.render_size,
        max_turns=data.max_turns,
    )
    return synthetic, data.tasks


def _mask_sampling(recipe: Recipe) -> MaskSampling | None:
    data = recipe.data
    if recipe.stage == "stage1" or not data.num_mask_frames:
        return None
    return MaskSampling(data.num_mask_frames, data.max_objects, data.anchor_frame, data.single_frame_fraction)


def _validation(recipe: Recipe, model: Any, processor: Processor) -> Callable[[int], dict[str, float]] | None:
    if recipe.training.validate_every is None or recipe.data.path is not None or recipe.data.root is not None:
        return None
    from unipixel.train.evaluation.prediction_grid import draw_predictions
    from unipixel.train.evaluation.synthetic import evaluate, summary_metrics

    def validate(step: int) -> dict[str, float]:
        draw_predictions(model, processor, Path(recipe.output) / "predictions" / f"step-{step}.png")
        # Few and small frames, so that validation is short.
        report = evaluate(
            model, processor, split="val", limit=recipe.training.num_validation_samples, num_frames=16, render_size=160
        )
        return summary_metrics(report)

    return validate


def _sampler(recipe: Recipe, weights: Mapping[str, float]) -> TaskBatchSampler:
    settings = recipe.training
    return TaskBatchSampler(
        weights,
        num_batches=settings.max_steps * settings.gradient_accumulation,
        batch_size=settings.batch_size * num_processes(),
        seed=recipe.seed,
    )
