"""`unipixel train RECIPE.toml [key=value ...]`."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        "train",
        help="train or fine-tune a model from a recipe",
        description="Train from a recipe. A run whose folder holds a checkpoint goes on from there. "
        "Run it under torchrun or accelerate launch for several devices.",
    )
    parser.add_argument("recipe", help="path of a TOML file, or a bundled one such as nano/stage1")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to replace, as loop.max_steps=10")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from pathlib import Path

    from unipixel.train import trainer
    from unipixel.train.build import prepare
    from unipixel.train.nano.pretraining import pretrain
    from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
    from unipixel.train.recipe_files import load_any_recipe

    recipe = load_any_recipe(args.recipe, args.overrides)
    if isinstance(recipe, PretrainingRecipe):
        print(f"wrote {pretrain(recipe)}")
        return 0
    job = prepare(recipe)
    finished = trainer.run(recipe, job.objective, job.dataset, job.collate, validate=job.validate)
    if finished.is_world_process_zero():
        folder = Path(recipe.output) / "final"
        job.save(folder)
        print(f"wrote {folder}")
    return 0
