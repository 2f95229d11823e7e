"""Modules whose values keep float32 when the model around them is cast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Float32Module(nn.Module):
    """Module that follows moves between devices but no cast to a shorter floating-point type.

    SAM's coordinates and Fourier features lose up to four pixels in bfloat16; `model.to(torch.bfloat16)`
    on a module that contains this one leaves it in float32.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Float32Module:
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            result = fn(tensor)
            if result.dtype == tensor.dtype or result.dtype not in (torch.bfloat16, torch.float16):
                return result
            return tensor.to(device=result.device)

        return super()._apply(moved, recurse)
