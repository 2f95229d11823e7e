"""Results of training stages: partial weights, merged models, adapters, segmenters."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from unipixel.checkpoints.lora import merge_lora, save_adapter
from unipixel.checkpoints.tensor_layout import PARTIAL_FILE, SINGLE_FILE, to_disk_name
from unipixel.model.config import SEGMENTER_FILE
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.train.parameter_groups import trainable_parameters
from unipixel.train.recipe import Recipe
from unipixel.train.segmenter_objective import SegmenterObjective

SEGMENTER_WEIGHTS = "segmenter.safetensors"
_FOURIER = "positional_encoding_gaussian_matrix"


def save_result(
    recipe: Recipe, model: UniPixel, processor: Processor, folder: Path, *, lora: LoraConfig | None = None
) -> None:
    """Write the result of a stage.

    Stages 1 and 2 write partial weights, the others a whole model; low-rank updates are written separately first, then
    merged.

    Args:
        recipe: Settings of the run.
        model: The trained model; low-rank updates are merged into it.
        processor: Processor of the model.
        folder: Folder of the result.
        lora: Configuration of the low-rank updates, where there are some.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.stage in ("stage1", "stage2"):
        save_partial(model, folder)
        processor.save_pretrained(folder)
        return
    if lora is not None:
        trained = [name for name, _ in trainable_parameters(model) if ".lora_" not in name]
        save_adapter(model, folder / "adapter", lora, trained=trained)
        merge_lora(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_partial(model: UniPixel, folder: Path) -> None:
    """Write the trained parameters and the random Fourier matrices that they depend on."""
    names = {name for name, _ in trainable_parameters(model)}
    state = {
        to_disk_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name in names or name.endswith(_FOURIER)
    }
    save_file(state, folder / PARTIAL_FILE, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), indent=2) + "\n", encoding="utf-8")


def convert_to_half(folder: Path) -> int:
    """Store a single-file checkpoint in half precision; `from_pretrained` still loads it in float32.

    Args:
        folder: Folder of `model.safetensors`, which is rewritten. The Fourier matrices stay in float32.

    Returns:
        Size of the file in bytes.

    Raises:
        OSError: There is no such file.
    """
    path = folder / SINGLE_FILE
    state = load_file(path)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not name.endswith(_FOURIER):
            state[name] = tensor.to(torch.float16)
    save_file(state, path, metadata={"format": "pt"})
    return path.stat().st_size


def save_segmenter(objective: SegmenterObjective, folder: Path) -> None:
    """Write a segmenter with its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in objective.state_dict().items()}
    save_file(state, folder / SEGMENTER_WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(objective.segmenter.config.to_tree(), indent=2)
    (folder / SEGMENTER_FILE).write_text(text + "\n", encoding="utf-8")
