"""Losses of Pixel-SAIL (arXiv:2504.10465, section 3.4), as pure functions of logits and truths.

Shape letters: K masks, P points, h, w logits, H, W truth in pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unipixel.train.sail.sail_recipe import SailLossWeights

NUM_POINTS = 12_544
"""Points at which masks are compared (Mask2Former, arXiv:2112.01527)."""
# Added to the counts that sums are divided by, as published.
_COUNT_OFFSET = 1e-4


@dataclass(frozen=True)
class SailMaskLoss:
    """Mask losses of one sample, unweighted.

    Attributes:
        mask: Cross-entropy, mean over points and masks.
        dice: Dice loss, mean over masks.
    """

    mask: Tensor
    dice: Tensor


def sample_points(
    logits: Tensor,
    *,
    num_points: int = NUM_POINTS,
    oversampling: int = 3,
    uncertain_share: float = 0.75,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the points at which masks are compared: mostly where the prediction is uncertain (PointRend).

    Args:
        logits: (K, h, w).
        num_points: Number of points per mask.
        oversampling: Candidates per point.
        uncertain_share: Share of the points that are the candidates with the smallest absolute logits; the others are
            uniform.
        generator: Source of randomness, on the device of the logits.

    Returns:
        (K, P, 2) x and y in [0, 1].
    """
    num_uncertain = int(uncertain_share * num_points)
    count, device = len(logits), logits.device
    candidates = torch.rand(count, oversampling * num_points, 2, device=device, generator=generator)
    with torch.no_grad():
        order = values_at(logits, candidates).abs().topk(num_uncertain, dim=1, largest=False).indices
    uncertain = torch.gather(candidates, 1, order[..., None].expand(-1, -1, 2))
    uniform = torch.rand(count, num_points - num_uncertain, 2, device=device, generator=generator)
    return torch.cat([uncertain, uniform], dim=1)


def values_at(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps (K, h, w) bilinearly at points (K, P, 2) in [0, 1], x first; the result is (K, P)."""
    sampled = F.grid_sample(maps[:, None], 2 * points[:, None] - 1, mode="bilinear", align_corners=False)
    return sampled[:, 0, 0]


def point_mask_loss(logits: Tensor, truths: Tensor, points: Tensor) -> SailMaskLoss | None:
    """Compute the mask losses of one sample.

    Args:
        logits: (K, h, w), one mask per `[SEG]`.
        truths: (K', H, W), 0 or 1. The published data has a 2 where polygons overlap, which the loss takes as it is.
        points: (K, P, 2) from `sample_points`.

    Returns:
        None without masks, or where the numbers of `[SEG]` and of truths differ: the sample has no mask loss then.
    """
    if not len(truths) or len(logits) != len(truths):
        return None
    predicted, wanted = values_at(logits.float(), points), values_at(truths.float(), points)
    num_masks, num_points = predicted.shape
    cross_entropy = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="sum")
    probability = predicted.sigmoid()
    overlap = (probability * wanted).sum(dim=1)
    dice = 1 - (2 * overlap + 1) / (probability.sum(dim=1) + wanted.sum(dim=1) + 1)
    count = num_masks + _COUNT_OFFSET
    # The offsets are those of the recorded losses; without them both are plain means.
    return SailMaskLoss(cross_entropy / (num_points + _COUNT_OFFSET) / count, dice.sum() / count / (1 + _COUNT_OFFSET))


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the mean squared error of dense features of one image.

    Args:
        student: (h, w, C), already mapped to the channels of the teacher.
        teacher: (C, h', w'), resized bilinearly to the student's grid.

    Returns:
        A scalar, unweighted; divided by one image plus the offset of the published code.
    """
    resized = F.interpolate(teacher[None].float(), size=student.shape[:2], mode="bilinear", align_corners=False)[0]
    return F.mse_loss(student.float(), resized.permute(1, 2, 0)) / (1 + _COUNT_OFFSET)


def text_scale(masks: SailMaskLoss | None, weights: SailLossWeights) -> float:
    """Return the factor of the text loss of a sample, which is smaller beside a mask loss."""
    has_mask_loss = masks is not None and float(masks.mask.detach()) != 0
    return weights.text_beside_masks if has_mask_loss else 1.0


def total_loss(
    text: Tensor, masks: SailMaskLoss | None, distillations: tuple[Tensor, ...], *, weights: SailLossWeights
) -> Tensor:
    """Add the weighted losses of one sample.

    Args:
        text: Mean cross-entropy of supervised tokens.
        masks: From `point_mask_loss`.
        distillations: From `distillation_loss`, one per teacher.
        weights: Weights of the parts.
    """
    total = text * text_scale(masks, weights)
    if masks is not None:
        total = total + weights.mask * masks.mask + weights.dice * masks.dice
    for part in distillations:
        total = total + weights.distillation * part
    return total


def dense_mask_loss(logits: Tensor, truths: Tensor) -> SailMaskLoss:
    """Compute the mask losses of one sample at all pixels of the logits, as plain means.

    Args:
        logits: (K, h, w), one mask per `[SEG]`.
        truths: (K, h, w) fraction of each pixel that the mask covers, in [0, 1].
    """
    predicted, wanted = logits.float().flatten(1), truths.float().flatten(1)
    probability = predicted.sigmoid()
    overlap = (probability * wanted).sum(dim=1)
    dice = 1 - (2 * overlap + 1) / (probability.sum(dim=1) + wanted.sum(dim=1) + 1)
    return SailMaskLoss(F.binary_cross_entropy_with_logits(predicted, wanted), dice.mean())
