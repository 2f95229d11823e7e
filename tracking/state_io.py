"""Nested values with tensors in one safetensors file, which, unlike a pickle, runs no code when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_TREE, _FORMAT = "tree", "format"


def write_tree(path: str | Path, values: Any, *, file_format: str) -> None:
    """Write mappings, lists, tuples, numbers, strings, None and tensors; tuples are read back as lists.

    Args:
        path: The file.
        values: The values.
        file_format: Name and version of their layout.

    Raises:
        TypeError: A value is of another type.
        OSError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = _packed(values, tensors)
    save_file(tensors, Path(path), metadata={_FORMAT: file_format, _TREE: json.dumps(tree)})


def read_tree(path: str | Path, *, file_format: str, device: torch.device | str = "cpu") -> Any:
    """Read a file of `write_tree`.

    Args:
        path: The file.
        file_format: The expected layout.
        device: Device of the tensors.

    Raises:
        OSError: The file is missing, truncated, of another layout, or was not written by `write_tree`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with safe_open(Path(path), framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            found = metadata.get(_FORMAT, "")
            if found == file_format:
                tree = json.loads(metadata[_TREE])
                return _unpacked(tree, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise OSError(f"{path} is not a saved state, or is damaged: {error}") from error
    given = f"the format {found!r:.80}" if found else "no format"
    raise OSError(f"{path} has {given} and was written by another version: this version reads {file_format!r}")


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by names and mappings by pairs, because JSON keys cannot be numbers."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        # Cloned, because safetensors refuses tensors that share memory.
        tensors[name] = value.detach().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[_packed(key, tensors), _packed(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_packed(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be saved")


def _unpacked(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        return {_unpacked(key, tensors): _unpacked(item, tensors) for key, item in tree["pairs"]}
    if isinstance(tree, list):
        return [_unpacked(item, tensors) for item in tree]
    return tree
