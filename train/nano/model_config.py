"""Configuration of a small UniPixel model from a file of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Qwen2_5_VLConfig

from unipixel.model.config import UniPixelConfig
from unipixel.processing.chat_template import Tokenizer, special_ids
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.special_tokens import IM_END, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START
from unipixel.tracking.config import SegmenterConfig

_SECTIONS = ("segmenter", "vocabulary", "budget", "language", "vision")
_OPTIONAL_SECTIONS = ("memory",)


def configure(sizes: Mapping[str, Any], tokenizer: Tokenizer, *, image_size: int | None = None) -> UniPixelConfig:
    """Describe a model.

    Args:
        sizes: Tables `segmenter`, `language` and `vision` of a sizes file, and optionally `memory` with
            `pool_weighting` and `position_embedding`, see `UniPixelConfig`.
        tokenizer: Its vocabulary decides the rows of the embedding.
        image_size: Overrides the side of the segmenter's input.

    Raises:
        ValueError: A table is missing or unknown, or its values do not fit together.
    """
    check_sections(sizes)
    ids = {
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
        "image_token_id": IMAGE_PAD,
        "video_token_id": VIDEO_PAD,
    }
    end = int(tokenizer.convert_tokens_to_ids(IM_END))
    language = dict(sizes["language"])
    is_tied = bool(language.pop("tie_word_embeddings", True))
    qwen = Qwen2_5_VLConfig(
        text_config={
            **language,
            "vocab_size": -(-len(tokenizer) // 8) * 8,
            "tie_word_embeddings": is_tied,
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**sizes["vision"], "out_hidden_size": language["hidden_size"]},
        tie_word_embeddings=is_tied,
        **{name: int(tokenizer.convert_tokens_to_ids(token)) for name, token in ids.items()},
    )
    ref, seg, mem = special_ids(tokenizer)
    tree = {**sizes["segmenter"], **({} if image_size is None else {"image_size": image_size})}
    return UniPixelConfig(
        qwen=qwen,
        segmenter=SegmenterConfig.from_tree(tree),
        ref_token_id=ref,
        seg_token_id=seg,
        mem_token_id=mem,
        memory_pool_order="raster",
        eos_token_ids=(end,),
        **{f"memory_{name}": value for name, value in sizes.get("memory", {}).items()},
    )


def frame_budget(sizes: Mapping[str, Any]) -> FrameBudget:
    """Read how many frames the language model sees, and how finely."""
    check_sections(sizes)
    return FrameBudget(**sizes["budget"])


def check_sections(sizes: Mapping[str, Any]) -> None:
    """Check that a sizes file has its tables and no others.

    Raises:
        ValueError: It has not.
    """
    if set(sizes) - set(_OPTIONAL_SECTIONS) != set(_SECTIONS):
        raise ValueError(f"a sizes file holds the tables {list(_SECTIONS)}, got {sorted(sizes)}")
