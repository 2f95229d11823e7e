"""Auxiliary heads of the dense pre-training: per-token attributes and positions, and the boxes of masks.

They give every visual token, memory token and mask token a target, and are dropped when the model is saved.
The loss of mask tokens regresses SAM's own prompt embeddings, so that the segmenter can read them.

Shape letters: B conversations, N cells of a clip, K tokens, G masks, D channels, A attributes, P positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unipixel.model.unipixel import UniPixel
from unipixel.train.nano.dense_batch import DenseBatch
from unipixel.train.nano.dense_targets import ATTRIBUTE_SIZES, NUM_POSITIONS, SIZE_POSITIONS
from unipixel.train.segmenter_objective import object_tokens

_HIDDEN, _POINTING_WIDTH = 192, 128
# The background covers most of a frame.
_BACKGROUND_WEIGHT = 0.2
_POSITION_WEIGHT = 4.0


class TokenTargetHead(nn.Module):
    """Reads attributes and positions from the state of a token."""

    def __init__(self, width: int, *, num_positions: int) -> None:
        """Build the head.

        Args:
            width: Channels D of a state.
            num_positions: Positions that are read beside the attributes.
        """
        super().__init__()
        self.layers = _two_layers(width, sum(ATTRIBUTE_SIZES) + num_positions)

    def forward(self, states: Tensor, attributes: Tensor, positions: Tensor) -> Tensor:
        """Return the loss.

        Args:
            states: (..., D).
            attributes: (..., A) numbers, -1 where an attribute is unknown.
            positions: (..., P), NaN where a position is unknown.
        """
        logits, values = self.layers(states).float().split([sum(ATTRIBUTE_SIZES), positions.shape[-1]], dim=-1)
        loss = _POSITION_WEIGHT * masked_mean((values - positions.float().nan_to_num(0.0)).abs(), ~positions.isnan())
        for column, scores in enumerate(logits.split(ATTRIBUTE_SIZES, dim=-1)):
            weight = torch.ones(scores.shape[-1], device=scores.device)
            weight[0] = _BACKGROUND_WEIGHT
            target = attributes[..., column].flatten().long()
            loss = loss + F.cross_entropy(scores.flatten(0, -2), target, weight=weight, ignore_index=-1)
        return loss


class MaskTokenTargets(nn.Module):
    """Losses of the states that mask tokens are read from."""

    def __init__(self, width: int) -> None:
        """Build the heads for states of a width D."""
        super().__init__()
        self.corners = _two_layers(width, 4)
        self.queries = nn.Linear(width, _POINTING_WIDTH, bias=False)
        self.keys = nn.Linear(width, _POINTING_WIDTH, bias=False)

    def forward(
        self, model: UniPixel, states: Tensor, middle: Tensor, cells: Tensor, batch: DenseBatch
    ) -> dict[str, Tensor]:
        """Return the losses `mask_tokens`, `corners` and `pointing`.

        Args:
            model: The model that is trained.
            states: (G, D) states that precede each `<|seg|>`, after the last layer.
            middle: (G, D) the same in the middle of the language model.
            cells: (B, N, D) states of visual tokens in the middle of the language model.
            batch: The targets.
        """
        boxes = batch.mask_boxes.nan_to_num(0.0)
        is_visible = ~batch.mask_boxes.flatten(1).isnan().any(dim=1)
        with torch.no_grad(), torch.autocast(states.device.type, enabled=False):
            wanted = object_tokens(model.sam2, boxes[:, None], batch.mask_attributes.long())
        miss = ((model.mask_tokens(states).float() - wanted) ** 2).flatten(1).mean(dim=1)
        fractions = boxes.flatten(1) / model.config.segmenter.image_size
        corner_miss = (self.corners(middle).float() - fractions).abs().mean(dim=1)
        scores = (self.keys(cells)[batch.mask_rows] @ self.queries(middle)[..., None])[..., 0].float()
        coverage = batch.mask_coverage.float()
        total = coverage.sum(dim=1)
        distribution = coverage / total[:, None].clamp(min=1e-6)
        pointing = -(distribution * (scores / _POINTING_WIDTH**0.5).log_softmax(dim=-1)).sum(dim=1)
        return {
            "mask_tokens": masked_mean(miss, is_visible),
            "corners": masked_mean(corner_miss, is_visible),
            "pointing": masked_mean(pointing, total > 0),
        }


class AuxiliaryHeads(nn.Module):
    """All heads of the pre-training that are not part of the model."""

    def __init__(self, *, width: int, pooled_width: int) -> None:
        """Build the heads.

        Args:
            width: Channels of the language model.
            pooled_width: Channels of a pooled vision feature.
        """
        super().__init__()
        self.vision = TokenTargetHead(pooled_width, num_positions=SIZE_POSITIONS.stop - SIZE_POSITIONS.start)
        self.visual_tokens = TokenTargetHead(width, num_positions=NUM_POSITIONS)
        self.memory = TokenTargetHead(width, num_positions=NUM_POSITIONS)
        self.masks = MaskTokenTargets(width)


def masked_mean(values: Tensor, is_counted: Tensor) -> Tensor:
    """Return the mean of the values that count; 0 where none does."""
    return (values * is_counted).sum() / is_counted.sum().clamp(min=1)


def _two_layers(width: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.RMSNorm(width, eps=1e-6), nn.Linear(width, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, num_outputs)
    )
