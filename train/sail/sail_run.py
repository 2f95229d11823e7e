"""Preparation of a Pixel-SAIL training run: model, objective, images and results of a recipe."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from unipixel.processing.chat_template import load_tokenizer
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.build import TrainingRun
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.published.published_sets import PublishedSets
from unipixel.train.sail.distillation import FeatureDistillation, open_teachers
from unipixel.train.sail.drawn_images import DrawnImages, DrawnImageSettings
from unipixel.train.sail.published_images import PublishedImages
from unipixel.train.sail.sail_evaluation import evaluate_sail, summarise_sail
from unipixel.train.sail.sail_initialization import (
    build_sail_tokenizer,
    check_sail_sizes,
    configure_sail,
    init_sail,
)
from unipixel.train.sail.sail_objective import SailObjective
from unipixel.train.sail.sail_recipe import SailRecipe
from unipixel.train.sail.sail_samples import SailCollator


def prepare_sail(recipe: SailRecipe) -> TrainingRun:
    """Build the run of a recipe.

    Raises:
        ValueError: The settings of the recipe contradict each other.
        OSError: Weights cannot be read.
    """
    torch.manual_seed(recipe.seed)
    # Before the model, whose weights take longer to load than a missing file takes to find.
    published = _open_published(recipe) if recipe.data.sets else None
    teachers = open_teachers(recipe.distillation)
    model, processor = load_initial_sail(recipe)
    if recipe.training.gradient_checkpointing:
        text: Any = model.single_transformer.model
        # The method's name differs among the releases of transformers 5.
        enable = getattr(text, "activation_checkpointing_enable", text.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    dataset: Dataset = (
        _drawn_images(recipe, processor) if published is None else _published_images(recipe, published, processor)
    )
    objective = SailObjective(
        model,
        weights=recipe.losses,
        num_points=recipe.data.num_points,
        distillation=FeatureDistillation(model, teachers) if teachers else None,
    )
    return TrainingRun(
        objective,
        dataset,
        SailCollator(processor),
        lambda folder: save_sail_result(model, processor, folder),
        _validation(recipe, model, processor),
    )


def _batch_size(recipe: SailRecipe) -> int:
    """Return the samples of a micro batch over all processes."""
    # Set by torchrun and accelerate, which start several processes.
    return recipe.training.batch_size * int(os.environ.get("WORLD_SIZE", "1"))


def _drawn_images(recipe: SailRecipe, processor: SailProcessor) -> DrawnImages:
    data, training = recipe.data, recipe.training
    settings = DrawnImageSettings(data.sizes, data.max_turns, data.tasks)
    num_samples = training.max_steps * training.gradient_accumulation * _batch_size(recipe)
    return DrawnImages(
        processor,
        settings,
        num_samples=num_samples,
        seed=recipe.seed,
        max_tokens=data.max_tokens,
        has_images=bool(recipe.distillation.teachers),
        has_object_words=recipe.losses.object_words > 0,
    )


def _open_published(recipe: SailRecipe) -> PublishedSets:
    data = recipe.data
    if data.root is None:
        raise ValueError("the recipe lacks data.root: give data.root=DIR, the folder of all published data sets")
    used = [name for name, weight in data.sets.items() if weight]
    return PublishedSets.open(used, data.root, cache=data.cache, max_turns=data.max_turns, seed=recipe.seed)


def _published_images(recipe: SailRecipe, published: PublishedSets, processor: SailProcessor) -> PublishedImages:
    training = recipe.training
    sampler = TaskBatchSampler(
        published.tasks({name: weight for name, weight in recipe.data.sets.items() if weight}),
        num_batches=training.max_steps * training.gradient_accumulation,
        batch_size=_batch_size(recipe),
        seed=recipe.seed,
    )
    return PublishedImages(
        processor,
        published,
        sampler,
        seed=recipe.seed,
        max_tokens=recipe.data.max_tokens,
        missing_prompt_rate=recipe.data.missing_prompt_rate,
        has_images=bool(recipe.distillation.teachers),
    )


def load_initial_sail(recipe: SailRecipe) -> tuple[PixelSail, SailProcessor]:
    """Load or initialise the model of a recipe with its processor, on the CPU.

    Raises:
        ValueError: The sizes do not fit together.
        OSError: Weights cannot be read.
    """
    source = recipe.model
    if source.checkpoint is not None:
        model = PixelSail.from_pretrained(source.checkpoint, attention=source.attention, dtype=torch.float32)
        processor = SailProcessor.from_pretrained(source.checkpoint)
        if source.max_side is None:
            return model, processor
        model.config = dataclasses.replace(model.config, max_side=source.max_side)
        return model, SailProcessor(model.config, processor.tokenizer)
    if source.base is not None:
        model = PixelSail.from_base(
            source.base, **source.image_settings(), attention=source.attention, dtype=torch.float32
        )
        return model, SailProcessor.from_base(source.base, model.config)
    sizes = recipe.sizes()
    check_sail_sizes(sizes)
    if source.tokenizer is not None:
        tokenizer = load_tokenizer(Path(source.tokenizer), added_tokens=())
    else:
        tokenizer = build_sail_tokenizer(sizes, seed=recipe.seed)
    config = configure_sail(sizes, tokenizer, image_settings=source.image_settings())
    model = PixelSail(config, attention=source.attention)
    init_sail(model)
    return model, SailProcessor(config, tokenizer)


def save_sail_result(model: PixelSail, processor: SailProcessor, folder: Path) -> None:
    """Write the trained model with its tokenizer.

    Raises:
        OSError: The folder cannot be written.
    """
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _validation(
    recipe: SailRecipe, model: PixelSail, processor: SailProcessor
) -> Callable[[int], dict[str, float]] | None:
    if recipe.training.validate_every is None or not recipe.data.tasks:
        return None

    def validate(step: int) -> dict[str, float]:
        del step
        return summarise_sail(
            evaluate_sail(model, processor, split="val", limit=recipe.training.num_validation_samples)
        )

    return validate
