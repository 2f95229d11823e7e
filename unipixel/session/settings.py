"""How a session works: what the language model sees, who segments, and what may be kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from unipixel.model.generation import GenerationSettings
from unipixel.session.video_tracker import MAX_FEATURE_BYTES

Anchor = Literal["auto", "prompt", "best", "first"]
Prefill = Literal["model", "model-only", "tracker"]


@dataclass(frozen=True)
class SessionSettings:
    """How a session works.

    Attributes:
        num_frames: Frames of the video that the language model sees; None is as many as the model's budget says.
        anchor: Frame on which an object that language found is segmented first. `auto` is the prompted
            frame for a point or box, else frame 0, or the best frame where the object is absent from it
            or SAM 2.1 doubts its mask there;
            `prompt` is the prompted frame, else frame 0; `best` is the frame on which the decoder is
            surest; `first` is frame 0.
        prefill: Who segments points and boxes that a question names. `model` is the language model, unless
            its mask misses them (see `unipixel.session.prefilling`); `model-only` takes its mask whatever it shows, as
            the paper does; `tracker` is SAM 2.1 from the prompt alone.
        max_objects: Ceiling on the objects of a session.
        memory_dtype: Type of SAM's memories; None is the language model's own.
        is_postprocessed: Whether SAM 2's own post-processing is on.
        max_feature_bytes: Memory for encoded frames, which later questions and corrections use again.
        generation: How answers are written.
    """

    num_frames: int | None = None
    anchor: Anchor = "auto"
    prefill: Prefill = "model"
    max_objects: int = 64
    memory_dtype: torch.dtype | None = None
    is_postprocessed: bool = False
    max_feature_bytes: int = MAX_FEATURE_BYTES
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self) -> None:
        for name, allowed in (("anchor", get_args(Anchor)), ("prefill", get_args(Prefill))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("num_frames", "max_objects", "max_feature_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
