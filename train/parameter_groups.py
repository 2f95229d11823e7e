"""Trainable parameters of each stage, and the layers with low-rank updates."""

from __future__ import annotations

from collections.abc import Iterator

from peft import LoraConfig
from torch import nn

from unipixel.checkpoints.lora import add_lora
from unipixel.model.unipixel import UniPixel
from unipixel.train.recipe import LoraRecipe

_LORA_SUFFIXES = ("q_proj", "k_proj", "v_proj", "o_proj", "attn.qkv", "attn.proj")
_REFERENCE = ("prompt_encoder.ref_proj", "prompt_encoder.tem_emb", "prompt_encoder.tem_proj")
_PARTS: dict[str, tuple[str, ...]] = {
    "stage1": _REFERENCE,
    "stage2": ("seg_head",),
    "stage3": (
        *_REFERENCE,
        "model.language_model.embed_tokens",
        "lm_head",
        "prompt_encoder.ref_encoder",
        "prompt_encoder.mem_pos_proj",
        "msk_proj",
        "seg_head",
        "sam2",
    ),
    "finetune": (
        *_REFERENCE,
        "prompt_encoder.ref_encoder",
        "prompt_encoder.mem_pos_proj",
        "msk_proj",
        "seg_head",
        "sam2",
    ),
}


def lora_targets(model: nn.Module) -> list[str]:
    """Return the names of the layers with low-rank updates: the attention of both transformers, not that of SAM."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "sam2" not in name and name.endswith(_LORA_SUFFIXES)
    ]


def lora_config(model: nn.Module, recipe: LoraRecipe) -> LoraConfig:
    """Return the configuration of peft for a model and the settings of a recipe."""
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        bias="none",
        target_modules=lora_targets(model),
    )


def select_parts(model: UniPixel, stage: str, lora: LoraRecipe | None = None) -> LoraConfig | None:
    """Make the parameters of a stage trainable and freeze all others; add its low-rank updates.

    Args:
        model: Changed in place.
        stage: `stage1`, `stage2`, `stage3` or `finetune`.
        lora: Settings of the low-rank updates; None adds none.

    Returns:
        The configuration of the updates; None without.

    Raises:
        ValueError: The stage is unknown.
    """
    if stage not in _PARTS:
        raise ValueError(f"stage must be one of {sorted(_PARTS)}, got {stage!r}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(_PARTS[stage]))
    if lora is None:
        return None
    config = lora_config(model, lora)
    add_lora(model, config)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)
    return config


def trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the names and values of trainable parameters; shared ones appear once."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
