"""Float32 attention for training in bfloat16 on a CPU.

On CPUs, matrix products are several times faster in bfloat16, but the backward pass of PyTorch's fused attention is
slower than in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Float32Attention(TorchFunctionMode):
    """Context in which fused attention is computed in float32, also under autocast."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, in float32 where it is fused attention."""
        options = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **options)
        kind = args[0].device.type if args else options["query"].device.type
        float32_inputs = [_float32(value) for value in args], {name: _float32(value) for name, value in options.items()}
        with torch.autocast(kind, enabled=False):
            return func(*float32_inputs[0], **float32_inputs[1])


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
