"""8-bit and 4-bit weights for the language model, through bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel

Quantization = Literal["8bit", "4bit"]
# Values that share a scale in bitsandbytes.
_BLOCK_SIZE = 64


def check_quantization(kind: str) -> None:
    """Check a kind of quantisation and that its library is installed, without importing it.

    Raises:
        ValueError: The kind is unknown.
        ImportError: bitsandbytes is not installed.
    """
    if kind not in get_args(Quantization):
        raise ValueError(f"quantization must be one of {get_args(Quantization)}, got {kind!r}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("quantised loading needs bitsandbytes: pip install 'unipixel-agent[quantize]'")


def quantize_language(model: UniPixel, kind: Quantization) -> None:
    """Replace the linear layers of the language model; the weights are quantised on the move to a device.

    The embeddings, the vision transformer, the heads and SAM 2.1 are not quantised.

    Args:
        model: Changed in place; still on the CPU.
        kind: `8bit` (LLM.int8) or `4bit` (NF4).

    Raises:
        ValueError: The kind is unknown, or the width of a layer is not a multiple of 64, as 4 bits require.
        ImportError: bitsandbytes is not installed.
    """
    check_quantization(kind)
    import bitsandbytes as bnb
    from torch import nn

    for parent in list(model.model.language_model.layers.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is not nn.Linear:
                continue
            if kind == "4bit" and linear.in_features % _BLOCK_SIZE:
                raise ValueError(
                    f"4bit needs layers whose width is a multiple of {_BLOCK_SIZE}, {name} has {linear.in_features}: "
                    "use 8bit"
                )
            sizes = (linear.in_features, linear.out_features, linear.bias is not None)
            if kind == "4bit":
                layer = bnb.nn.Linear4bit(*sizes, compute_dtype=model.dtype, quant_type="nf4")
                layer.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
            else:
                layer = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
                layer.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
            layer.bias = linear.bias
            setattr(parent, name, layer)
