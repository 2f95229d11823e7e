"""The runs of the bundled model's two recipes: `nano/segmenter` and `nano/pretrain`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch

from unipixel.train.checkpoints import save_segmenter
from unipixel.train.initialization import load_initial_model, load_segmenter
from unipixel.train.nano.conversation_sampling import ConversationSampler
from unipixel.train.nano.dense_batch import DeviceClips
from unipixel.train.nano.dense_model import DenseModel
from unipixel.train.nano.loop.batch_feeding import make_feed
from unipixel.train.nano.loop.training_loop import TrainingLoop
from unipixel.train.nano.pretraining_objective import PretrainingObjective
from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.nano.segmenter.segmenter_recipe import SegmenterRecipe
from unipixel.train.nano.segmenter.track_batch import DeviceTracks
from unipixel.train.nano.segmenter.track_sampling import TrackSampler


def train_dense(recipe: PretrainingRecipe | SegmenterRecipe) -> Path:
    """Train to the end of a recipe, from the checkpoint in its folder where there is one.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: The recipe's parts do not fit together, or several processes were started.
        RuntimeError: A worker process failed.
        OSError: Files cannot be read or written.
    """
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes > 1:
        raise ValueError(
            f"the stage {recipe.stage} trains in one process, got {num_processes}: start it without torchrun"
        )
    folder = prepare_loop(recipe).run()
    if folder is None:
        raise RuntimeError("the run was stopped before its end")
    return folder


def prepare_loop(recipe: PretrainingRecipe | SegmenterRecipe) -> TrainingLoop:
    """Build a run, from the checkpoint in its folder where there is one.

    Raises:
        ValueError: The recipe's parts do not fit together, or the checkpoint is of another recipe.
        OSError: Weights cannot be read.
    """
    return _prepare_segmenter(recipe) if isinstance(recipe, SegmenterRecipe) else _prepare_pretraining(recipe)


def _prepare_pretraining(recipe: PretrainingRecipe) -> TrainingLoop:
    model, processor = load_initial_model(recipe)
    model.sam2.requires_grad_(False)
    torch.manual_seed(recipe.seed)
    dense = DenseModel(model, has_bfloat16_residual=recipe.training.has_bfloat16_residual)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    sampler = partial(ConversationSampler, processor, recipe.data, seed=recipe.seed)
    return TrainingLoop(
        PretrainingObjective(dense, weights=recipe.losses),
        recipe.training,
        folder=Path(recipe.output),
        seed=recipe.seed,
        make_feed=lambda device, state: make_feed(
            sampler, DeviceClips(device), recipe.data, seed=recipe.seed, device=device, state=state
        ),
        save_result=save,
    )


def _prepare_segmenter(recipe: SegmenterRecipe) -> TrainingLoop:
    torch.manual_seed(recipe.seed)
    objective = load_segmenter(recipe)
    side = objective.segmenter.config.image_size
    sampler = partial(TrackSampler, recipe.data, side=side, seed=recipe.seed)
    return TrainingLoop(
        objective,
        recipe.training,
        folder=Path(recipe.output),
        seed=recipe.seed,
        make_feed=lambda device, state: make_feed(
            sampler, DeviceTracks(device, side=side), recipe.data, seed=recipe.seed, device=device, state=state
        ),
        save_result=lambda folder: save_segmenter(objective, folder),
    )
