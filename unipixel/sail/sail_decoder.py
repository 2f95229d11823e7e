"""The transformer of Pixel-SAIL (0.5B, 3B): the text model of Qwen2.5-VL, with two matrices for patches and prompts.

Shape letters: B samples, L tokens, D width, p patch side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from unipixel.model.qwen import CACHE_ARGUMENT, apply_keeping_tables
from unipixel.sail.image_block import block_attention
from unipixel.sail.sail_config import PixelSailConfig
from unipixel.sail.sail_inputs import ImagePatches


class PrefixTextModel(Qwen2_5_VLTextModel):
    """The text model of transformers, with the embeddings of patches and prompts under their published names."""

    def add_patch_embeddings(self, patch_values: int, *, has_injection: bool = True) -> None:
        """Add the two matrices without bias.

        Args:
            patch_values: Values of one patch, 3 * p * p.
            has_injection: Whether prompts are added to patches, by the second matrix.
        """
        width = self.config.hidden_size
        self.vis_embed = nn.Linear(patch_values, width, bias=False)
        self.vp_embed = nn.Linear(width, width, bias=False) if has_injection else None
        for matrix in (self.vis_embed, self.vp_embed):
            if matrix is not None:
                nn.init.normal_(matrix.weight, std=self.config.initializer_range)


class PrefixDecoder(nn.Module):
    """Reads an image block with full attention and text after it with causal attention."""

    def __init__(self, config: PixelSailConfig, *, attention: str = "sdpa") -> None:
        """Build the transformer.

        Args:
            config: Sizes.
            attention: Attention implementation of transformers: `sdpa` or `eager`.
        """
        super().__init__()
        self.model = PrefixTextModel._from_config(config.text, attn_implementation=attention)
        has_injection = config.prompt_encoding == "injection"
        self.model.add_patch_embeddings(3 * config.patch_size**2, has_injection=has_injection)
        self.lm_head = nn.Linear(config.width, config.text.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=config.text.initializer_range)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PrefixDecoder:
        apply_keeping_tables(super()._apply, fn, recurse, rotaries=[self.model.rotary_emb])
        return self

    @property
    def attention(self) -> str:
        """Attention implementation of transformers."""
        return str(self.model.config._attn_implementation)

    def embed_images(self, images: Sequence[ImagePatches], prompt_embeds: Tensor) -> Tensor:
        """Embed patches: their pixels, plus the prompt on each cell, to be added to the embedding of `<vpatch>`.

        Args:
            images: Images with n cells (h * w) in all.
            prompt_embeds: (n, D) token embedding of the prompt on each cell, zero where there is none.

        Returns:
            (n, D), the images one after another.
        """
        patches = torch.cat([image.patches for image in images]).to(self.model.vis_embed.weight)
        embeds: Tensor = self.model.vis_embed(patches)
        return embeds if self.model.vp_embed is None else embeds + self.model.vp_embed(prompt_embeds)

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
            position_ids: (3, B, L).
            attention_mask: (B, cached + L) bool, False on padding; None where nothing is padded.
            cache: Keys and values of earlier tokens; extended by this call.
            blocks: (B, 2) image blocks of these tokens, without cached ones; None without images.

        Returns:
            (B, L, D) states after the final norm.
        """
        mask = create_causal_mask(
            config=self.model.config,
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=None,
            or_mask_function=None if blocks is None else block_attention(blocks.to(embeds.device)),
            **{CACHE_ARGUMENT: cache},
        )
        output = self.model(
            inputs_embeds=embeds,
            attention_mask={"full_attention": mask},
            position_ids=position_ids,
            use_cache=cache is not None,
            **{CACHE_ARGUMENT: cache},
        )
        hidden: Tensor = output.last_hidden_state
        return hidden
