"""UniPixel: question answering and object segmentation in videos and streams.

The names in `__all__` are the public API. Each is imported on first use, so that `import unipixel` imports
neither torch nor transformers. AutoConfig, AutoModel and AutoProcessor of transformers load UniPixel after it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from unipixel.auto.registration import register_auto_classes

if TYPE_CHECKING:
    from unipixel.checkpoints.architecture import load_checkpoint
    from unipixel.checkpoints.segmenters import load_segmenter
    from unipixel.checkpoints.tensor_layout import CheckpointError
    from unipixel.memory.bank import ObjectMemoryBank
    from unipixel.memory.mask_pooling import TokenMasks
    from unipixel.model.config import UniPixelConfig
    from unipixel.model.generation import AnswerStream, Generation, GenerationSettings, prefill
    from unipixel.model.inputs import ModelInputs, ModelOutput, ReferencePrompt, VideoFeatures, VideoInput
    from unipixel.model.qwen import PromptCache
    from unipixel.model.unipixel import UniPixel
    from unipixel.output.result import Result
    from unipixel.processing.chat_template import Turn
    from unipixel.processing.processor import Processor
    from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
    from unipixel.sail.patch_grid import RegionPrompt
    from unipixel.sail.pixel_sail import PixelSail
    from unipixel.sail.sail_config import PixelSailConfig
    from unipixel.sail.sail_inputs import ImagePatches, PatchStates, SailOutput
    from unipixel.sail.sail_processor import SailProcessor
    from unipixel.session.asking import ask
    from unipixel.session.base_session import Answer
    from unipixel.session.live_session import LiveSession, LiveSettings
    from unipixel.session.session import Session, open_session
    from unipixel.session.settings import SessionSettings
    from unipixel.tracking.config import SegmenterConfig
    from unipixel.tracking.tracker import StreamingTracker
    from unipixel.video.open import open_video

__version__ = "0.1.0"

register_auto_classes()

_MODULES = {
    "Answer": "unipixel.session.base_session",
    "AnswerStream": "unipixel.model.generation",
    "BoxPrompt": "unipixel.processing.visual_prompts",
    "CheckpointError": "unipixel.checkpoints.tensor_layout",
    "Generation": "unipixel.model.generation",
    "GenerationSettings": "unipixel.model.generation",
    "ImagePatches": "unipixel.sail.sail_inputs",
    "LiveSession": "unipixel.session.live_session",
    "LiveSettings": "unipixel.session.live_session",
    "MaskPrompt": "unipixel.processing.visual_prompts",
    "ModelInputs": "unipixel.model.inputs",
    "ModelOutput": "unipixel.model.inputs",
    "ObjectMemoryBank": "unipixel.memory.bank",
    "PatchStates": "unipixel.sail.sail_inputs",
    "PixelSail": "unipixel.sail.pixel_sail",
    "PixelSailConfig": "unipixel.sail.sail_config",
    "PointPrompt": "unipixel.processing.visual_prompts",
    "PromptCache": "unipixel.model.qwen",
    "Processor": "unipixel.processing.processor",
    "ReferencePrompt": "unipixel.model.inputs",
    "Result": "unipixel.output.result",
    "RegionPrompt": "unipixel.sail.patch_grid",
    "SailOutput": "unipixel.sail.sail_inputs",
    "SailProcessor": "unipixel.sail.sail_processor",
    "SegmenterConfig": "unipixel.tracking.config",
    "Session": "unipixel.session.session",
    "SessionSettings": "unipixel.session.settings",
    "StreamingTracker": "unipixel.tracking.tracker",
    "TokenMasks": "unipixel.memory.mask_pooling",
    "Turn": "unipixel.processing.chat_template",
    "UniPixel": "unipixel.model.unipixel",
    "UniPixelConfig": "unipixel.model.config",
    "VideoFeatures": "unipixel.model.inputs",
    "VideoInput": "unipixel.model.inputs",
    "load_checkpoint": "unipixel.checkpoints.architecture",
    "ask": "unipixel.session.asking",
    "load_segmenter": "unipixel.checkpoints.segmenters",
    "open_session": "unipixel.session.session",
    "open_video": "unipixel.video.open",
    "prefill": "unipixel.model.generation",
}

__all__ = [
    "Answer",
    "AnswerStream",
    "BoxPrompt",
    "CheckpointError",
    "Generation",
    "GenerationSettings",
    "ImagePatches",
    "LiveSession",
    "LiveSettings",
    "MaskPrompt",
    "ModelInputs",
    "ModelOutput",
    "ObjectMemoryBank",
    "PatchStates",
    "PixelSail",
    "PixelSailConfig",
    "PointPrompt",
    "Processor",
    "PromptCache",
    "ReferencePrompt",
    "RegionPrompt",
    "Result",
    "SailOutput",
    "SailProcessor",
    "SegmenterConfig",
    "Session",
    "SessionSettings",
    "StreamingTracker",
    "TokenMasks",
    "Turn",
    "UniPixel",
    "UniPixelConfig",
    "VideoFeatures",
    "VideoInput",
    "ask",
    "load_checkpoint",
    "load_segmenter",
    "open_session",
    "open_video",
    "prefill",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
