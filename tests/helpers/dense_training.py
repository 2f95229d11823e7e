"""A model of a few thousand parameters that dense batches fit, and a recipe that pre-trains it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2_5_VLConfig

from helpers.byte_model import byte_config
from unipixel.model.config import UniPixelConfig
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import load_tokenizer
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.processor import Processor
from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.recipe_files import load_any_recipe


def dense_config(**memory: object) -> UniPixelConfig:
    """The byte model with patches of 8 pixels, full attention in every vision layer and raster pooling."""
    config = byte_config()
    qwen = config.qwen.to_dict()
    qwen["vision_config"] |= {"patch_size": 8, "window_size": 64, "fullatt_block_indexes": [0, 1]}
    fields = {name: value for name, value in vars(config).items() if name not in ("qwen", "extra")}
    return UniPixelConfig(qwen=Qwen2_5_VLConfig(**qwen), **{**fields, "memory_pool_order": "raster", **memory})


def dense_model(**memory: object) -> tuple[UniPixel, Processor]:
    """A seeded model with its processor, which sees every frame alone."""
    torch.manual_seed(0)
    config = dense_config(**memory)
    budget = FrameBudget(num_frames=4, min_tokens=4, max_tokens=16, is_still=True)
    return UniPixel(config), Processor(config, load_tokenizer(), budget=budget)


def dense_checkpoint(folder: Path) -> Path:
    """Write the model and its processor."""
    model, processor = dense_model()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def dense_recipe(start: Path, output: Path, *overrides: str) -> PretrainingRecipe:
    """The recipe `nano/pretrain` on a tiny checkpoint, with tiny batches."""
    recipe = load_any_recipe(
        "nano/pretrain",
        [
            f"output={output}", "model={}", f"model.checkpoint={start}", "data.num_frames=4", "data.num_workers=0",
            "data.clip_sizes=[[64, 64], [48, 96]]", "data.image_sizes=[[64, 64]]", "data.tokens_per_batch=1",
            "data.min_conversations=4", "data.initial_clips=4", "data.clips_per_bucket=1", "data.max_tokens=4000",
            "data.num_clips=8", "training.max_steps=4", "training.log_every=1", "training.warmup_steps=1", *overrides,
        ],
    )  # fmt: skip
    assert isinstance(recipe, PretrainingRecipe)
    return recipe
