"""Loading and saving Pixel-SAIL: the published tensor names, safetensors only; starting from a language model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from unipixel.checkpoints.devices import available_device
from unipixel.checkpoints.files import CONFIG_FILE, read_json, resolve
from unipixel.checkpoints.loading import choose_dtype, write_checkpoint
from unipixel.checkpoints.tensor_layout import TensorFiles, check_tensors, load_tensors
from unipixel.processing.chat_template import load_tokenizer
from unipixel.sail.model_type import SAIL_MODEL_TYPE, PromptEncoding, RotaryLayout
from unipixel.sail.sail_config import (
    SAIL_TOKENS,
    VISION_TOKENS,
    PixelSailConfig,
    text_config,
)

if TYPE_CHECKING:
    from unipixel.sail.pixel_sail import PixelSail

SailAttention = Literal["sdpa", "eager"]
_LM_HEAD = "single_transformer.lm_head.weight"
_EMBEDDING = "single_transformer.model.embed_tokens.weight"
# Model types of config.json whose decoder is that of Qwen2.5.
_BASE_TYPES = ("qwen2",)
_BASE_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "hidden_act", "tie_word_embeddings", "initializer_range",
)  # fmt: skip


def load_sail(
    model_class: type[PixelSail],
    source: str | Path,
    *,
    dtype: torch.dtype | Literal["auto"] = "auto",
    device: str | torch.device = "cpu",
    attention: SailAttention = "sdpa",
) -> PixelSail:
    """Load a Pixel-SAIL checkpoint.

    Args:
        model_class: `PixelSail`.
        source: A folder or a hub id. Official weights were never published; convert files of the training code to
            safetensors, and add their sizes and token ids as config.json.
        dtype: Type of the weights; `auto` takes it from config.json.
        device: Device of the model.
        attention: `sdpa` or `eager`.

    Returns:
        The model in evaluation mode.

    Raises:
        OSError: The source cannot be found, downloaded or read, or contains pickles only.
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
        ValueError: The configuration is incomplete or inconsistent, or that of another model.
    """
    _check_attention(attention)
    available = available_device(device)
    folder = resolve(source)
    config = read_sail_config(folder)
    model = model_class.build_empty(config, attention=attention)
    tied = {_LM_HEAD: _EMBEDDING} if config.is_tied else {}
    load_tensors(
        named_as_published(model), TensorFiles.of_folder(folder), dtype=choose_dtype(dtype, config.extra), tied=tied
    )
    model.tie_weights()
    model.name_or_path = str(folder)
    return model.to(available).eval()


def read_sail_config(folder: Path) -> PixelSailConfig:
    """Read the configuration of a checkpoint folder.

    Raises:
        OSError: config.json is missing or not valid JSON.
        ValueError: It is incomplete, inconsistent, of another model type, or requires remote code.
    """
    return PixelSailConfig.from_dict(read_json(folder / CONFIG_FILE))


def save_sail(model: PixelSail, folder: str | Path, *, max_shard_size: str = "5GB") -> None:
    """Write a checkpoint with the published tensor names, including a tied output projection.

    The files are written to a temporary folder first and moved into `folder` when they are complete.

    Args:
        model: The model.
        folder: Created if necessary; files of the same names are replaced.
        max_shard_size: Size above which the tensors are split into several files.

    Raises:
        OSError: The folder cannot be written.
    """
    state = named_as_published(model).state_dict()
    if model.config.is_tied:
        # As published: the same values a second time. Shared tensors would be left out.
        state[_LM_HEAD] = state[_LM_HEAD].clone()
    dtype = str(model.dtype).removeprefix("torch.")
    documents = {CONFIG_FILE: model.config.to_dict() | {"dtype": dtype}}
    write_checkpoint(folder, state, documents, max_shard_size=max_shard_size)


def named_as_published(model: PixelSail) -> nn.Module:
    """Return a module with the parameters of a model under their published names."""
    return nn.ModuleDict(
        {
            "single_transformer": model.single_transformer,
            **{name: part for name, part in model.mask_head.named_children() if part is not None},
        }
    )


def load_sail_base(
    model_class: type[PixelSail],
    base: str | Path,
    *,
    mask_channels: int = 512,
    num_upsample_blocks: int = 3,
    patch_size: int = 16,
    max_side: int = 1024,
    rotary_layout: RotaryLayout = "split",
    prompt_encoding: PromptEncoding = "injection",
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    device: str | torch.device = "cpu",
    attention: SailAttention = "sdpa",
    seed: int = 42,
) -> PixelSail:
    """Build a Pixel-SAIL from a Qwen2.5 language model, with a new patch embedding, upsampler and prompt tokens.

    The vocabulary becomes that of the tokenizer with the special tokens, which shortens an embedding with unused rows,
    as published. `SailProcessor.from_base` is the matching processor.

    Args:
        model_class: `PixelSail`.
        base: Folder or hub id of a Qwen2.5 language model with its tokenizer, such as `Qwen/Qwen2.5-0.5B`.
        mask_channels: See `PixelSailConfig`.
        num_upsample_blocks: See `PixelSailConfig`.
        patch_size: See `PixelSailConfig`.
        max_side: See `PixelSailConfig`.
        rotary_layout: See `PixelSailConfig`.
        prompt_encoding: See `PixelSailConfig`.
        dtype: Type of the weights; training starts from float32.
        device: Device of the model.
        attention: `sdpa` or `eager`.
        seed: Seed of the new weights.

    Raises:
        OSError: The base cannot be found, downloaded or read.
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
        ValueError: The base is another model, or has no tokenizer.
    """
    _check_attention(attention)
    available = available_device(device)
    folder = resolve(base)
    fields = read_json(folder / CONFIG_FILE)
    # A base that was trained on images has some of the tokens already, with trained rows.
    known = load_tokenizer(folder, added_tokens=()).get_vocab()
    vocabulary = load_tokenizer(folder, added_tokens=(*VISION_TOKENS, *SAIL_TOKENS)).get_vocab()
    config = PixelSailConfig(
        text=_base_text(fields, vocab_size=max(vocabulary.values()) + 1, rotary_layout=rotary_layout, folder=folder),
        token_ids={token: vocabulary[token] for token in _kept_tokens(vocabulary)},
        patch_size=patch_size,
        num_upsample_blocks=num_upsample_blocks,
        mask_channels=mask_channels,
        max_side=max_side,
        rotary_layout=rotary_layout,
        prompt_encoding=prompt_encoding,
        extra={"base_model": fields.get("_name_or_path") or folder.name},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config, attention=attention)
    files = TensorFiles.of_folder(folder)
    state = dict(files.read(files.shapes, dtypes={}, device="cpu"))
    _load_language(model, state, first_new=max(known.values()) + 1)
    model.tie_weights()
    return model.to(device=available, dtype=choose_dtype(dtype, fields)).eval()


def _base_text(fields: Mapping[str, Any], *, vocab_size: int, rotary_layout: RotaryLayout, folder: Path) -> Any:
    if fields.get("model_type") not in _BASE_TYPES:
        is_own = fields.get("model_type") == SAIL_MODEL_TYPE
        raise ValueError(
            f"{folder} has model_type {fields.get('model_type')!r}; PixelSail.from_base requires one of {_BASE_TYPES}"
            f"{', use from_pretrained for a Pixel-SAIL checkpoint' if is_own else ''}"
        )
    sizes = {name: copy.deepcopy(fields[name]) for name in _BASE_SIZES if fields.get(name) is not None}
    theta = fields.get("rope_theta") or (fields.get("rope_parameters") or {}).get("rope_theta", 1_000_000.0)
    return text_config(sizes | {"vocab_size": vocab_size}, rope_theta=theta, rotary_layout=rotary_layout)


def _kept_tokens(vocabulary: Mapping[str, int]) -> list[str]:
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *VISION_TOKENS, *SAIL_TOKENS)
    if missing := [token for token in names if token not in vocabulary]:
        raise ValueError(f"the tokenizer of the base lacks {missing}: give a base with the tokenizer of Qwen2.5")
    return list(names)


def _load_language(model: PixelSail, state: Mapping[str, Tensor], *, first_new: int) -> None:
    """Copy the weights of a language model; rows of new tokens keep their new values."""
    decoder = model.single_transformer
    new = {"model.vis_embed.weight", "model.vp_embed.weight"} | ({"lm_head.weight"} if model.config.is_tied else set())
    own = {name: tensor for name, tensor in decoder.state_dict().items() if name not in new}
    given = {name: tensor for name, tensor in state.items() if name not in new}
    rows = {name for name in own if name in ("model.embed_tokens.weight", "lm_head.weight")}
    check_tensors(
        {name: tuple(tensor.shape[1:] if name in rows else tensor.shape) for name, tensor in own.items()},
        {name: tuple(tensor.shape[1:] if name in rows else tensor.shape) for name, tensor in given.items()},
    )
    with torch.no_grad():
        for name, tensor in own.items():
            count = min(first_new, len(given[name])) if name in rows else len(tensor)
            tensor[:count] = given[name][:count].to(tensor.dtype)


def _check_attention(attention: str) -> None:
    if attention not in get_args(SailAttention):
        raise ValueError(
            f"attention must be one of {get_args(SailAttention)}, got {attention!r}: flash-attn has no masks for the "
            "image block"
        )
