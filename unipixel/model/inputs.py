"""Inputs and outputs of the model.

Shape letters: B samples, L tokens, D language width, t/h/w patch grid of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from unipixel.memory.mask_pooling import TokenMasks
from unipixel.memory.representation import short_repr
from unipixel.sail.sail_inputs import ImagePatches


@dataclass(frozen=True)
class VideoInput:
    """Patches of a clip, the input of the vision transformer.

    Attributes:
        pixel_values: (t*h*w, 3 * temporal_patch * patch * patch) float patches.
        grid_thw: Patch grid (t, h, w): frame pairs, rows, columns, before merging.
        seconds_per_grid: Seconds between frame pairs; 1.0 for lists of frames, as in the published model.
    """

    __repr__ = short_repr

    pixel_values: Tensor
    grid_thw: tuple[int, int, int]
    seconds_per_grid: float = 1.0

    def to(self, device: torch.device | str) -> VideoInput:
        """Return the same clip on a device."""
        return VideoInput(self.pixel_values.to(device), self.grid_thw, self.seconds_per_grid)

    @property
    def num_bytes(self) -> int:
        """Bytes of the patches."""
        return self.pixel_values.numel() * self.pixel_values.element_size()


@dataclass(frozen=True)
class VideoFeatures:
    """Features of a clip, the output of the vision transformer; accepted in place of a `VideoInput`.

    Attributes:
        tokens: (t*h*w/4, D) visual tokens in raster order, the input of the language model.
        pooling_rows: (t*h*w/4, 4 * vision width) merger inputs, from which memory is pooled, in the configured order.
        grid_thw: Patch grid (t, h, w) before merging.
        seconds_per_grid: Seconds between frame pairs.
    """

    __repr__ = short_repr

    tokens: Tensor
    pooling_rows: Tensor
    grid_thw: tuple[int, int, int]
    seconds_per_grid: float = 1.0

    def to(self, device: torch.device | str) -> VideoFeatures:
        """Return the same features on a device."""
        return VideoFeatures(self.tokens.to(device), self.pooling_rows.to(device), self.grid_thw, self.seconds_per_grid)

    @property
    def num_bytes(self) -> int:
        """Bytes of the features."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.tokens, self.pooling_rows))


VisualInput: TypeAlias = VideoInput | VideoFeatures | ImagePatches


@dataclass(frozen=True)
class ReferencePrompt:
    """A point or box on a frame, the value of one `<|ref|>`.

    Attributes:
        coords: (1, 2) point, or (2, 2) top-left and bottom-right corner; float32 x, y in pixels of the
            square SAM input.
        frame: Index into the sampled frames, from 0.
        num_frames: Number of sampled frames, including the repeated last frame of an odd number.
    """

    __repr__ = short_repr

    coords: Tensor
    frame: int
    num_frames: int

    def __post_init__(self) -> None:
        if self.coords.ndim != 2 or self.coords.shape[0] not in (1, 2) or self.coords.shape[1] != 2:
            raise ValueError(f"coords must be (1, 2) for a point or (2, 2) for a box, got {tuple(self.coords.shape)}")
        if self.coords.dtype != torch.float32:
            raise TypeError(f"coords must be float32, as shorter types shift points by pixels; got {self.coords.dtype}")
        if not 0 <= self.frame < self.num_frames:
            raise ValueError(f"frame must be in [0, {self.num_frames - 1}], got {self.frame}")

    @property
    def is_box(self) -> bool:
        """Whether this is a box."""
        return self.coords.shape[0] == 2


@dataclass(frozen=True)
class ModelInputs:
    """A batch of prompts with the values of their placeholders.

    Attributes:
        input_ids: (B, L), padded on the right.
        attention_mask: (B, L) bool, False on padding; None without padding.
        videos: Clips, or images of Pixel-SAIL, in the order of their tokens in the batch.
        references: One per `<|ref|>`, in the order of the text in the batch.
        memory_masks: Per clip the masks of its objects on a grid (h/2, w/2), in the order of their `<|mem|>`, or
            None. Where the text continues a prompt cache: per sample, on the clip of the cache.
    """

    __repr__ = short_repr

    input_ids: Tensor
    attention_mask: Tensor | None = None
    videos: tuple[VisualInput, ...] = ()
    references: tuple[ReferencePrompt, ...] = ()
    memory_masks: tuple[TokenMasks | None, ...] = ()

    def __post_init__(self) -> None:
        if self.input_ids.ndim != 2:
            raise ValueError(f"input_ids must be (B, L), got {tuple(self.input_ids.shape)}")
        if self.videos and len(self.memory_masks) not in (0, len(self.videos)):
            raise ValueError(
                f"memory_masks has {len(self.memory_masks)} entries for {len(self.videos)} videos: "
                "give one per video, None for a video without memory"
            )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample without padding."""
        if self.attention_mask is None:
            return [self.input_ids.shape[1]] * self.input_ids.shape[0]
        lengths: list[int] = self.attention_mask.sum(dim=1).tolist()
        return lengths

    def to(self, device: torch.device | str) -> ModelInputs:
        """Return the same inputs with all tensors but the references on a device."""
        return ModelInputs(
            self.input_ids.to(device),
            None if self.attention_mask is None else self.attention_mask.to(device),
            tuple(video.to(device) for video in self.videos),
            self.references,
            tuple(None if mask is None else mask.to(device) for mask in self.memory_masks),
        )


@dataclass(frozen=True)
class EmbeddedInputs:
    """A batch of token embeddings, with the values of all placeholders.

    Attributes:
        embeds: (B, L, D).
        position_ids: (3, B, L) time, row and column position of each token.
        next_positions: (B,) position of the token that follows each sample.
        attention_mask: (B, L) bool or None.
        blocks: (B, 2) first index and index after the last of the image block of each sample (Pixel-SAIL), or None.
    """

    embeds: Tensor
    position_ids: Tensor
    next_positions: Tensor
    attention_mask: Tensor | None
    blocks: Tensor | None = None


@dataclass(frozen=True)
class ModelOutput:
    """Result of a forward pass over whole samples.

    Attributes:
        logits: (B, L, vocabulary).
        hidden_states: (B, L, D) before the final norm; the state before a `<|seg|>` describes its mask.
        inputs_embeds: (B, L, D).
        position_ids: (3, B, L).
        video_features: The clips' features, accepted by later calls in `ModelInputs.videos`.
    """

    __repr__ = short_repr

    logits: Tensor
    hidden_states: Tensor
    inputs_embeds: Tensor
    position_ids: Tensor
    video_features: tuple[VideoFeatures, ...]
