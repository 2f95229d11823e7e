"""The tiny weights of the recorded cases, drawn from the names of the tensors."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unipixel.checkpoints.tensor_layout import to_disk_name
from unipixel.model.config import UniPixelConfig
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.config import SegmenterConfig

PARITY = Path(__file__).parent
GOLDEN = PARITY / "golden"


def tiny_segmenter_config() -> SegmenterConfig:
    """Return the SAM 2.1 sizes of the recorded cases."""
    return SegmenterConfig.from_tree(json.loads((PARITY / "sam2_tiny.json").read_text(encoding="utf-8")))


def tiny_config() -> UniPixelConfig:
    """Return the configuration of the recorded cases: window pooling, untied head."""
    fields = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
    return UniPixelConfig.from_dict(fields, segmenter=tiny_segmenter_config())


def seeded_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a tensor from its name in the memory of the reference implementation."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        values = 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
    elif "gaussian" in name or "embed" in name:
        values = 0.5 * values
    else:
        values = 1.4 * values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def tiny_model(config: UniPixelConfig | None = None) -> UniPixel:
    """Return the model of the recorded cases, or one of another configuration with weights drawn likewise."""
    model = UniPixel.build_empty(config or tiny_config())
    state = {
        name: seeded_tensor(_reference_name(name), tuple(tensor.shape)) for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    return model.eval()


def _reference_name(name: str) -> str:
    """Return the name of a tensor in the memory of the reference implementation."""
    return name if name.startswith("model.") else to_disk_name(name)
