"""A tiny model for the bundled tokenizer, whose tokens are bytes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from parity.weights import tiny_model
from transformers import Qwen2_5_VLConfig

from unipixel.model.config import UniPixelConfig
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import load_tokenizer
from unipixel.processing.processor import Processor
from unipixel.tracking.config import SegmenterConfig


@cache
def tiny_model_and_processor() -> tuple[UniPixel, Processor]:
    """Return the model with random weights and its processor: one pair per process, never to be changed."""
    model = tiny_model(byte_config())
    return model, Processor(model.config, load_tokenizer())


def save_checkpoint(folder: Path) -> Path:
    """Save the model and its processor, and return the folder."""
    for part in tiny_model_and_processor():
        part.save_pretrained(folder)
    return folder


def byte_config(image_size: int = 64, seg_token_id: int = 265) -> UniPixelConfig:
    """Return the configuration of the model.

    Args:
        image_size: Side of SAM's input in pixels.
        seg_token_id: Id of `<|seg|>`; another one makes random weights generate it.
    """
    qwen = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 272, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 256, "eos_token_id": 258,
            "pad_token_id": 256, "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=262, video_token_id=263, vision_start_token_id=259, vision_end_token_id=260,
    )  # fmt: skip
    segmenter = SegmenterConfig.from_tree(
        {
            "image_size": image_size,
            "image_encoder": {
                "trunk": {"embed_dim": 16, "stages": [1, 1, 2, 1], "global_att_blocks": [3]},
                "neck": {"d_model": 32},
            },
            "memory_encoder": {"out_dim": 8},
        }
    )
    return UniPixelConfig(qwen=qwen, segmenter=segmenter, ref_token_id=264, seg_token_id=seg_token_id, mem_token_id=266)
