"""Losses of masks and text (UniPixel, section 3.4; the mask losses are those of SAM 2).

Shape letters: B objects, K candidate masks, H/W frame in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from unipixel.train.recipe import LossWeights

# A pixel of a resized label is foreground where at least half of it is covered. The published code takes every pixel
# above zero, which widens a small object of a large frame by up to a fifth.
LABEL_THRESHOLD = 0.5
IGNORED_LABEL = -100


@dataclass(frozen=True)
class MaskLoss:
    """Mask loss of B objects on one frame, each part (B,) and unweighted.

    Attributes:
        focal: Focal loss of the best candidate; 0 where the object is absent.
        dice: Dice loss of the best candidate; 0 where the object is absent.
        iou: Mean absolute error of the candidates' predicted IoU; 0 where the object is absent.
        score: Cross-entropy of the object score.
        total: The weighted sum.
    """

    focal: Tensor
    dice: Tensor
    iou: Tensor
    score: Tensor
    total: Tensor


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the mean focal loss of each mask (arXiv:1708.02002).

    Args:
        logits: (..., H, W).
        targets: 0 or 1, broadcast over the leading dimensions of `logits`.
        alpha: Weight of the foreground; the background has 1 - alpha.
        gamma: Exponent that reduces the weight of well-classified pixels.

    Returns:
        (...), mean over the pixels.
    """
    targets = targets.to(logits.dtype).expand_as(logits)
    return sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="none").mean(dim=(-2, -1))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the Dice loss of each mask, smoothed by one pixel.

    Args:
        logits: (..., H, W).
        targets: 0 or 1, broadcast over the leading dimensions of `logits`.

    Returns:
        (...), 0 for a perfect mask.
    """
    probability = logits.sigmoid()
    targets = targets.to(logits.dtype).expand_as(logits)
    overlap = (probability * targets).sum(dim=(-2, -1))
    areas = probability.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (areas + 1)


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the IoU (...) of logits (..., H, W) above zero with broadcastable targets; 0 where both are empty."""
    predicted = logits > 0
    targets = targets.bool()
    union = (predicted | targets).sum(dim=(-2, -1))
    return (predicted & targets).sum(dim=(-2, -1)) / union.clamp(min=1)


def mask_loss(
    candidate_logits: Tensor,
    candidate_ious: Tensor,
    object_score: Tensor,
    targets: Tensor,
    *,
    weights: LossWeights | None = None,
) -> MaskLoss:
    """Compute the loss of the candidate masks of B objects on one frame.

    Only the candidate with the lowest weighted focal and dice loss is trained, so that the others can represent other
    interpretations of an ambiguous prompt; the predicted IoU is trained for all of them. Where the object is absent,
    only its score is trained.

    Args:
        candidate_logits: (B, K, h, w), resized bilinearly to the targets.
        candidate_ious: (B, K) predicted.
        object_score: (B,) logits.
        targets: (B, H, W) bool.
        weights: By default those of the paper.

    Raises:
        ValueError: The numbers of objects differ.
    """
    if len(candidate_logits) != len(targets):
        raise ValueError(f"got {len(candidate_logits)} predictions and {len(targets)} target masks")
    weights = weights or LossWeights()
    is_present = targets.flatten(1).any(dim=1)
    if weights.mask_loss_stride > 1:
        targets = F.avg_pool2d(targets[:, None].float(), weights.mask_loss_stride)[:, 0] >= LABEL_THRESHOLD
    logits = F.interpolate(candidate_logits.float(), size=targets.shape[-2:], mode="bilinear", align_corners=False)
    candidate_targets = targets[:, None]
    focal, dice = focal_loss(logits, candidate_targets), dice_loss(logits, candidate_targets)
    best = (weights.focal * focal + weights.dice * dice).argmin(dim=1)
    rows = torch.arange(len(best), device=best.device)
    is_present = is_present.to(logits.dtype)
    iou_error = (candidate_ious.float() - mask_iou(logits.detach(), candidate_targets)).abs().mean(dim=1)
    focal, dice = (
        (part[rows, best].lerp(part.mean(dim=1), weights.multimask_weight)) * is_present for part in (focal, dice)
    )
    iou = iou_error * is_present
    score = F.binary_cross_entropy_with_logits(object_score.float(), is_present, reduction="none")
    total = weights.focal * focal + weights.dice * dice + weights.iou * iou + weights.score * score
    return MaskLoss(focal, dice, iou, score, total)


def label_masks(coverage: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks to the size at which they are compared with predictions.

    Args:
        coverage: (N, H, W) in [0, 1].
        size: Rows and columns of the result.

    Returns:
        (N, rows, columns) bool, true where at least half of a pixel is covered.
    """
    resized = F.interpolate(coverage[:, None].float(), size=size, mode="bilinear", antialias=True)
    return resized[:, 0] > LABEL_THRESHOLD


def text_losses(states: Tensor, labels: Tensor, *, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean cross-entropy of the next token over the supervised positions of each sample.

    Logits are computed at these positions only: those of all positions would not fit into memory for long clips.

    Args:
        states: (B, L, D).
        labels: (B, L) ids, `IGNORED_LABEL` where a token is not supervised.
        logits_of: Computes logits (N, V) from states (N, D).

    Returns:
        (B,); 0 where nothing is supervised, with a gradient of 0.
    """
    following = labels[:, 1:]
    is_supervised = following != IGNORED_LABEL
    logits = logits_of(states[:, :-1][is_supervised])
    losses = F.cross_entropy(logits.float(), following[is_supervised], reduction="none")
    return mean_per_sample(losses, is_supervised.nonzero()[:, 0], num_samples=len(labels))


def mean_per_sample(values: Tensor, samples: Tensor, *, num_samples: int) -> Tensor:
    """Average values by the sample that they belong to.

    Args:
        values: (N,).
        samples: (N,) index of each value's sample.
        num_samples: Number of samples B.

    Returns:
        (B,); 0 for a sample without values.
    """
    sums = values.new_zeros(num_samples).index_add(0, samples, values)
    counts = torch.bincount(samples, minlength=num_samples)
    return sums / counts.clamp(min=1)
