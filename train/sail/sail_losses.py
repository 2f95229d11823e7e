"""Losses of Pixel-SAIL (arXiv:2504.10465, section 3.4), as pure functions of logits and truths.

Shape letters: N samples, K masks, P points, h, w logits, H, W truth in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Mask losses of one sample, or of several (N,), unweighted.

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
    losses = point_mask_losses(logits, truths, points, counts=[len(logits)])
    return SailMaskLoss(losses.mask[0], losses.dice[0])


def point_mask_losses(logits: Tensor, truths: Tensor, points: Tensor, *, counts: Sequence[int]) -> SailMaskLoss:
    """Compute the mask losses of several samples, one after another in K; see `point_mask_loss`.

    Args:
        logits: (K, h, w).
        truths: (K, H, W).
        points: (K, P, 2).
        counts: Masks of each of N samples, at least 1.

    Returns:
        (N,) each.
    """
    predicted, wanted = values_at(logits.float(), points), values_at(truths.float(), points)
    cross_entropy, dice = _losses_of_masks(predicted, wanted)
    # The offsets are those of the recorded losses; without them both are plain means.
    total = torch.tensor(counts, device=logits.device) + _COUNT_OFFSET
    cross_entropy = _sums(cross_entropy, counts) / (points.shape[1] + _COUNT_OFFSET) / total
    return SailMaskLoss(cross_entropy, _sums(dice, counts) / total / (1 + _COUNT_OFFSET))


def dense_mask_losses(logits: Tensor, truths: Tensor, *, counts: Sequence[int]) -> SailMaskLoss:
    """Compute the mask losses of several samples at all pixels of the logits, as plain means.

    Args:
        logits: (K, h, w), the masks of one sample after those of another.
        truths: (K, h, w) fraction of each pixel that the mask covers, in [0, 1].
        counts: Masks of each of N samples, at least 1.

    Returns:
        (N,) each.
    """
    predicted = logits.float().flatten(1)
    cross_entropy, dice = _losses_of_masks(predicted, truths.float().flatten(1))
    return SailMaskLoss(means_of(cross_entropy / predicted.shape[1], counts), means_of(dice, counts))


def means_of(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mean (N,) of the values (K,) of each sample, of which there are `counts`."""
    return _sums(values, counts) / torch.tensor(counts, device=values.device)


def _losses_of_masks(predicted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross-entropy (K,) and the dice loss (K,) of logits and truths (K, P)."""
    cross_entropy = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none").sum(dim=1)
    probability = predicted.sigmoid()
    overlap = (probability * wanted).sum(dim=1)
    return cross_entropy, 1 - (2 * overlap + 1) / (probability.sum(dim=1) + wanted.sum(dim=1) + 1)


def _sums(values: Tensor, counts: Sequence[int]) -> Tensor:
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(values.device)
    return values.new_zeros(len(counts)).index_add(0, owners, values)


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


def text_scale(masks: SailMaskLoss | None, weights: SailLossWeights) -> Tensor | float:
    """Return the factor of the text loss of each sample, which is smaller beside a mask loss."""
    return 1.0 if masks is None else torch.where(masks.mask.detach() != 0, weights.text_beside_masks, 1.0)


def total_loss(
    text: Tensor, masks: SailMaskLoss | None, distillations: Sequence[Tensor], *, weights: SailLossWeights
) -> Tensor:
    """Add the weighted losses of one sample, or of each of several.

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
