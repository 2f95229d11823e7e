"""Preparation of a Pixel-SAIL training run: model, objective, images and results of a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from unipixel.processing.chat_template import load_tokenizer
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.build import TrainingRun
from unipixel.train.sail.drawn_images import DrawnImages, DrawnImageSettings
from unipixel.train.sail.sail_evaluation import evaluate_sail, summarise_sail
from unipixel.train.sail.sail_initialization import build_sail_tokenizer, configure_sail
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
    model, processor = load_initial_sail(recipe)
    settings = DrawnImageSettings(recipe.data.sizes, recipe.data.max_turns, recipe.data.tasks)
    training = recipe.training
    # Set by torchrun and accelerate, which start several processes.
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    num_samples = training.max_steps * training.gradient_accumulation * training.batch_size * num_processes
    dataset = DrawnImages(
        processor, settings, num_samples=num_samples, seed=recipe.seed, max_tokens=recipe.data.max_tokens
    )
    objective = SailObjective(model, weights=recipe.losses, num_points=recipe.data.num_points)
    return TrainingRun(
        objective,
        dataset,
        SailCollator(processor),
        lambda folder: save_sail_result(model, processor, folder),
        _validation(recipe, model, processor),
    )


def load_initial_sail(recipe: SailRecipe) -> tuple[PixelSail, SailProcessor]:
    """Load or initialise the model of a recipe with its processor, on the CPU.

    Raises:
        ValueError: The sizes do not fit together.
        OSError: Weights cannot be read.
    """
    source = recipe.model
    if source.checkpoint is not None:
        return PixelSail.from_pretrained(source.checkpoint, dtype=torch.float32), SailProcessor.from_pretrained(
            source.checkpoint
        )
    if source.base is not None:
        model = PixelSail.from_base(source.base, dtype=torch.float32)
        return model, SailProcessor.from_base(source.base, model.config)
    sizes = recipe.sizes()
    if source.tokenizer is not None:
        tokenizer = load_tokenizer(Path(source.tokenizer), added_tokens=())
    else:
        tokenizer = build_sail_tokenizer(sizes, seed=recipe.seed)
    config = configure_sail(sizes, tokenizer)
    return PixelSail(config), SailProcessor(config, tokenizer)


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
    if recipe.training.validate_every is None:
        return None

    def validate(step: int) -> dict[str, float]:
        del step
        return summarise_sail(
            evaluate_sail(model, processor, split="val", limit=recipe.training.num_validation_samples)
        )

    return validate
