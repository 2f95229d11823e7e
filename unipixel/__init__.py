"""UniPixel: a video-first streaming segmentation agent.

The names below are the public API; each is loaded when it is first used, so that importing the package
loads neither torch nor a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unipixel.agent import Answer, Session
    from unipixel.config import UniPixelConfig
    from unipixel.generation import AnswerStream, Generation, GenerationSettings, read
    from unipixel.inputs import ModelInputs, ModelOutput, VideoFeatures, VideoInput
    from unipixel.language import Prefix
    from unipixel.live import LiveSession, LiveSettings
    from unipixel.memory.bank import ObjectMemoryBank
    from unipixel.model import UniPixel
    from unipixel.processor import Processor
    from unipixel.prompts import BoxPrompt, MaskPrompt, PointPrompt, ReferencePrompt
    from unipixel.settings import SessionSettings
    from unipixel.tokens import Turn
    from unipixel.tracking.config import SegmenterConfig
    from unipixel.tracking.tracker import StreamingTracker
    from unipixel.video import open_video
    from unipixel.weights import CheckpointError

_HOMES = {
    "Answer": "unipixel.agent",
    "AnswerStream": "unipixel.generation",
    "BoxPrompt": "unipixel.prompts",
    "CheckpointError": "unipixel.weights",
    "Generation": "unipixel.generation",
    "GenerationSettings": "unipixel.generation",
    "LiveSession": "unipixel.live",
    "LiveSettings": "unipixel.live",
    "MaskPrompt": "unipixel.prompts",
    "ModelInputs": "unipixel.inputs",
    "ModelOutput": "unipixel.inputs",
    "ObjectMemoryBank": "unipixel.memory.bank",
    "PointPrompt": "unipixel.prompts",
    "Prefix": "unipixel.language",
    "Processor": "unipixel.processor",
    "ReferencePrompt": "unipixel.prompts",
    "SegmenterConfig": "unipixel.tracking.config",
    "Session": "unipixel.agent",
    "SessionSettings": "unipixel.settings",
    "StreamingTracker": "unipixel.tracking.tracker",
    "Turn": "unipixel.tokens",
    "UniPixel": "unipixel.model",
    "UniPixelConfig": "unipixel.config",
    "VideoFeatures": "unipixel.inputs",
    "VideoInput": "unipixel.inputs",
    "open_video": "unipixel.video",
    "read": "unipixel.generation",
}

__all__ = [
    "Answer",
    "AnswerStream",
    "BoxPrompt",
    "CheckpointError",
    "Generation",
    "GenerationSettings",
    "LiveSession",
    "LiveSettings",
    "MaskPrompt",
    "ModelInputs",
    "ModelOutput",
    "ObjectMemoryBank",
    "PointPrompt",
    "Prefix",
    "Processor",
    "ReferencePrompt",
    "SegmenterConfig",
    "Session",
    "SessionSettings",
    "StreamingTracker",
    "Turn",
    "UniPixel",
    "UniPixelConfig",
    "VideoFeatures",
    "VideoInput",
    "open_video",
    "read",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
