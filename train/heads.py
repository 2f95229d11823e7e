"""What a model was asked by and does not keep: heads that later stages go on with."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

_FILE = "heads.safetensors"
_MODEL = "model."


def save_heads(objective: nn.Module, folder: Path) -> None:
    """Write the parts of an objective that are not part of its model.

    Raises:
        OSError: The folder cannot be written.
    """
    state = {
        name: tensor.contiguous() for name, tensor in objective.state_dict().items() if not name.startswith(_MODEL)
    }
    if state:
        save_file(state, folder / _FILE, metadata={"format": "pt"})


def load_heads(objective: nn.Module, folder: Path) -> None:
    """Take over the heads of an earlier stage where it left any that this one has."""
    if (folder / _FILE).is_file():
        wanted = objective.state_dict()
        found = load_file(folder / _FILE)
        objective.load_state_dict({name: found[name] for name in found if name in wanted}, strict=False)
