"""Fills small holes in masks, as the post-processing of SAM 2 does (sam2/utils/misc.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Logit of a filled pixel, just above the threshold.
_FILLED_LOGIT = 0.1


def fill_holes(mask_logits: Tensor, *, max_area: int) -> Tensor:
    """Fill connected background regions of at most `max_area` pixels.

    The package implements this on CUDA only; here masks are copied to the CPU and back.

    Args:
        mask_logits: (B, h, w), positive on the object.
        max_area: Size in pixels; diagonal neighbours belong to the same region.

    Returns:
        New logits (B, h, w).
    """
    from scipy import ndimage

    background = (mask_logits <= 0).cpu().numpy()
    holes = np.zeros_like(background)
    for mask, hole in zip(background, holes, strict=True):
        labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        areas = np.bincount(labels.ravel())
        areas[0] = max_area + 1  # label 0 is the object
        hole[:] = areas[labels] <= max_area
    filled = torch.full_like(mask_logits, _FILLED_LOGIT)
    return torch.where(torch.from_numpy(holes).to(mask_logits.device), filled, mask_logits)
