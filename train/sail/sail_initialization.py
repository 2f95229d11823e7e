"""Start of a Pixel-SAIL training run: a model from sizes, from a checkpoint, or from a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unipixel.processing.chat_template import Tokenizer
from unipixel.processing.special_tokens import END_OF_TEXT, IM_END, IM_START
from unipixel.sail.sail_config import SAIL_TOKENS, VISION_TOKENS, PixelSailConfig, text_config
from unipixel.train.nano.tokenizer import build_tokenizer
from unipixel.train.sail.drawn_images import DrawnImageSettings, draw_sail_sample
from unipixel.train.sail.drawn_turns import SAIL_TASKS

_SECTIONS = ("vocabulary", "transformer", "image")
_TEXT_SIZES = ((64, 96), (96, 64))


def configure_sail(sizes: Mapping[str, Any], tokenizer: Tokenizer) -> PixelSailConfig:
    """Describe a model.

    Args:
        sizes: Tables `vocabulary`, `transformer` (sizes of the text model of Qwen2.5-VL, and `rope_theta`) and `image`
            (fields of `PixelSailConfig`).
        tokenizer: Its vocabulary decides the rows of the embedding.

    Raises:
        ValueError: A table is missing or unknown, or its values do not fit together.
    """
    if set(sizes) != set(_SECTIONS):
        raise ValueError(f"a sizes file of Pixel-SAIL holds the tables {list(_SECTIONS)}, got {sorted(sizes)}")
    transformer, image = dict(sizes["transformer"]), dict(sizes["image"])
    theta = float(transformer.pop("rope_theta", 1_000_000.0))
    layout = image.get("rotary_layout", "split")
    tokens = (*VISION_TOKENS, *SAIL_TOKENS, IM_START, IM_END, END_OF_TEXT)
    return PixelSailConfig(
        text=text_config(
            {**transformer, "vocab_size": -(-len(tokenizer) // 8) * 8}, rope_theta=theta, rotary_layout=layout
        ),
        token_ids={token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens},
        **image,
    )


def build_sail_tokenizer(sizes: Mapping[str, Any], *, seed: int) -> Tokenizer:
    """Learn a small vocabulary from the texts of drawn images.

    Args:
        sizes: Its table `vocabulary` gives `size` and `num_samples`.
        seed: Seed of the images.
    """
    vocabulary = sizes["vocabulary"]
    special = (END_OF_TEXT, IM_START, IM_END, *VISION_TOKENS, *SAIL_TOKENS)
    return build_tokenizer(
        _texts(seed=seed, num_samples=vocabulary["num_samples"]), size=vocabulary["size"], special_tokens=special
    )


def _texts(*, seed: int, num_samples: int) -> Iterator[str]:
    settings = DrawnImageSettings(_TEXT_SIZES, 4, dict.fromkeys(SAIL_TASKS, 1.0))
    for number in range(num_samples):
        for turn in draw_sail_sample([seed, number], settings).turns:
            for text in (f"user\n{turn.question}", turn.answer or ""):
                # Special tokens are no part of the pairs.
                for token in SAIL_TOKENS:
                    text = text.replace(token, "")
                yield text
