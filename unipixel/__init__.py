"""UniPixel: a video-first streaming segmentation agent.

The names below are the public API; each is loaded when it is first used, so that importing the package
loads neither torch nor a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unipixel.checkpoint import CheckpointError
    from unipixel.config import UniPixelConfig
    from unipixel.generation import AnswerStream, Generation, GenerationSettings, read
    from unipixel.inputs import ModelInputs, ModelOutput, VideoFeatures, VideoInput
    from unipixel.language import Prefix
    from unipixel.model import UniPixel
    from unipixel.prompts import BoxPrompt, MaskPrompt, PointPrompt, ReferencePrompt
    from unipixel.tracking.config import SegmenterConfig

_HOMES = {
    "AnswerStream": "unipixel.generation",
    "BoxPrompt": "unipixel.prompts",
    "CheckpointError": "unipixel.weights",
    "Generation": "unipixel.generation",
    "GenerationSettings": "unipixel.generation",
    "MaskPrompt": "unipixel.prompts",
    "ModelInputs": "unipixel.inputs",
    "ModelOutput": "unipixel.inputs",
    "PointPrompt": "unipixel.prompts",
    "Prefix": "unipixel.language",
    "ReferencePrompt": "unipixel.prompts",
    "SegmenterConfig": "unipixel.tracking.config",
    "UniPixel": "unipixel.model",
    "UniPixelConfig": "unipixel.config",
    "VideoFeatures": "unipixel.inputs",
    "VideoInput": "unipixel.inputs",
    "read": "unipixel.generation",
}

__all__ = [
    "AnswerStream",
    "BoxPrompt",
    "CheckpointError",
    "Generation",
    "GenerationSettings",
    "MaskPrompt",
    "ModelInputs",
    "ModelOutput",
    "PointPrompt",
    "Prefix",
    "ReferencePrompt",
    "SegmenterConfig",
    "UniPixel",
    "UniPixelConfig",
    "VideoFeatures",
    "VideoInput",
    "read",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
