"""Matrix products of float32 through oneDNN, on processors on which MKL does not use AVX-512.

MKL chooses its kernels by the maker of the processor: on an AMD EPYC with AVX-512 it computes float32 products at half
the speed of oneDNN, which PyTorch contains too but uses for convolutions and shorter types only. Both add in float32;
products with up to 128 summands are bit for bit the same, longer sums are rounded differently in the last bits.

Shape letters: M rows, K summands, N columns.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

# Multiplications from which the longer call of oneDNN pays.
_MIN_MULTIPLICATIONS = 2**20
_CPU_INFO = Path("/proc/cpuinfo")


@functools.lru_cache(maxsize=1)
def prefers_onednn() -> bool:
    """Return whether float32 products of this processor are faster through oneDNN: AVX-512 that is not Intel's."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _CPU_INFO.is_file():
        return False
    vendors = [line for line in _CPU_INFO.read_text(encoding="utf-8").splitlines() if line.startswith("vendor_id")]
    return bool(vendors) and not vendors[0].endswith("GenuineIntel") and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(rows: Tensor, columns: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `rows @ columns.T + bias`, through oneDNN where it is faster and no gradient is needed.

    Args:
        rows: (..., K).
        columns: (N, K), such as the weight of a linear layer.
        bias: (N,) or None.

    Returns:
        (..., N).
    """
    if (
        not torch.compiler.is_compiling()
        and prefers_onednn()
        and rows.dtype == columns.dtype == torch.float32
        and rows.device.type == "cpu"
        and rows.numel() * len(columns) >= _MIN_MULTIPLICATIONS
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    ):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, bias, "none", [], "")
        return result
    return F.linear(rows, columns, bias)


class OneDnnLinear(nn.Linear):
    """A linear layer that is computed by `product`."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute (..., N) from (..., K)."""
        return product(input, self.weight, self.bias)


def use_onednn(module: nn.Module) -> None:
    """Let all plain linear layers of a module compute through `product`; names and weights stay as they are."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OneDnnLinear
