"""LoRA adapters and partial weights: laid over a model, merged into it, or kept for training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from unipixel.checkpoints.tensor_layout import (
    ADAPTER_FILE,
    INDEX_FILE,
    PARTIAL_FILE,
    SINGLE_FILE,
    CheckpointError,
    TensorFiles,
    check_tensors,
    float32_names,
    from_disk_name,
    to_disk_name,
)
from unipixel.model.unipixel import UniPixel

ADAPTER_CONFIG = "adapter_config.json"
_PEFT_PREFIX = "base_model.model."
# Fourier matrices that published adapter folders leave out: point and box prompts are then broken.
_BUFFERS = (
    "prompt_encoder.ref_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "prompt_encoder.tem_pe.positional_encoding_gaussian_matrix",
    "sam2.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
)


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter or partial weights, rather than a full checkpoint."""
    if (folder / SINGLE_FILE).is_file() or (folder / INDEX_FILE).is_file():
        return False
    return (folder / ADAPTER_CONFIG).is_file() or (folder / PARTIAL_FILE).is_file()


def apply_adapter_folder(model: UniPixel, folder: Path, *, merge: bool = True) -> None:
    """Lay the LoRA adapter and the partial weights of a folder over a model.

    Args:
        model: The base; changed in place.
        folder: Holds adapter_config.json with adapter_model.safetensors, pytorch_model.safetensors, or both.
        merge: Whether the adapter is merged into the weights, or kept as trainable layers.

    Raises:
        OSError: A file is missing or truncated.
        CheckpointError: Tensors do not fit the model.
    """
    if (folder / PARTIAL_FILE).is_file():
        load_partial(model, folder / PARTIAL_FILE)
    if (folder / ADAPTER_CONFIG).is_file():
        _load_lora(model, folder)
        if merge:
            merge_lora(model)


def load_partial(model: UniPixel, file: Path) -> None:
    """Overwrite those tensors of a model that a file holds.

    Raises:
        OSError: The file is missing or truncated.
        CheckpointError: It holds tensors that the model does not have, or of other shapes.
    """
    files = TensorFiles([file])
    names = {disk: from_disk_name(disk.removeprefix(_PEFT_PREFIX)) for disk in files.shapes}
    present = model.state_dict()
    check_tensors(
        {name: tuple(present[name].shape) for name in names.values() if name in present},
        {names[disk]: shape for disk, shape in files.shapes.items()},
    )
    kept = float32_names(model)
    dtypes = {disk: torch.float32 if name in kept else model.dtype for disk, name in names.items()}
    with torch.no_grad():
        for disk, tensor in files.read(files.shapes, dtypes=dtypes, device="cpu"):
            present[names[disk]].copy_(tensor)


def add_lora(model: UniPixel, config: LoraConfig) -> None:
    """Put trainable LoRA layers into a model, in place; the rest is frozen or not as it was."""
    frozen = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        plain = name.replace(".base_layer.", ".")
        if plain in frozen:
            parameter.requires_grad_(frozen[plain])


def merge_lora(model: UniPixel) -> None:
    """Add the LoRA layers' products to the weights they adapt and remove them, in place."""
    for parent, name, layer in list(_lora_layers(model)):
        layer.merge(safe_merge=True)
        setattr(parent, name, layer.get_base_layer())


def save_adapter(model: UniPixel, folder: str | Path, config: LoraConfig, *, trained: Sequence[str] = ()) -> None:
    """Write the LoRA layers of a model and its further trained tensors, in the published layout.

    The random Fourier buffers are written too, which the published code forgets.

    Args:
        model: Carries LoRA layers from `add_lora`.
        folder: Created if need be.
        config: The layers' configuration.
        trained: Names in memory of further tensors to write.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    lora = get_peft_model_state_dict(model)
    save_file({_PEFT_PREFIX + name: _stored(tensor) for name, tensor in lora.items()}, target / ADAPTER_FILE)
    config.save_pretrained(str(target))
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}
    partial = {name: state[name] for name in (*trained, *_BUFFERS)}
    save_file({_PEFT_PREFIX + to_disk_name(name): _stored(t) for name, t in partial.items()}, target / PARTIAL_FILE)
    fields = model.config.to_dict()
    (target / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load_lora(model: UniPixel, folder: Path) -> None:
    """Add the LoRA layers of a folder and give them its tensors."""
    files = TensorFiles([folder / ADAPTER_FILE])
    tensors = {
        from_disk_name(name.removeprefix(_PEFT_PREFIX)): tensor
        for name, tensor in files.read(files.shapes, dtypes={}, device="cpu")
    }
    targets = sorted({name.split(".lora_")[0] for name in tensors})
    known = dict(model.named_modules())
    if lost := [name for name in targets if not isinstance(known.get(name), nn.Linear)]:
        raise CheckpointError(f"the adapter adapts {len(lost)} layers that the model does not have: {lost[:5]}")
    config = LoraConfig.from_pretrained(str(folder))
    # The names of the tensors decide, not those in the configuration: they were written by another class.
    config.target_modules = targets
    # The task type would make peft expect transformers' generation methods.
    config.task_type = None
    add_lora(model, config)
    outcome = set_peft_model_state_dict(model, tensors)
    if outcome.unexpected_keys:
        raise CheckpointError(f"the adapter holds tensors that do not fit: {outcome.unexpected_keys[:5]}")


def _lora_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, BaseTunerLayer]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, BaseTunerLayer):
                yield parent, name, child


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
