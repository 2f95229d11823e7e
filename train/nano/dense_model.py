"""The model's own layers over batches of clips of one grid, without padding between frames and without masks.

Vision attention runs as one batch over all frames, where the product loops over them; padding is on the right of a
conversation, so that causal attention alone keeps it apart. Both give what `UniPixel.forward` gives.

Shape letters: B conversations, T frames, H, W frame size, h, w patches, N cells of a clip, c cells of a frame,
L tokens, D language width, V vision width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unipixel.model.unipixel import UniPixel
from unipixel.processing.image_processing import FRAMES_PER_PAIR, normalise_pixels
from unipixel.train.nano.dense_batch import DenseBatch


@dataclass(frozen=True)
class DenseStates:
    """States of a batch.

    Attributes:
        pooling_rows: (B, N, 4 V) vision features that memory is pooled from.
        middle: (B, L, D) after half of the language layers.
        hidden: (B, L, D) after the last layer, before the final norm.
    """

    pooling_rows: Tensor
    middle: Tensor
    hidden: Tensor


class DenseModel(nn.Module):
    """Runs a UniPixel model over dense batches."""

    def __init__(self, model: UniPixel, *, has_bfloat16_residual: bool = False) -> None:
        """Wrap a model.

        Args:
            model: Attends within whole frames and pools memory in raster order.
            has_bfloat16_residual: Whether the states between layers are bfloat16.

        Raises:
            ValueError: The model attends within windows, or pools memory in window order.
        """
        super().__init__()
        vision = model.config.qwen.vision_config
        if set(range(vision.depth)) - set(vision.fullatt_block_indexes):
            raise ValueError(
                "dense batches need full attention in all vision layers: set fullatt_block_indexes to "
                f"{list(range(vision.depth))}, got {list(vision.fullatt_block_indexes)}"
            )
        if model.config.memory_pool_order == "window":
            raise ValueError("dense batches need a model that pools memory in raster order, it pools in window order")
        self.model = model
        self._residual_dtype = torch.bfloat16 if has_bfloat16_residual else torch.float32
        self._vision_block = _vision_block
        self._rotary_tables: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}

    def compile_blocks(self) -> None:
        """Compile the layers of both transformers for batches of any shape."""
        for layer in self.model.model.language_model.layers:
            layer.compile(dynamic=True)
        self._vision_block = torch.compile(_vision_block, dynamic=True)

    def forward(self, batch: DenseBatch) -> DenseStates:
        """Run the model over a batch."""
        rows = self.pooling_rows(batch.frames)
        language = self.model.model.language_model
        hidden = self._embed(batch, rows).to(self._residual_dtype)
        rotary = language.rotary_emb(hidden, batch.position_ids)
        middle = hidden
        for number, layer in enumerate(language.layers):
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary, use_cache=False)
            if number + 1 == len(language.layers) // 2:
                middle = hidden
        return DenseStates(rows, middle, hidden)

    def pooling_rows(self, frames: Tensor) -> Tensor:
        """Encode frames (B, T, H, W, 3) uint8, each of which fills a pair alone, as (B, N, 4 V) vision features."""
        visual = self.model.model.visual
        count, num_frames, height, width = frames.shape[:4]
        grid = height // visual.patch_size, width // visual.patch_size
        hidden = visual.patch_embed(self._patches(frames.flatten(0, 1), grid)).to(self._residual_dtype)
        cosines, sines = (table.to(hidden.dtype) for table in self._vision_rotary(grid, hidden.device))
        for block in visual.blocks:
            hidden = self._vision_block(block, hidden, cosines, sines)
        rows = visual.merger.ln_q(hidden)
        cells = grid[0] * grid[1] // visual.spatial_merge_size**2
        return rows.reshape(count, num_frames * cells, -1)

    def _patches(self, frames: Tensor, grid: tuple[int, int]) -> Tensor:
        """Cut frames (n, H, W, 3) into patches (n, h * w, 6 * patch * patch) in the order of the vision transformer."""
        visual = self.model.model.visual
        patch, merge = visual.patch_size, visual.spatial_merge_size
        pixels = normalise_pixels(frames.permute(0, 3, 1, 2))
        split = pixels.view(len(frames), 3, grid[0] // merge, merge, patch, grid[1] // merge, merge, patch)
        patches = split.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(len(frames), grid[0] * grid[1], 3, 1, patch, patch)
        return patches.expand(-1, -1, -1, FRAMES_PER_PAIR, -1, -1).flatten(2)

    def _vision_rotary(self, grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Rotary tables (h * w, d) of a frame's patches."""
        key = (*grid, device)
        if key not in self._rotary_tables:
            visual = self.model.model.visual
            merge = visual.spatial_merge_size
            axes = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
            frequencies = visual.rotary_pos_emb.inv_freq.float()
            angles = torch.cat(
                [
                    axis.reshape(grid[0] // merge, merge, grid[1] // merge, merge).transpose(1, 2).reshape(-1, 1)
                    * frequencies
                    for axis in axes
                ],
                dim=-1,
            )
            angles = torch.cat([angles, angles], dim=-1)
            self._rotary_tables[key] = angles.cos(), angles.sin()
        return self._rotary_tables[key]

    def _embed(self, batch: DenseBatch, rows: Tensor) -> Tensor:
        """Fill every placeholder (B, L, D)."""
        model, config, ids = self.model, self.model.config, batch.input_ids
        embeds = model.model.language_model.embed_tokens(ids)
        tokens = model.model.visual.merger.mlp(rows)
        embeds = embeds.masked_scatter(self.is_visual(ids)[..., None], tokens.to(embeds.dtype))
        if len(batch.memory_rows):
            memory = model.embed_memory(self._pool_memory(batch, rows), batch.memory_boxes_xyxy, batch.memory_times)
            embeds = embeds.masked_scatter((ids == config.mem_token_id)[..., None], memory.to(embeds.dtype))
        if batch.references:
            references = model.prompt_encoder(batch.references)
            embeds = embeds.masked_scatter((ids == config.ref_token_id)[..., None], references.to(embeds.dtype))
        return embeds

    def _pool_memory(self, batch: DenseBatch, rows: Tensor) -> Tensor:
        """Average the rows under each memory mask, (M, 4 V), as `pool_memory` does; all masks of a frame at once."""
        num_conversations, num_frames = batch.frames.shape[:2]
        is_uniform = self.model.config.memory_pool_weighting == "uniform"
        weights = (batch.memory_coverage > 0).float() if is_uniform else batch.memory_coverage
        weights = weights / weights.sum(dim=1, keepdim=True)
        frame = batch.memory_rows * num_frames + batch.memory_frames
        chosen = weights.new_zeros(num_conversations * num_frames, batch.num_memory_slots, weights.shape[1])
        chosen[frame, batch.memory_slots] = weights
        pooled = torch.bmm(chosen.to(rows.dtype), rows.reshape(num_conversations * num_frames, weights.shape[1], -1))
        return pooled[frame, batch.memory_slots]

    def is_visual(self, input_ids: Tensor) -> Tensor:
        """Return which tokens (B, L) are visual."""
        chosen = torch.zeros_like(input_ids, dtype=torch.bool)
        for token_id in self.model.config.rope_layout.visual_ids:
            chosen |= input_ids == token_id
        return chosen


def _vision_block(block: Any, hidden: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Run a block of the vision transformer over frames (n, h * w, V)."""
    attention = block.attn
    query, key, value = (
        attention.qkv(block.norm1(hidden)).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    )
    query, key = (_rotate(states, cosines, sines).to(value.dtype) for states in (query, key))
    attended = F.scaled_dot_product_attention(query, key, value)
    hidden = hidden + attention.proj(attended.transpose(1, 2).flatten(2))
    return hidden + block.mlp(block.norm2(hidden))


def _rotate(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-second, first], dim=-1) * sines
