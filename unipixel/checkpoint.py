"""Loading and saving models: published and current layouts, sharded and single, safetensors only."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from huggingface_hub import save_torch_state_dict, snapshot_download
from torch import nn

from unipixel.adapters import apply_adapter_folder, is_adapter_folder
from unipixel.config import SEGMENTER_FILE, PoolOrder, UniPixelConfig, read_eos_ids, read_qwen_config
from unipixel.connector import MaskTokenHead, MemoryProjector, VisualPromptEncoder
from unipixel.model import UniPixel
from unipixel.quantize import Quantization, quantize_language
from unipixel.tracking.config import SegmenterConfig
from unipixel.weights import CheckpointError, TensorFiles, check_tensors, load_tensors, to_disk_name

BUNDLED = Path(__file__).parent / "assets" / "models"
GENERATION_FILE = "generation_config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LM_HEAD, _EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
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
    folder = resolve(source)
    if is_adapter_folder(folder):
        # `load_full` of the base, then the adapter: the same options hold for the base.
        model = base if isinstance(base, UniPixel) else _load_adapter_base(
            folder, base, dtype=dtype, attention=attention, sam2_config=sam2_config,
            memory_pool_order=memory_pool_order,
        )  # fmt: skip
        apply_adapter_folder(model, folder, merge=merge_adapter)
    else:
        config = read_config(folder, sam2_config=sam2_config, memory_pool_order=memory_pool_order)
        model = build_empty(config, attention=_choose_attention(attention, device, dtype))
        tied = {_LM_HEAD: _EMBEDDING} if config.is_tied else {}
        load_tensors(model, TensorFiles.of_folder(folder), dtype=_choose_dtype(dtype, config.extra), tied=tied)
        model.tie_weights()
    if quantization:
        quantize_language(model, quantization)
    return model.to(device).eval()


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
    folder = resolve(qwen)
    fields = _read_json(folder / "config.json")
    segmenter = sam2_config or _sam2_size(Path(sam2), image_size)
    config = _base_config(folder, fields, segmenter, special_token_ids, sam2)
    model = build_empty(config, attention=_choose_attention(attention, device, dtype))
    _load_sam2(model, Path(sam2))
    tied = {_LM_HEAD: _EMBEDDING} if config.is_tied else {}
    language = nn.ModuleDict({"model": model.model, "lm_head": model.lm_head})
    load_tensors(language, TensorFiles.of_folder(folder), dtype=_choose_dtype(dtype, fields), tied=tied)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _start_heads(model)
    model.tie_weights()
    return model.to(device).eval()


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
        del state[_LM_HEAD]
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
    fields = _read_json(folder / "config.json")
    if sam2_config is None and (folder / SEGMENTER_FILE).is_file():
        sam2_config = SegmenterConfig.from_tree(_read_json(folder / SEGMENTER_FILE))
    return UniPixelConfig.from_dict(
        fields, segmenter=sam2_config, memory_pool_order=memory_pool_order, generation=_read_generation(folder)
    )


def build_empty(config: UniPixelConfig, *, attention: str = "sdpa") -> UniPixel:
    """Build a model whose parameters take no memory; its names and shapes can be read, or tensors assigned."""
    with init_empty_weights(include_buffers=False):
        return UniPixel(config, attention=attention)


def expected_tensors(config: UniPixelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that a checkpoint of this configuration holds on disk."""
    state = build_empty(config).state_dict()
    if config.is_tied:
        del state[_LM_HEAD]
    return {to_disk_name(name): tuple(tensor.shape) for name, tensor in state.items()}


def _load_adapter_base(folder: Path, base: str | Path | None, **options: Any) -> UniPixel:
    source = base or _read_json(folder / "config.json").get("base_model_path")
    if not source:
        raise ValueError(f"{folder} holds an adapter or partial weights and names no base_model_path: give `base`")
    root = resolve(source)
    if is_adapter_folder(root):
        raise ValueError(f"the base {source} is itself an adapter: merge it first")
    if _read_json(root / "config.json").get("model_type") == "qwen2_5_vl":
        raise ValueError(
            f"the base {source} is Qwen2.5-VL alone: build a model with UniPixel.from_base(qwen, sam2) "
            "and pass it as `base`"
        )
    return load(root, **options)


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
        from unipixel.tokens import load_tokenizer, special_ids

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
        eos_token_ids=read_eos_ids(_read_generation(folder), fields),
        extra=extra,
    )


def segmenter_name(segmenter: SegmenterConfig) -> str | None:
    """Return the short name of a published SAM 2.1 size (`t`, `s`, `b+`, `l`), None for a custom one."""
    for name in ("t", "s", "b+", "l"):
        if SegmenterConfig.preset(name, image_size=segmenter.image_size) == segmenter:
            return name
    return None


def _is_published_size(config: UniPixelConfig) -> bool:
    name = segmenter_name(config.segmenter)
    return name is not None and str(config.to_dict()["sam2_config"]).endswith(f"sam2.1_hiera_{name}")


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
        # The one pickle that is ever read: the official file, with nothing but tensors allowed in it.
        state = torch.load(file, map_location="cpu", weights_only=True)["model"]
    expected = {name: tuple(tensor.shape) for name, tensor in model.sam2.state_dict().items()}
    check_tensors(expected, {name: tuple(tensor.shape) for name, tensor in state.items()})
    model.sam2.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


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


def _choose_dtype(dtype: torch.dtype | Literal["auto"], fields: Mapping[str, Any]) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    name = fields.get("torch_dtype") or fields.get("dtype") or "float32"
    if name not in _DTYPES:
        raise ValueError(f"config.json names the type {name!r}: allowed are {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _choose_attention(attention: Attention, device: str | torch.device, dtype: torch.dtype | str) -> str:
    if attention != "auto":
        return attention
    from transformers.utils import is_flash_attn_2_available

    is_half = dtype in (torch.bfloat16, torch.float16)
    usable = torch.device(device).type == "cuda" and is_half and is_flash_attn_2_available()
    return "flash_attention_2" if usable else "sdpa"


def _read_generation(folder: Path) -> dict[str, Any]:
    file = folder / GENERATION_FILE
    return _read_json(file) if file.is_file() else {}


def _read_json(file: Path) -> dict[str, Any]:
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
    "load_base",
    "read_config",
    "resolve",
    "save",
]
