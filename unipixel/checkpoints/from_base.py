"""The start of a training: Qwen2.5-VL and SAM 2.1 with fresh heads between them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unipixel.checkpoints.loading import (
    EMBEDDING,
    LM_HEAD,
    Attention,
    build_empty,
    choose_attention,
    choose_dtype,
    read_generation,
    read_json,
    resolve,
    segmenter_name,
    usable_device,
)
from unipixel.checkpoints.tensor_layout import TensorFiles, check_tensors, load_tensors
from unipixel.model.config import UniPixelConfig, read_eos_ids, read_qwen_config
from unipixel.model.connector import MaskTokenHead, MemoryProjector, VisualPromptEncoder
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.config import SegmenterConfig


def load_base(
    qwen: str | Path,
    sam2: str | Path,
    *,
    sam2_config: SegmenterConfig | None = None,
    image_size: int = 768,
    special_token_ids: tuple[int, int, int] | None = None,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    device: str | torch.device = "cpu",
    attention: Attention = "auto",
    seed: int = 42,
) -> UniPixel:
    """Start a UniPixel from Qwen2.5-VL and SAM 2.1, with fresh heads between them.

    Args:
        qwen: Folder or hub id of Qwen2.5-VL.
        sam2: An official SAM 2.1 checkpoint: `.pt`, read with `weights_only=True`, or safetensors.
        sam2_config: Its sizes; by default those of the published size that the file's name says.
        image_size: Side of the SAM input in pixels, a multiple of 32.
        special_token_ids: Ids of `<|ref|>`, `<|seg|>` and `<|mem|>`; by default those that the tokenizer of
            `qwen` gives them when they are added.
        dtype: Type of the language model; training starts from float32.
        device: Where the model goes.
        attention: See `load`.
        seed: Seed of the fresh heads.

    Raises:
        OSError: A source cannot be found or read.
        CheckpointError: Tensors are missing, unexpected or mis-shaped.
        ValueError: The special tokens do not fit into the embedding, or the size cannot be told.
    """
    place = usable_device(device)
    folder = resolve(qwen)
    fields = read_json(folder / "config.json")
    segmenter = sam2_config or _sam2_size(Path(sam2), image_size)
    config = _base_config(folder, fields, segmenter, special_token_ids, sam2)
    model = build_empty(config, attention=choose_attention(attention, device, dtype))
    _load_sam2(model, Path(sam2))
    tied = {LM_HEAD: EMBEDDING} if config.is_tied else {}
    language = nn.ModuleDict({"model": model.model, "lm_head": model.lm_head})
    load_tensors(language, TensorFiles.of_folder(folder), dtype=choose_dtype(dtype, fields), tied=tied)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _start_heads(model)
    model.tie_weights()
    return model.to(place).eval()


def _base_config(
    folder: Path,
    fields: Mapping[str, Any],
    segmenter: SegmenterConfig,
    special_token_ids: tuple[int, int, int] | None,
    sam2: str | Path,
) -> UniPixelConfig:
    if fields.get("model_type") != "qwen2_5_vl":
        raise ValueError(f"{folder} has model_type {fields.get('model_type')!r}; from_base starts from 'qwen2_5_vl'")
    if special_token_ids is None:
        from unipixel.processing.chat_template import load_tokenizer, special_ids

        special_token_ids = special_ids(load_tokenizer(folder))
    name = segmenter_name(segmenter)
    extra = dict(fields) | {
        "base_model": "qwen2_5_vl",
        "conv_type": "chatml",
        "sam2_config": f"configs/sam2.1_hiera_{name or 'custom'}",
        "sam2_checkpoint": Path(sam2).name,
        "sam2_apply_postprocessing": False,
        "sam2_batch_mode": False,
        "sam2_enable_decoder": True,
        "sam2_inference_mode": True,
    }
    extra.pop("transformers_version", None)
    ref, seg, mem = special_token_ids
    return UniPixelConfig(
        qwen=read_qwen_config(fields),
        segmenter=segmenter,
        ref_token_id=ref,
        seg_token_id=seg,
        mem_token_id=mem,
        eos_token_ids=read_eos_ids(read_generation(folder), fields),
        extra=extra,
    )


def _sam2_size(file: Path, image_size: int) -> SegmenterConfig:
    for name in ("tiny", "small", "base_plus", "large"):
        if name in file.stem:
            return SegmenterConfig.preset(name, image_size=image_size)
    raise ValueError(f"the name of {file.name} does not say its size (tiny, small, base_plus, large): give sam2_config")


def _load_sam2(model: UniPixel, file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"SAM 2.1 checkpoint {file} is missing: give the official .pt or safetensors")
    if file.suffix == ".safetensors":
        files = TensorFiles([file])
        state = dict(files.read(files.shapes, dtypes={}, device="cpu"))
    else:
        state = _read_official(file)
    expected = {name: tuple(tensor.shape) for name, tensor in model.sam2.state_dict().items()}
    check_tensors(expected, {name: tuple(tensor.shape) for name, tensor in state.items()})
    model.sam2.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


def _read_official(file: Path) -> dict[str, Tensor]:
    """Read Meta's file: the one pickle that is ever opened, with nothing but tensors allowed in it."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)["model"]
    except pickle.UnpicklingError as error:
        raise OSError(f"{file} holds more than tensors: it is refused") from error
    except (KeyError, TypeError, RuntimeError, EOFError) as error:
        raise OSError(f"{file} is no official SAM 2.1 checkpoint, or is truncated: {error}") from error


def _start_heads(model: UniPixel) -> None:
    """Initialise the heads as the published training does, with one Fourier matrix for points everywhere."""
    config = model.config
    sizes = {"width": config.width, "sam_width": config.segmenter.embed_dim}
    model.prompt_encoder = VisualPromptEncoder(image_size=config.segmenter.image_size, **sizes)
    # Parameters and the random matrix: the published code leaves the matrix to chance in each process.
    model.prompt_encoder.ref_encoder.load_state_dict(model.sam2.sam_prompt_encoder.state_dict())
    model.seg_head = MaskTokenHead(num_tokens=config.num_mask_tokens, **sizes).to(model.dtype)
    model.msk_proj = MemoryProjector(pooled_width=config.pooled_width, width=config.width).to(model.dtype)
    model.msk_proj.load_state_dict(model.model.visual.merger.mlp.state_dict())
