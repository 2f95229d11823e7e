"""Building a model from Qwen2.5-VL and SAM 2.1, with newly initialised heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from unipixel.checkpoints.devices import available_device
from unipixel.checkpoints.files import CONFIG_FILE, read_generation_config, read_json, resolve
from unipixel.checkpoints.loading import (
    EMBEDDING,
    LM_HEAD,
    Attention,
    choose_attention,
    choose_dtype,
    segmenter_name,
)
from unipixel.checkpoints.segmenter_configs import infer_official_config
from unipixel.checkpoints.segmenters import build_segmenter, read_official
from unipixel.checkpoints.tensor_layout import TensorFiles, load_tensors
from unipixel.model.config import UniPixelConfig, read_eos_ids, read_qwen_config
from unipixel.model.connector import MaskTokenHead, MemoryProjector
from unipixel.model.visual_prompt_encoder import VisualPromptEncoder
from unipixel.tracking.config import SegmenterConfig

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel


def load_base(
    model_class: type[UniPixel],
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
    """Build a UniPixel from Qwen2.5-VL and SAM 2.1, with newly initialised heads.

    Args:
        model_class: `UniPixel`.
        qwen: Folder or hub id of Qwen2.5-VL.
        sam2: An official SAM 2.1 checkpoint: `.pt`, read with `weights_only=True`, or safetensors.
        sam2_config: Its sizes; by default the published size that the tensors have.
        image_size: Side of the SAM input in pixels, a multiple of 32, with a published size.
        special_token_ids: Ids of `<|ref|>`, `<|seg|>` and `<|mem|>`; by default those they get when they are
            added to the tokenizer of `qwen`.
        dtype: Type of the language model; training starts from float32.
        device: Device of the model.
        attention: See `load`.
        seed: Seed of the new heads.

    Raises:
        OSError: A source cannot be found or read.
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
        ValueError: The special tokens do not fit into the embedding, or the sizes of SAM 2.1 are not published ones.
    """
    available = available_device(device)
    folder = resolve(qwen)
    fields = read_json(folder / CONFIG_FILE)
    state = read_official(Path(sam2))
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    segmenter = sam2_config or infer_official_config(shapes, image_size=image_size)
    config = _base_config(folder, fields, segmenter, special_token_ids, sam2)
    model = model_class.build_empty(config, attention=choose_attention(attention, device, dtype))
    model.sam2 = build_segmenter(segmenter, state)
    tied = {LM_HEAD: EMBEDDING} if config.is_tied else {}
    language = nn.ModuleDict({"model": model.model, "lm_head": model.lm_head})
    load_tensors(language, TensorFiles.of_folder(folder), dtype=choose_dtype(dtype, fields), tied=tied)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _initialize_heads(model)
    model.tie_weights()
    return model.to(available).eval()


def _base_config(
    folder: Path,
    fields: Mapping[str, Any],
    segmenter: SegmenterConfig,
    special_token_ids: tuple[int, int, int] | None,
    sam2: str | Path,
) -> UniPixelConfig:
    if fields.get("model_type") != "qwen2_5_vl":
        raise ValueError(f"{folder} has model_type {fields.get('model_type')!r}; from_base requires 'qwen2_5_vl'")
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
        eos_token_ids=read_eos_ids(read_generation_config(folder), fields),
        extra=extra,
    )


def _initialize_heads(model: UniPixel) -> None:
    """Initialise the heads as in the published training, with one Fourier matrix for points everywhere."""
    config = model.config
    width, sam_width, image_size = config.width, config.segmenter.embed_dim, config.segmenter.image_size
    model.prompt_encoder = VisualPromptEncoder(width=width, sam_width=sam_width, image_size=image_size)
    # Parameters and the random matrix; the published code draws the matrix anew in each process.
    model.prompt_encoder.ref_encoder.load_state_dict(model.sam2.sam_prompt_encoder.state_dict())
    model.seg_head = MaskTokenHead(num_tokens=config.num_mask_tokens, width=width, sam_width=sam_width).to(model.dtype)
    model.msk_proj = MemoryProjector(pooled_width=config.pooled_width, width=width).to(model.dtype)
    model.msk_proj.load_state_dict(model.model.visual.merger.mlp.state_dict())
