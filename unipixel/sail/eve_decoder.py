"""The transformer of EVEv2 (Pixel-SAIL 7B): a second branch of every layer for image tokens (arXiv:2502.06788).

Each branch computes its own tokens only; the published code computes both branches for all tokens and keeps one.

Shape letters: B samples, L tokens, D width, h, w rows and columns of cells, p patch side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2_5_VLTextConfig
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLRotaryEmbedding,
    Qwen2MLP,
    apply_rotary_pos_emb,
)

from unipixel.model.qwen import CACHE_ARGUMENT, apply_keeping_tables
from unipixel.sail.sail_config import PixelSailConfig
from unipixel.sail.sail_inputs import ImagePatches


class EvePatchEmbedding(nn.Module):
    """Two convolutions without overlap, one token before the image and one after each row of cells."""

    def __init__(self, width: int, *, inner: int, patch_size: int) -> None:
        """Build the embedding.

        Args:
            width: Width of the transformer.
            inner: Width of the first convolution.
            patch_size: Side of a cell, which the second convolution halves.
        """
        super().__init__()
        half = patch_size // 2
        self.patch_size = patch_size
        self.patch_embedding = nn.Sequential(
            nn.Conv2d(3, inner, half, stride=half), nn.GELU(), nn.Conv2d(inner, width, 2, stride=2)
        )
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.split_embedding = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, image: ImagePatches, prompt_embeds: Tensor) -> Tensor:
        """Embed an image as 1 + h * (w + 1) tokens.

        Args:
            image: The image.
            prompt_embeds: (h * w, D) added to the cells.
        """
        weight = self.class_embedding
        side = self.patch_size
        cells = self.patch_embedding(image.patches.to(weight).reshape(-1, 3, side, side)).flatten(1) + prompt_embeds
        rows = cells.view(*image.grid, -1)
        ends = self.split_embedding.expand(image.grid[0], 1, -1)
        return torch.cat([weight[None], torch.cat([rows, ends], dim=1).flatten(0, 1)])


class EveAttention(nn.Module):
    """Causal attention over all tokens, whose projections differ for text and image tokens."""

    def __init__(self, config: Qwen2_5_VLTextConfig, layer_index: int) -> None:
        """Build the projections of one layer."""
        super().__init__()
        self.layer_index = layer_index
        self.head_size = config.hidden_size // config.num_attention_heads
        width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        for prefix in ("", "moe_"):
            setattr(self, f"{prefix}q_proj", nn.Linear(width, heads * self.head_size))
            setattr(self, f"{prefix}k_proj", nn.Linear(width, groups * self.head_size))
            setattr(self, f"{prefix}v_proj", nn.Linear(width, groups * self.head_size))
            setattr(self, f"{prefix}o_proj", nn.Linear(heads * self.head_size, width, bias=False))

    def forward(
        self,
        hidden: Tensor,
        is_image: Tensor | None,
        *,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: DynamicCache | None,
    ) -> Tensor:
        """Attend; see `EveDecoder.forward`."""
        batch, length, _ = hidden.shape
        query, key, value = (
            self._project(name, hidden, is_image).view(batch, length, -1, self.head_size).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        query, key = apply_rotary_pos_emb(query, key, *rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_index)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None and length > 1, enable_gqa=True
        )
        return self._project("o_proj", attended.transpose(1, 2).reshape(batch, length, -1), is_image)

    def _project(self, name: str, hidden: Tensor, is_image: Tensor | None) -> Tensor:
        return route(getattr(self, name), getattr(self, f"moe_{name}"), hidden, is_image)


class EveLayer(nn.Module):
    """A decoder layer whose norms, projections and feed-forward network exist once for text and once for images."""

    def __init__(self, config: Qwen2_5_VLTextConfig, layer_index: int) -> None:
        """Build one layer."""
        super().__init__()
        self.self_attn = EveAttention(config, layer_index)
        self.mlp, self.moe_mlp = Qwen2MLP(config), Qwen2MLP(config)
        width, epsilon = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = nn.RMSNorm(width, eps=epsilon)
        self.moe_input_layernorm = nn.RMSNorm(width, eps=epsilon)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=epsilon)
        self.moe_post_attention_layernorm = nn.RMSNorm(width, eps=epsilon)

    def forward(
        self,
        hidden: Tensor,
        is_image: Tensor | None,
        *,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: DynamicCache | None,
    ) -> Tensor:
        """Run the layer; see `EveDecoder.forward`."""
        normed = route(self.input_layernorm, self.moe_input_layernorm, hidden, is_image)
        hidden = hidden + self.self_attn(normed, is_image, rotary=rotary, mask=mask, cache=cache)
        normed = route(self.post_attention_layernorm, self.moe_post_attention_layernorm, hidden, is_image)
        return hidden + route(self.mlp, self.moe_mlp, normed, is_image)


class EveTextModel(nn.Module):
    """Embedding, layers and final norm, under their published names."""

    def __init__(self, config: PixelSailConfig) -> None:
        """Build the modules."""
        super().__init__()
        text = config.text
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size)
        self.layers = nn.ModuleList(EveLayer(text, index) for index in range(text.num_hidden_layers))
        self.norm = nn.RMSNorm(text.hidden_size, eps=text.rms_norm_eps)
        self.rotary_emb = Qwen2_5_VLRotaryEmbedding(config=text)
        self.vision_tower = EvePatchEmbedding(text.hidden_size, inner=config.eve_width, patch_size=config.patch_size)


class EveDecoder(nn.Module):
    """The transformer of EVEv2, with the interface of `PrefixDecoder`."""

    def __init__(self, config: PixelSailConfig, *, attention: str = "sdpa") -> None:
        """Build the transformer.

        Args:
            config: Sizes.
            attention: Not used: attention is always PyTorch's scaled dot product.
        """
        super().__init__()
        del attention
        # Selects how masks are represented; transformers reads it from the configuration.
        self.config = copy.deepcopy(config.text)
        self.config._attn_implementation = "sdpa"
        self.model = EveTextModel(config)
        self.lm_head = nn.Linear(config.width, config.text.vocab_size, bias=False)
        # A part of the published checkpoint that is not used: prompts are added without a matrix.
        self.vp_embed = nn.Linear(config.width, config.width, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.text.initializer_range)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EveDecoder:
        apply_keeping_tables(super()._apply, fn, recurse, rotaries=[self.model.rotary_emb])
        return self

    @property
    def attention(self) -> str:
        """Attention implementation, always PyTorch's."""
        return "sdpa"

    def embed_images(self, images: Sequence[ImagePatches], prompt_embeds: Tensor) -> Tensor:
        """Embed images one after another; see `PrefixDecoder.embed_images` and `EvePatchEmbedding.forward`."""
        own = prompt_embeds.split([len(image.patches) for image in images])
        return torch.cat([self.model.vision_tower(*pair) for pair in zip(images, own, strict=True)])

    def forward(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: DynamicCache | None = None,
        blocks: Tensor | None = None,
    ) -> Tensor:
        """Run the layers and the final norm.

        Args:
            embeds: (B, L, D).
            position_ids: (3, B, L), the same on all axes.
            attention_mask: (B, cached + L) bool, False on padding; None where nothing is padded.
            cache: Keys and values of earlier tokens; extended by this call.
            blocks: (B, 2) image tokens of these tokens; None without images.

        Returns:
            (B, L, D) states after the final norm.
        """
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=None,
            **{CACHE_ARGUMENT: cache},
        )
        rotary = self.model.rotary_emb(embeds, position_ids)
        is_image = None
        if blocks is not None:
            index = torch.arange(embeds.shape[1], device=embeds.device)
            bounds = blocks.to(embeds.device)
            is_image = (index >= bounds[:, :1]) & (index < bounds[:, 1:])
        hidden = embeds
        for layer in self.model.layers:
            hidden = layer(hidden, is_image, rotary=rotary, mask=mask, cache=cache)
        normed: Tensor = self.model.norm(hidden)
        return normed


def route(text: nn.Module, image: nn.Module, hidden: Tensor, is_image: Tensor | None) -> Tensor:
    """Apply one module to text tokens and another to image tokens.

    Args:
        text: For (N, D) text tokens.
        image: For (N, D) image tokens.
        hidden: (B, L, D).
        is_image: (B, L) bool; None if all tokens are text.
    """
    if is_image is None:
        only_text: Tensor = text(hidden)
        return only_text
    of_text, of_image = text(hidden[~is_image]), image(hidden[is_image])
    output = of_text.new_zeros(*hidden.shape[:2], of_text.shape[-1])
    return output.masked_scatter(~is_image[..., None], of_text).masked_scatter(is_image[..., None], of_image)
