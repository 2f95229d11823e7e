"""LoRA adapters and partial weights: applied to a model, merged into it, or kept for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from unipixel.checkpoints.files import CONFIG_FILE, write_json
from unipixel.checkpoints.tensor_layout import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    PARTIAL_FILE,
    CheckpointError,
    TensorFiles,
    check_tensors,
    float32_names,
    from_disk_name,
    to_disk_name,
)

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel

_PEFT_PREFIX = "base_model.model."
# Published adapter folders lack these Fourier matrices, without which point and box prompts fail.
_BUFFERS = (
    "prompt_encoder.ref_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "prompt_encoder.tem_pe.positional_encoding_gaussian_matrix",
    "sam2.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
)


def apply_adapter_folder(model: UniPixel, folder: Path, *, merge: bool = True) -> None:
    """Apply the LoRA adapter and the partial weights of a folder to a model.

    Args:
        model: The base; changed in place.
        folder: Contains adapter_config.json with adapter_model.safetensors, pytorch_model.safetensors, or both.
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
    """Overwrite the tensors of a model that a file contains.

    Raises:
        OSError: The file is missing or truncated.
        CheckpointError: It contains tensors that the model does not have, or of other shapes.
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
    """Insert trainable LoRA layers into a model, in place; `requires_grad` of the other parameters is kept."""
    frozen = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        plain = name.replace(".base_layer.", ".")
        if plain in frozen:
            parameter.requires_grad_(frozen[plain])


def merge_lora(model: UniPixel) -> None:
    """Merge the LoRA layers into the weights they adapt and remove them, in place."""
    for parent, name, layer in list(_lora_layers(model)):
        layer.merge(safe_merge=True)
        setattr(parent, name, layer.get_base_layer())


def save_adapter(model: UniPixel, folder: str | Path, config: LoraConfig, *, trained: Sequence[str] = ()) -> None:
    """Write the LoRA layers of a model and its other trained tensors, in the published layout.

    The random Fourier buffers are written too, unlike in the published code.

    Args:
        model: Has LoRA layers from `add_lora`.
        folder: Created if necessary.
        config: Configuration of the layers.
        trained: Names in memory of other tensors to write.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    lora = get_peft_model_state_dict(model)
    save_file({_PEFT_PREFIX + name: _stored(tensor) for name, tensor in lora.items()}, target / ADAPTER_FILE)
    config.save_pretrained(str(target))
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}
    partial = {name: state[name] for name in (*trained, *_BUFFERS)}
    save_file({_PEFT_PREFIX + to_disk_name(name): _stored(t) for name, t in partial.items()}, target / PARTIAL_FILE)
    write_json(target / CONFIG_FILE, model.config.to_dict())


def _load_lora(model: UniPixel, folder: Path) -> None:
    """Add the LoRA layers of a folder and load their tensors."""
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
    # Published configurations name the layers of another class, so the tensor names decide.
    config.target_modules = targets
    # With a task type, peft requires the generation methods of transformers.
    config.task_type = None
    add_lora(model, config)
    outcome = set_peft_model_state_dict(model, tensors)
    if outcome.unexpected_keys:
        raise CheckpointError(f"the adapter contains tensors that do not fit: {outcome.unexpected_keys[:5]}")


def _lora_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, BaseTunerLayer]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, BaseTunerLayer):
                yield parent, name, child


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
