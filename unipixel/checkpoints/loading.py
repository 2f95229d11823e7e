"""Loading and saving models: published and current layouts, sharded and single, safetensors only."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import init_empty_weights
from huggingface_hub import save_torch_state_dict, snapshot_download
from torch import nn

from unipixel.checkpoints.lora import apply_adapter_folder, is_adapter_folder
from unipixel.checkpoints.quantization import Quantization, quantize_language
from unipixel.checkpoints.tensor_layout import CheckpointError, TensorFiles, load_tensors, to_disk_name
from unipixel.model.config import SEGMENTER_FILE, PoolOrder, UniPixelConfig
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter

BUNDLED = Path(__file__).parents[1] / "assets" / "models"
GENERATION_FILE = "generation_config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LM_HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]


def load(
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

    Weights of UniPixel-3B derive from Qwen2.5-VL-3B, whose licence allows research use only; those of the
    7B are under Apache-2.0 (see THIRD_PARTY.md).

    Args:
        source: A bundled name, a folder, or a hub id such as `PolyU-ChenLab/UniPixel-3B`. A folder may
            hold a full checkpoint, or a LoRA adapter and partial weights over `base`.
        dtype: Type of the language model; `auto` takes the one that config.json names. SAM 2.1 and the
            prompt encoder stay in float32.
        device: Where the model goes.
        attention: Implementation; `auto` takes flash-attn where it is installed and usable, else sdpa.
        memory_pool_order: Overrides the checkpoint's; `window` is right for the published weights.
        sam2_config: Sizes of SAM 2.1 where the checkpoint names none of the published ones and brings
            no sam2_config.json.
        quantization: `8bit` or `4bit` for the language model's linear layers, through bitsandbytes.
        base: What an adapter or partial folder is applied to: a model, or the source of one; by default
            the `base_model_path` of its config.json.
        merge_adapter: Whether a LoRA adapter is merged into the weights, or kept trainable.

    Returns:
        The model in evaluation mode.

    Raises:
        OSError: The source cannot be found, fetched or read, or holds pickles only.
        CheckpointError: Tensors are missing, unexpected or mis-shaped.
        ValueError: The configuration is incomplete, inconsistent or asks for remote code.
        ImportError: bitsandbytes is needed and missing.
    """
    place = usable_device(device)
    folder = resolve(source)
    if is_adapter_folder(folder):
        model = base if isinstance(base, UniPixel) else _load_adapter_base(
            folder, base, dtype=dtype, attention=attention, sam2_config=sam2_config,
            memory_pool_order=memory_pool_order,
        )  # fmt: skip
        apply_adapter_folder(model, folder, merge=merge_adapter)
    else:
        config = read_config(folder, sam2_config=sam2_config, memory_pool_order=memory_pool_order)
        model = build_empty(config, attention=choose_attention(attention, device, dtype))
        tied = {LM_HEAD: EMBEDDING} if config.is_tied else {}
        load_tensors(model, TensorFiles.of_folder(folder), dtype=choose_dtype(dtype, config.extra), tied=tied)
        model.tie_weights()
    if quantization:
        quantize_language(model, quantization)
    return model.to(place).eval()


def load_segmenter(source: str | Path, *, device: str | torch.device = "cpu") -> Segmenter:
    """Load SAM 2.1 alone out of a UniPixel checkpoint, for tracking without a language model.

    Args:
        source: See `load`; a full checkpoint.
        device: Where it goes.

    Raises:
        OSError: The source cannot be found, fetched or read.
        CheckpointError: Tensors are missing or mis-shaped.
    """
    place = usable_device(device)
    folder = resolve(source)
    segmenter = read_config(folder).segmenter
    with init_empty_weights(include_buffers=False):
        holder = nn.ModuleDict({"sam2": Segmenter(segmenter)})
    files = TensorFiles.of_folder(folder)
    load_tensors(holder, files.only("sam2."), dtype=torch.float32)
    return cast("Segmenter", holder["sam2"]).to(place).eval()


def save(model: UniPixel, folder: str | Path, *, max_shard_size: str = "5GB") -> None:
    """Write a checkpoint in the published layout, readable here and by the published code.

    All tensors go in, the random Fourier buffers too. The files are written beside the folder first and
    moved in when they are complete.

    Args:
        model: The model; LoRA layers must have been merged.
        folder: Created if need be; files of the same names are replaced.
        max_shard_size: Size above which the tensors are split over several files.

    Raises:
        ValueError: The model still carries LoRA layers or quantised weights.
        OSError: The folder cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    state = {to_disk_name(name): tensor for name, tensor in model.state_dict().items()}
    if model.config.is_tied:
        del state[LM_HEAD]
    if odd := [name for name in state if ".lora_" in name or ".base_layer." in name or "quant" in name]:
        raise ValueError(f"merge the adapter before saving; the model still holds {odd[0]} and {len(odd) - 1} more")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        save_torch_state_dict(state, scratch, max_shard_size=max_shard_size)
        dtype = str(model.dtype).removeprefix("torch.")
        _write_json(Path(scratch) / "config.json", model.config.to_dict() | {"torch_dtype": dtype})
        _write_json(Path(scratch) / GENERATION_FILE, {"eos_token_id": list(model.config.eos_token_ids)})
        if not _is_published_size(model.config):
            _write_json(Path(scratch) / SEGMENTER_FILE, model.config.segmenter.to_tree())
        for stale in (*target.glob("model*.safetensors"), *target.glob("model.safetensors.index.json")):
            stale.unlink()
        for file in Path(scratch).iterdir():
            shutil.move(file, target / file.name)


def resolve(source: str | Path) -> Path:
    """Find a checkpoint's folder: a folder, a bundled name, or a hub id, which is fetched.

    Raises:
        OSError: None of these, or the hub cannot be reached.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_file():
        raise NotADirectoryError(f"a checkpoint is a folder, {source} is a file")
    name = str(source)
    bundled = sorted(entry.name for entry in BUNDLED.iterdir() if entry.is_dir()) if BUNDLED.is_dir() else []
    if name in bundled:
        return BUNDLED / name
    if isinstance(source, Path) or not _HUB_ID.fullmatch(name):
        raise FileNotFoundError(
            f"no checkpoint {name!r}: give a folder, a hub id (owner/name), or a bundled model ({bundled or 'none'})"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt"]))
    except (OSError, ValueError) as error:
        # huggingface_hub raises OSError for the network and the hub's answers, ValueError for a malformed id.
        raise OSError(
            f"could not fetch {name!r} from the hub ({type(error).__name__}): check the name and the network, "
            "or give a folder that holds the checkpoint"
        ) from error


def read_config(
    folder: Path, *, sam2_config: SegmenterConfig | None = None, memory_pool_order: PoolOrder | None = None
) -> UniPixelConfig:
    """Read the configuration of a checkpoint folder.

    Raises:
        OSError: config.json is missing or no JSON.
        ValueError: It is incomplete, inconsistent or asks for remote code.
    """
    fields = read_json(folder / "config.json")
    if sam2_config is None and (folder / SEGMENTER_FILE).is_file():
        sam2_config = SegmenterConfig.from_tree(read_json(folder / SEGMENTER_FILE))
    return UniPixelConfig.from_dict(
        fields, segmenter=sam2_config, memory_pool_order=memory_pool_order, generation=read_generation(folder)
    )


def build_empty(config: UniPixelConfig, *, attention: str = "sdpa") -> UniPixel:
    """Build a model whose parameters take no memory; its names and shapes can be read, or tensors assigned."""
    with init_empty_weights(include_buffers=False):
        return UniPixel(config, attention=attention)


def expected_tensors(config: UniPixelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that a checkpoint of this configuration holds on disk."""
    state = build_empty(config).state_dict()
    if config.is_tied:
        del state[LM_HEAD]
    return {to_disk_name(name): tuple(tensor.shape) for name, tensor in state.items()}


def _load_adapter_base(folder: Path, base: str | Path | None, **options: Any) -> UniPixel:
    source = base or read_json(folder / "config.json").get("base_model_path")
    if not source:
        raise ValueError(f"{folder} holds an adapter or partial weights and names no base_model_path: give `base`")
    root = resolve(source)
    if is_adapter_folder(root):
        raise ValueError(f"the base {source} is itself an adapter: merge it first")
    if read_json(root / "config.json").get("model_type") == "qwen2_5_vl":
        raise ValueError(
            f"the base {source} is Qwen2.5-VL alone: build a model with UniPixel.from_base(qwen, sam2) "
            "and pass it as `base`"
        )
    return load(root, **options)


def segmenter_name(segmenter: SegmenterConfig) -> str | None:
    """Return the short name of a published SAM 2.1 size (`t`, `s`, `b+`, `l`), None for a custom one."""
    for name in ("t", "s", "b+", "l"):
        if SegmenterConfig.preset(name, image_size=segmenter.image_size) == segmenter:
            return name
    return None


def _is_published_size(config: UniPixelConfig) -> bool:
    name = segmenter_name(config.segmenter)
    return name is not None and str(config.to_dict()["sam2_config"]).endswith(f"sam2.1_hiera_{name}")


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device that this machine has.

    Raises:
        ValueError: There is no such device, or torch cannot use it.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is unknown: allowed are cpu, cuda, cuda:N and mps") from error
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    is_there = {"cuda": (chosen.index or 0) < num_cuda, "mps": torch.backends.mps.is_available()}
    if not is_there.get(chosen.type, True):
        raise ValueError(
            f"device {str(device)!r} is not on this machine, torch sees {num_cuda} CUDA devices: use device='cpu'"
        )
    return chosen


def choose_dtype(dtype: torch.dtype | Literal["auto"], fields: Mapping[str, Any]) -> torch.dtype:
    """Return the type asked for, or the one that config.json names.

    Raises:
        ValueError: config.json names another type than float32, bfloat16 and float16.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    name = fields.get("torch_dtype") or fields.get("dtype") or "float32"
    if name not in _DTYPES:
        raise ValueError(f"config.json names the type {name!r}: allowed are {', '.join(_DTYPES)}")
    return _DTYPES[name]


def choose_attention(attention: Attention, device: str | torch.device, dtype: torch.dtype | str) -> str:
    """Return the implementation asked for; `auto` is flash-attn on CUDA in half precision, else sdpa."""
    if attention != "auto":
        return attention
    from transformers.utils import is_flash_attn_2_available

    is_half = dtype in (torch.bfloat16, torch.float16)
    usable = torch.device(device).type == "cuda" and is_half and is_flash_attn_2_available()
    return "flash_attention_2" if usable else "sdpa"


def read_generation(folder: Path) -> dict[str, Any]:
    """Return the content of generation_config.json, empty where there is none."""
    file = folder / GENERATION_FILE
    return read_json(file) if file.is_file() else {}


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OSError: The file is missing or holds no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is missing: is {file.parent} a checkpoint?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise OSError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise OSError(f"{file} holds no JSON object")
    return content


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = [
    "CheckpointError",
    "build_empty",
    "expected_tensors",
    "load",
    "load_segmenter",
    "read_config",
    "resolve",
    "save",
]
