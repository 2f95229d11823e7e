"""A checkpoint of a few thousand parameters and recipes that train it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from helpers.byte_model import byte_config
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import load_tokenizer
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.processor import Processor
from unipixel.tracking.config import SegmenterConfig
from unipixel.train.recipe import Recipe
from unipixel.train.recipe_files import load_recipe

NO_DROPOUT = {
    "dropout": 0.0,
    "self_attention": {"dropout": 0.0},
    "cross_attention": {"dropout": 0.0},
}


def save_training_checkpoint(folder: Path, *, has_dropout: bool = True) -> Path:
    torch.manual_seed(0)
    config = byte_config()
    if not has_dropout:
        tree = config.segmenter.to_tree()
        tree["memory_attention"] = {**tree["memory_attention"], "layer": NO_DROPOUT}
        config = replace(config, segmenter=SegmenterConfig.from_tree(tree))
    UniPixel(config).save_pretrained(folder)
    budget = FrameBudget(num_frames=4, min_tokens=4, max_tokens=4)
    Processor(config, load_tokenizer(), budget=budget).save_pretrained(folder)
    return folder


def tiny_recipe(stage: str, start: Path, output: Path, *overrides: str) -> Recipe:
    """The nano recipe of a stage, on the tiny checkpoint."""
    return load_recipe(
        f"nano/{stage}",
        [
            f"output={output}", "model={}", f"model.checkpoint={start}", "data.render_size=48", "data.num_frames=4",
            "training.batch_size=2", "training.log_every=1", "training.max_steps=1", "training.warmup_fraction=0.0",
            *overrides,
        ],
    )  # fmt: skip
