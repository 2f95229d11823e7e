"""Modules that stay in float32 when the model that contains them is cast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Float32Module(nn.Module):
    """Module that can be moved between devices but is not cast to bfloat16 or float16.

    SAM's coordinates and Fourier features are up to four pixels off in bfloat16; `model.to(torch.bfloat16)`
    leaves this module in float32.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Float32Module:
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            result = fn(tensor)
            if result.dtype == tensor.dtype or result.dtype not in (torch.bfloat16, torch.float16):
                return result
            return tensor.to(device=result.device)

        return super()._apply(moved, recurse)
