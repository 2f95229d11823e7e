"""Tiny teachers of Pixel-SAIL with random weights, saved by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor, SwinConfig

from helpers.transformers_reference import transformers_model, wider_segmenter

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def save_mask2former(folder: Path, *, seed: int = 0) -> tuple[Any, Any]:
    """Write a checkpoint and return transformers' model and image processor."""
    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4,
        out_features=STAGES,
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=12, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Mask2FormerForUniversalSegmentation(config).eval()
    processor = Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def save_sam2(folder: Path) -> Any:
    """Write a checkpoint of transformers' `Sam2VideoModel` and return the model."""
    model = transformers_model(wider_segmenter())
    model.save_pretrained(folder)
    return model
