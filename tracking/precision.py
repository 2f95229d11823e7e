"""Modules that stay in float32 when they are cast, and values that reach a GPU without waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


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


def upload(values: Any, *, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return nested lists or a tensor of the CPU as a tensor on a device, without waiting for a GPU.

    A copy from ordinary memory would wait until the GPU has finished its work; one from pinned memory is queued.
    """
    tensor = values if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor if tensor.is_cuda else tensor.pin_memory().to(device, non_blocking=True)
