"""Settings of a session: frames of the language model, anchor frames, pre-filling, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from unipixel.model.generation import GenerationSettings
from unipixel.session.video_tracker import MAX_FEATURE_BYTES
from unipixel.tracking.segmenter import Segmenter

Anchor = Literal["auto", "prompt", "best", "first"]
Prefill = Literal["model", "model-only", "tracker"]
LanguageMasks = Literal["model", "segmenter"]


@dataclass(frozen=True)
class SessionSettings:
    """Settings of a session.

    Attributes:
        num_frames: Frames of the video that the language model receives; None is the budget of the processor.
        anchor: Anchor frame of an object that the language model found. `prompt` is the prompted frame of a
            point or box, else frame 0; `best` is the frame with the highest confidence of the mask decoder;
            `first` is frame 0; `auto` is like `prompt`, but `best` if the object is absent from frame 0 or
            has a low confidence there.
        prefill: What segments the points and boxes of objects that a question names. `model` is the language
            model, unless its mask disagrees with the prompt (see `unipixel.session.prefilling`); `model-only`
            uses every mask of the language model, as in the paper; `tracker` is SAM 2.1 from the prompt alone.
        max_objects: Maximum number of objects.
        memory_dtype: Type of SAM 2.1's memories; None is the type of the language model.
        is_postprocessed: Whether SAM 2's mask post-processing is applied.
        max_feature_bytes: Bytes of encoded frames that are cached for later questions and corrections.
        max_upsampled_bytes: Bytes up to which Pixel-SAIL keeps the upsampled image for the masks of later questions;
            the default is enough for 1024 x 1024 pixels in float32, of 0.5B or 3B.
        segmenter: SAM 2.1 that tracks objects and segments clicks; None is the model's own.
        language_masks: What decodes the masks of the language model if there is a `segmenter`: the `model`'s own
            SAM 2.1, which was trained with it and encodes the frames it needs itself, or the `segmenter`.
        generation: Settings of the text generation.
    """

    num_frames: int | None = None
    anchor: Anchor = "auto"
    prefill: Prefill = "model"
    max_objects: int = 64
    memory_dtype: torch.dtype | None = None
    is_postprocessed: bool = False
    max_feature_bytes: int = MAX_FEATURE_BYTES
    max_upsampled_bytes: int = 2**30
    segmenter: Segmenter | None = None
    language_masks: LanguageMasks = "model"
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self) -> None:
        choices = (("anchor", Anchor), ("prefill", Prefill), ("language_masks", LanguageMasks))
        for name, allowed in ((name, get_args(choice)) for name, choice in choices):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("num_frames", "max_objects", "max_feature_bytes", "max_upsampled_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def choose_segmenters(
    own: Segmenter, chosen: Segmenter | None, language_masks: LanguageMasks
) -> tuple[Segmenter, Segmenter | None]:
    """Return the segmenter that tracks, and the one that decodes mask tokens; None if it is the same.

    Args:
        own: The model's own.
        chosen: See `SessionSettings.segmenter`.
        language_masks: See `SessionSettings`.

    Raises:
        ValueError: The chosen one is to decode mask tokens of another width than its prompts have.
    """
    if chosen is None or chosen is own:
        return own, None
    if language_masks == "model":
        return chosen, own
    if chosen.config.embed_dim != own.config.embed_dim:
        raise ValueError(
            f"the mask tokens of the language model have {own.config.embed_dim} channels, the segmenter takes "
            f"{chosen.config.embed_dim}: use language_masks='model'"
        )
    return chosen, None
