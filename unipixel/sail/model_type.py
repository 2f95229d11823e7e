"""Recognition of a Pixel-SAIL checkpoint by the fields of its config.json, and names of its settings, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

SAIL_MODEL_TYPE = "pixel_sail"
RotaryLayout = Literal["split", "interleaved"]
PromptEncoding = Literal["injection", "pooling"]
# Fields that every configuration of Pixel-SAIL has and no other: some files have no model_type.
_SAIL_FIELDS = ("mask_channels", "num_upsample_blocks")


def is_sail_config(fields: Mapping[str, Any]) -> bool:
    """Return whether the fields of a config.json are those of Pixel-SAIL."""
    model_type = fields.get("model_type")
    return model_type == SAIL_MODEL_TYPE or (
        model_type is None and all(fields.get(name) is not None for name in _SAIL_FIELDS)
    )
