"""Loading and saving models: published and current layouts, sharded and single files, safetensors only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from unipixel.checkpoints.devices import available_device
from unipixel.checkpoints.files import CONFIG_FILE, GENERATION_FILE, read_config, read_json, resolve, write_json
from unipixel.checkpoints.quantization import Quantization, check_quantization, quantize_language
from unipixel.checkpoints.tensor_layout import TensorFiles, is_adapter_folder, load_tensors, to_disk_name
from unipixel.model.config import SEGMENTER_FILE, PoolOrder, UniPixelConfig
from unipixel.tracking.config import SegmenterConfig

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel

LM_HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]


def load(
    model_class: type[UniPixel],
    source: str | Path,
    *,
    dtype: torch.dtype | Literal["auto"] = "auto",
    device: str | torch.device = "cpu",
    attention: Attention = "auto",
    memory_pool_order: PoolOrder | None = None,
    sam2_config: SegmenterConfig | None = None,
    quantization: Quantization | None = None,
    base: str | Path | UniPixel | None = None,
    merge_adapter: bool = True,
) -> UniPixel:
    """Load a UniPixel checkpoint.

    The weights of UniPixel-3B derive from Qwen2.5-VL-3B, whose licence allows research use only; those of
    the 7B model are under Apache-2.0 (see THIRD_PARTY.md).

    Args:
        model_class: `UniPixel`.
        source: A bundled name, a folder, or a hub id such as `PolyU-ChenLab/UniPixel-3B`. The folder
            contains a full checkpoint, or a LoRA adapter and partial weights for `base`.
        dtype: Type of the language model; `auto` takes it from config.json. SAM 2.1 and the prompt
            encoder stay in float32.
        device: Device of the model.
        attention: Implementation; `auto` is flash-attn where it is installed and usable, else sdpa.
        memory_pool_order: Overrides the checkpoint's; `window` is right for the published weights.
        sam2_config: Sizes of SAM 2.1 for a checkpoint that names none of the published sizes and has no
            sam2_config.json.
        quantization: `8bit` or `4bit` for the language model's linear layers, through bitsandbytes.
        base: Model that an adapter or partial folder is applied to, or its source; by default the
            `base_model_path` of the folder's config.json.
        merge_adapter: Whether a LoRA adapter is merged into the weights, or kept as trainable layers.

    Returns:
        The model in evaluation mode.

    Raises:
        OSError: The source cannot be found, downloaded or read, or contains pickles only.
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
        ValueError: The configuration is incomplete, inconsistent or requires remote code.
        ImportError: bitsandbytes is required but not installed.
    """
    if quantization:
        check_quantization(quantization)
    available = available_device(device)
    folder = resolve(source)
    if is_adapter_folder(folder):
        model = base if isinstance(base, nn.Module) else _load_adapter_base(
            model_class, folder, base, dtype=dtype, attention=attention, sam2_config=sam2_config,
            memory_pool_order=memory_pool_order,
        )  # fmt: skip
        # peft takes seconds to import, and only adapters need it.
        from unipixel.checkpoints.lora import apply_adapter_folder

        apply_adapter_folder(model, folder, merge=merge_adapter)
    else:
        config = read_config(folder, sam2_config=sam2_config, memory_pool_order=memory_pool_order)
        model = model_class.build_empty(config, attention=choose_attention(attention, device, dtype))
        tied = {LM_HEAD: EMBEDDING} if config.is_tied else {}
        load_tensors(model, TensorFiles.of_folder(folder), dtype=choose_dtype(dtype, config.extra), tied=tied)
        model.tie_weights()
    if quantization:
        quantize_language(model, quantization)
    model.name_or_path = str(folder)
    return model.to(available).eval()


def save(model: UniPixel, folder: str | Path, *, max_shard_size: str = "5GB") -> None:
    """Write a checkpoint in the published layout, readable by this package and by the published code.

    All tensors are written, including the random Fourier buffers. The files are written to a temporary
    folder first and moved into `folder` when they are complete.

    Args:
        model: The model; LoRA layers must have been merged.
        folder: Created if necessary; files of the same names are replaced.
        max_shard_size: Size above which the tensors are split into several files.

    Raises:
        ValueError: The model still contains LoRA layers or quantised weights.
        OSError: The folder cannot be written.
    """
    state = published_state(model)
    if odd := [name for name in state if ".lora_" in name or ".base_layer." in name or "quant" in name]:
        raise ValueError(
            f"merge the adapter before saving; the model still contains {odd[0]} and {len(odd) - 1} more such tensors"
        )
    dtype = str(model.dtype).removeprefix("torch.")
    documents: dict[str, Mapping[str, Any]] = {
        CONFIG_FILE: model.config.to_dict() | {"torch_dtype": dtype},
        GENERATION_FILE: {"eos_token_id": list(model.config.eos_token_ids)},
    }
    if not _is_published_size(model.config):
        documents[SEGMENTER_FILE] = model.config.segmenter.to_tree()
    write_checkpoint(folder, state, documents, max_shard_size=max_shard_size)


def write_checkpoint(
    folder: str | Path,
    state: dict[str, Tensor],
    documents: Mapping[str, Mapping[str, Any]],
    *,
    max_shard_size: str = "5GB",
) -> None:
    """Write tensors and JSON files to a temporary folder, and move them when they are complete.

    Args:
        folder: Created if necessary; tensors and files of the same names are replaced.
        state: Tensors by their names on disk.
        documents: Content of each JSON file, by its name.
        max_shard_size: Size above which the tensors are split into several files.

    Raises:
        OSError: The folder cannot be written.
    """
    from huggingface_hub import save_torch_state_dict

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        save_torch_state_dict(state, scratch, max_shard_size=max_shard_size)
        for name, content in documents.items():
            write_json(Path(scratch) / name, content)
        for stale in (*target.glob("model*.safetensors"), *target.glob("model.safetensors.index.json")):
            stale.unlink()
        for file in Path(scratch).iterdir():
            shutil.move(file, target / file.name)


def published_state(model: UniPixel) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint of a model by their published names; a tied head is left out."""
    state = {to_disk_name(name): tensor for name, tensor in model.state_dict().items()}
    if model.config.is_tied:
        del state[LM_HEAD]
    return state


def _load_adapter_base(model_class: type[UniPixel], folder: Path, base: str | Path | None, **options: Any) -> UniPixel:
    source = base or read_json(folder / CONFIG_FILE).get("base_model_path")
    if not source:
        raise ValueError(
            f"{folder} contains an adapter or partial weights and its config.json has no base_model_path: give `base`"
        )
    root = resolve(source)
    if is_adapter_folder(root):
        raise ValueError(f"the base {source} is itself an adapter: merge it first")
    if read_json(root / CONFIG_FILE).get("model_type") == "qwen2_5_vl":
        raise ValueError(
            f"the base {source} is Qwen2.5-VL alone: build a model with UniPixel.from_base(qwen, sam2) "
            "and pass it as `base`"
        )
    return load(model_class, root, **options)


def segmenter_name(segmenter: SegmenterConfig) -> str | None:
    """Return the short name of a published SAM 2.1 size (`t`, `s`, `b+`, `l`); None for other sizes."""
    for name in ("t", "s", "b+", "l"):
        if SegmenterConfig.preset(name, image_size=segmenter.image_size) == segmenter:
            return name
    return None


def _is_published_size(config: UniPixelConfig) -> bool:
    name = segmenter_name(config.segmenter)
    return name is not None and str(config.to_dict()["sam2_config"]).endswith(f"sam2.1_hiera_{name}")


def choose_dtype(dtype: torch.dtype | Literal["auto"], fields: Mapping[str, Any]) -> torch.dtype:
    """Return the requested type, or for `auto` the one in the fields of config.json.

    Raises:
        ValueError: config.json has a type other than float32, bfloat16 and float16.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    name = fields.get("torch_dtype") or fields.get("dtype") or "float32"
    if not isinstance(name, str) or name not in _DTYPES:
        raise ValueError(f"config.json has the type {name!r:.80}: allowed are {', '.join(_DTYPES)}")
    return _DTYPES[name]


def choose_attention(attention: Attention, device: str | torch.device, dtype: torch.dtype | str) -> str:
    """Return the requested implementation; `auto` is flash-attn on CUDA in half precision, else sdpa.

    Raises:
        ValueError: The implementation is unknown.
    """
    if attention not in get_args(Attention):
        raise ValueError(f"attention must be one of {', '.join(get_args(Attention))}, got {attention!r:.80}")
    if attention != "auto":
        return attention
    from transformers.utils import is_flash_attn_2_available

    is_half = dtype in (torch.bfloat16, torch.float16)
    usable = torch.device(device).type == "cuda" and is_half and is_flash_attn_2_available()
    return "flash_attention_2" if usable else "sdpa"
