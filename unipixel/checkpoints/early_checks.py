"""Checks of a checkpoint that need neither torch nor transformers, made before these are imported."""

from __future__ import annotations

from pathlib import Path

from unipixel.checkpoints.files import CONFIG_FILE, read_json, read_segmenter_config, resolve
from unipixel.checkpoints.tensor_layout import TensorFiles, is_adapter_folder

# Pixel-SAIL; some of its published files have no model_type.
_OTHER_TYPES = ("pixel_sail", None)


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
    if read_json(folder / CONFIG_FILE).get("model_type") not in _OTHER_TYPES:
        read_segmenter_config(folder)
    TensorFiles.of_folder(folder)
