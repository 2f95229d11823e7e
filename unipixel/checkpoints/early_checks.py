"""Checks of a checkpoint that need neither torch nor transformers, made before these are imported."""

from __future__ import annotations

from pathlib import Path

from unipixel.checkpoints.files import CONFIG_FILE, read_json, read_segmenter_config, resolve
from unipixel.checkpoints.tensor_layout import TensorFiles, is_adapter_folder
from unipixel.sail.model_type import is_sail_config


def check_checkpoint(source: str | Path) -> None:
    """Find a checkpoint, and check its model type and that its files of tensors are complete.

    Args:
        source: A folder, the name of a bundled model, or a hub id, which is downloaded.

    Raises:
        OSError: It cannot be found, downloaded or read, or a file is missing or truncated.
        ValueError: It is of another model type, or its configuration is incomplete or requires remote code.
    """
    folder = resolve(source)
    if is_adapter_folder(folder):
        return
    if not is_sail_config(read_json(folder / CONFIG_FILE)):
        read_segmenter_config(folder)
    TensorFiles.of_folder(folder)
