"""Nested training state in one safetensors file: tensors by path, everything else as JSON in its header.

Nothing is pickled: a checkpoint that comes from elsewhere can be read without running its code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_TENSOR, _STATE = "tensor", "state"


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a tree of dictionaries, lists, tensors and plain values; keys become strings.

    A process that is killed while it writes leaves the file that was there before.

    Raises:
        OSError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_take_tensors(state, "", tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={_STATE: structure})
    os.replace(partial, path)


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote, with its tensors on the CPU.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no training state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            structure = json.loads((file.metadata() or {})[_STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no training state: delete it or give another output") from error
    return dict(_put_tensors(structure, tensors))


def _take_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # Tied weights are written twice: safetensors stores no shared memory.
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: path}
    if isinstance(value, dict):
        return {str(key): _take_tensors(own, f"{path}/{key}", tensors) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_take_tensors(own, f"{path}/{row}", tensors) for row, own in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR} and isinstance(value[_TENSOR], str):
            return tensors[value[_TENSOR]]
        return {key: _put_tensors(own, tensors) for key, own in value.items()}
    if isinstance(value, list):
        return [_put_tensors(own, tensors) for own in value]
    return value
