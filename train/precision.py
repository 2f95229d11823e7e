"""Attention of a run in bfloat16 on a CPU.

Matrix products are several times faster there in bfloat16, but PyTorch's fused attention is not: its way back takes
longer than in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Float32Attention(TorchFunctionMode):
    """While it is entered, fused attention is computed in float32, under autocast too."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call what was called, with float32 where it is attention."""
        options = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **options)
        kind = args[0].device.type if args else options["query"].device.type
        exact = [_exact(value) for value in args], {name: _exact(value) for name, value in options.items()}
        with torch.autocast(kind, enabled=False):
            return func(*exact[0], **exact[1])


def _exact(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
