"""Attention of a run in bfloat16 on a CPU.

Matrix products are several times faster there in bfloat16, but PyTorch's fused attention is not: its way back took
twice as long as in float32 (2.12, a core with AMX), more than the products had saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "sdpa_float32"


def attend_in_float32(model: nn.Module) -> None:
    """Let all attention of transformers' models within a model be computed in float32 under autocast."""
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            config._attn_implementation = _NAME


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *given: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    with torch.autocast(query.device.type, enabled=False):
        seen, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), *given, **options)
    return seen.to(query.dtype), weights
