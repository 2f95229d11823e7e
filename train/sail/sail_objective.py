"""Training objective of Pixel-SAIL (arXiv:2504.10465, section 3.4): text, masks and distilled features.

Shape letters: B samples, L tokens, K masks, h, w logits, H, W image in pixels.
"""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unipixel.model.inputs import ModelInputs
from unipixel.sail.pixel_sail import PixelSail
from unipixel.train.sail.sail_losses import (
    SailMaskLoss,
    dense_mask_loss,
    point_mask_loss,
    sample_points,
    text_scale,
)
from unipixel.train.sail.sail_recipe import SailLossWeights
from unipixel.train.sail.sail_samples import SailBatch


class SailObjective(nn.Module):
    """A Pixel-SAIL model with its losses."""

    def __init__(
        self, model: PixelSail, *, weights: SailLossWeights | None = None, num_points: int | None = None
    ) -> None:
        """Build the objective.

        Args:
            model: The model.
            weights: Weights of the losses; None takes the published ones.
            num_points: Points at which masks are compared; None compares all pixels of the mask logits, which is
                faster for small images.
        """
        super().__init__()
        self.model = model
        self.weights = weights or SailLossWeights()
        self.num_points = num_points

    def forward(self, batch: SailBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts `text`, `mask`, `dice`, and the mean `iou` of masks."""
        if batch.inputs is None:
            # All samples are invalid: a loss without a gradient keeps the step.
            return {"loss": 0.0 * self.model.single_transformer.model.norm.weight.sum()}
        output = self.model(batch.inputs)
        text_losses = _text_losses(output.logits, batch.labels.to(output.logits.device))
        parts: dict[str, list[Tensor]] = defaultdict(list)
        totals, images = [], iter(output.patch_states)
        has_image = _has_image(batch.inputs, self.model)
        for row, text in enumerate(text_losses):
            patches = next(images) if has_image[row] else None
            masks = None
            if patches is not None and len(output.seg_states[row]):
                queries = self.model.mask_tokens(output.seg_states[row])
                logits = self.model.mask_logits(patches, queries)
                masks = self._mask_loss(logits, batch.masks[row].to(logits.device), parts)
            total = text * text_scale(masks, self.weights)
            if masks is not None:
                total = total + self.weights.mask * masks.mask + self.weights.dice * masks.dice
                parts["mask"].append(masks.mask.detach())
                parts["dice"].append(masks.dice.detach())
            parts["text"].append(text.detach())
            totals.append(total)
        means = {name: torch.stack(values).mean() for name, values in parts.items()}
        return {"loss": torch.stack(totals).mean(), **means}

    def _mask_loss(self, logits: Tensor, truths: Tensor, parts: dict[str, list[Tensor]]) -> SailMaskLoss | None:
        """Return the mask losses of one sample, None where a mask was cut off; add the IoU of its masks to `parts`."""
        if len(logits) != len(truths) or not len(truths):
            return None
        with torch.no_grad():
            small = F.interpolate(truths[None].float(), size=logits.shape[-2:], mode="area")[0]
            predicted, wanted = logits > 0, small > 0.5
            union = (predicted | wanted).flatten(1).sum(dim=1)
            overlap = (predicted & wanted).flatten(1).sum(dim=1)
            parts["iou"].append(torch.where(union > 0, overlap / union.clamp(min=1), 1.0).mean())
        if self.num_points is None:
            return dense_mask_loss(logits, small)
        points = sample_points(logits.detach(), num_points=self.num_points)
        return point_mask_loss(logits, truths, points)


def _text_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the supervised tokens of each sample (B,)."""
    targets = F.pad(labels[:, 1:], (0, 1), value=-100)
    is_supervised = targets != -100
    losses = F.cross_entropy(logits[is_supervised].float(), targets[is_supervised], reduction="none")
    sums = losses.new_zeros(len(labels))
    sums = sums.index_add(0, is_supervised.nonzero()[:, 0], losses)
    return sums / is_supervised.sum(dim=1).clamp(min=1)


def _has_image(inputs: ModelInputs, model: PixelSail) -> list[bool]:
    is_image = inputs.input_ids == model.config.image_token_id
    return [bool(value) for value in is_image.any(dim=1)]
