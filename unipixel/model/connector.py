"""Layers between the language model and SAM: mask token head, masked pooling and its projector.

Shape letters: D language width, C SAM width (256), n tokens per mask, O objects, t frame pairs, h, w patch grid,
N memory tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unipixel.memory.mask_pooling import TokenMasks
from unipixel.model.config import PoolWeighting
from unipixel.model.inputs import VideoFeatures
from unipixel.model.visual_prompt_encoder import init_linears


class MaskTokenHead(nn.Sequential):
    """Computes the SAM prompt tokens of a mask from the state that precedes its `<|seg|>` (section 3.3)."""

    def __init__(self, *, width: int, sam_width: int, num_tokens: int) -> None:
        super().__init__(
            nn.RMSNorm(width, eps=1e-6),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, sam_width * num_tokens),
        )
        self.num_tokens = num_tokens
        init_linears(self)

    def forward(self, states: Tensor) -> Tensor:
        """Map states (..., D) to tokens (..., n, C) in float32."""
        return super().forward(states).unflatten(-1, (self.num_tokens, -1)).float()


class MemoryProjector(nn.Sequential):
    """Projects pooled merger inputs to `<|mem|>` embeddings (section 3.2)."""

    def __init__(self, *, pooled_width: int, width: int) -> None:
        super().__init__(nn.Linear(pooled_width, pooled_width), nn.GELU(), nn.Linear(pooled_width, width))
        init_linears(self)


def pool_memory(features: VideoFeatures, masks: TokenMasks, *, weighting: PoolWeighting = "uniform") -> Tensor:
    """Average the clip's merger inputs under each object's mask, one frame pair at a time.

    Args:
        features: The clip. If its `pooling_rows` are in `window` order, in which the published weights were
            trained, the rows under a mask are not those of the object.
        masks: On the clip's grid.
        weighting: `uniform` over the tokens that a mask touches, or by their `coverage`.

    Returns:
        (N, 4 * vision width), one row per memory token, in the order of `TokenMasks`.

    Raises:
        ValueError: The masks are not on the clip's grid.
    """
    t, h, w = features.grid_thw
    cells = len(features.pooling_rows) // t
    shape = tuple(masks.coverage.shape)
    if shape[0] != t or shape[2] * shape[3] != cells:
        raise ValueError(f"memory masks must be ({t}, objects, {cells} cells of a {h}x{w} patch grid), got {shape}")
    shares = masks.coverage if weighting == "coverage" else masks.touched.float()
    weights = shares.to(features.pooling_rows.device).flatten(2).transpose(0, 1)
    totals = weights.sum(dim=-1)
    rows = features.pooling_rows.unflatten(0, (t, cells)).float()
    sums = torch.einsum("otc,tcd->otd", weights, rows)[totals > 0]
    return (sums / totals[totals > 0, None]).to(features.pooling_rows.dtype)
