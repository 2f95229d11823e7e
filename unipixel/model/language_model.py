"""The interface that text generation needs of a model; `UniPixel` and `PixelSail` provide it.

Shape letters: B samples, L tokens, D language width, C width of mask tokens, n tokens per mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from unipixel.model.inputs import EmbeddedInputs, ModelInputs, VideoFeatures, VisualInput
from unipixel.sail.sail_inputs import PatchStates


class TokenIds(Protocol):
    """Ids of tokens with a meaning in generated text."""

    @property
    def seg_token_id(self) -> int:
        """Id of the token that stands for a mask."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""


class LanguageModel(Protocol):
    """A stateless model that answers in text, in which some tokens stand for masks.

    Attributes:
        has_own_seg_state: Whether a mask is described by the state at its own token (Pixel-SAIL), which is known after
            that token was processed, instead of the state that predicts it (UniPixel).
    """

    has_own_seg_state: bool

    @property
    def config(self) -> TokenIds:
        """The configuration."""

    @property
    def device(self) -> torch.device:
        """Device of the model."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the language model."""

    @property
    def attention(self) -> str:
        """Attention implementation of transformers."""

    @property
    def is_quantized(self) -> bool:
        """Whether the weights are quantised by bitsandbytes."""

    @property
    def mask_token_shape(self) -> tuple[int, int]:
        """Shape (n, C) of the tokens of one mask."""

    def encode_videos(self, videos: Sequence[VisualInput]) -> Sequence[Any]:
        """Encode the visual inputs that are not encoded yet."""

    def embed(
        self,
        inputs: ModelInputs,
        features: Sequence[Any],
        *,
        start: int = 0,
        memory_of: Sequence[Any] | None = None,
    ) -> EmbeddedInputs:
        """Embed the tokens with the values of all placeholders."""

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids (...) of text as (..., D)."""

    def new_cache(self) -> DynamicCache:
        """Return an empty cache of keys and values."""

    def decode(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: DynamicCache | None = None,
        blocks: Tensor | None = None,
    ) -> Tensor:
        """Compute the states (B, L, D) of embedded tokens (B, L, D)."""

    def kept_visual(
        self, inputs: ModelInputs, features: Sequence[Any], hidden_states: Tensor
    ) -> VideoFeatures | PatchStates | None:
        """Return what later turns need of the visual input of a single sample."""

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Compute logits (..., V) from states (..., D)."""

    def mask_tokens(self, hidden_states: Tensor) -> Tensor:
        """Compute the tokens (..., n, C) of masks from the states (..., D) that describe them."""

    def seg_states_of(self, hidden_states: Tensor, input_ids: Tensor) -> Tensor:
        """Select the states (K, D) that describe the masks of one sample, from (L, D) and (L,) ids."""


def has_quantized_layers(module: nn.Module) -> bool:
    """Return whether a module contains layers of bitsandbytes."""
    return any(type(layer).__module__.startswith("bitsandbytes") for layer in module.modules())
