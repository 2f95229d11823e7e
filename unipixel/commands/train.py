"""`unipixel train` and `unipixel check`: train a model from a recipe, and check a data set for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_INVALID_DATA = 1


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel train` and `unipixel check`."""
    parser = subparsers.add_parser(
        "train",
        help="train or fine-tune a model from a recipe",
        description="Train from a recipe. A run whose output folder contains a checkpoint is resumed. "
        "Use torchrun or accelerate launch for several devices. Bundled recipes: " + ", ".join(_bundled_recipes()),
    )
    parser.add_argument("recipe", help="path of a TOML file, or a bundled recipe such as nano/finetune")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings to replace, such as training.max_steps=10"
    )
    parser.set_defaults(run=run_train)
    parser = subparsers.add_parser(
        "check",
        help="check a data set for fine-tuning",
        description="Read every sample of a data set with its media and masks, and list what is invalid.",
    )
    parser.add_argument("data", help="JSONL file; its format is described in docs/training.md")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="frames per clip that are read (default: 8)")
    parser.set_defaults(run=run_check)


def _bundled_recipes() -> list[str]:
    """Return the names of the recipes, without the libraries that reading them needs."""
    folder = Path(__file__).parents[1] / "train" / "recipes"
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in folder.glob("*/*.toml"))
    return sorted(name for name in names if not name.endswith("/sizes"))


def run_train(arguments: argparse.Namespace) -> int:
    """Train, and write the model.

    Raises:
        ValueError: The recipe or an override is invalid.
        OSError: A file cannot be read or written.
        ImportError: The extra `train` is not installed.
    """
    from unipixel.train.recipe_files import load_any_recipe

    recipe = load_any_recipe(arguments.recipe, arguments.overrides)
    # Imported after the recipe was read, because torch and transformers take seconds.
    from unipixel.train import trainer
    from unipixel.train.build import prepare
    from unipixel.train.nano.dense_training import train_dense
    from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
    from unipixel.train.nano.segmenter.segmenter_recipe import SegmenterRecipe
    from unipixel.train.sail.sail_recipe import SailRecipe
    from unipixel.train.sail.sail_run import prepare_sail

    if isinstance(recipe, PretrainingRecipe | SegmenterRecipe):
        print(f"wrote {train_dense(recipe)}")
        return 0
    job = prepare_sail(recipe) if isinstance(recipe, SailRecipe) else prepare(recipe)
    finished = trainer.run(recipe, job.objective, job.dataset, job.collate, validate=job.validate)
    if finished.is_world_process_zero():
        folder = Path(recipe.output) / "final"
        job.save(folder)
        print(f"wrote {folder}")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Check a data set, print a line per problem, and return 1 if there are any.

    Raises:
        OSError: The file cannot be read.
        ImportError: The extra `train` is not installed.
    """
    from unipixel.train.datasets.jsonl import JsonlDataset

    data = JsonlDataset.read(arguments.data, num_frames=arguments.frames)
    problems = list(data.problems())
    for problem in problems:
        print(f"{problem.name}: {problem.reason}")
    print(f"{len(data.lines)} samples, {len(problems)} invalid")
    return _INVALID_DATA if problems else 0
