"""Devices: whether this machine has them, without torch where that is possible."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"(cpu|cuda|mps)(:\d+)?")
_CUDA_DRIVER = "libcuda.so.1"
# The interface of AMD's driver, which torch uses under the name of CUDA.
_ROCM_INTERFACE = "/dev/kfd"


def check_device(name: str) -> None:
    """Refuse a device that this machine certainly lacks, in a moment; `available_device` then asks torch.

    Raises:
        ValueError: The name is unknown, or there is no driver for the device.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"device {name!r} is unknown: allowed are cpu, cuda, cuda:N and mps")
    lacks_cuda = name.startswith("cuda") and sys.platform == "linux" and not _has_gpu_driver()
    if lacks_cuda or (name.startswith("mps") and sys.platform != "darwin"):
        raise ValueError(f"device {name!r} is not available, this machine has no driver for it: use the device cpu")


def available_device(device: str | torch.device) -> torch.device:
    """Return a device after checking that torch can use it.

    Raises:
        ValueError: The name is unknown, or torch cannot use the device.
    """
    check_device(str(device))
    import torch

    chosen = torch.device(device)
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    is_available = {"cuda": (chosen.index or 0) < num_cuda, "mps": torch.backends.mps.is_available()}
    if not is_available.get(chosen.type, True):
        raise ValueError(
            f"device {str(device)!r} is not available, torch finds {num_cuda} CUDA devices: use the device cpu"
        )
    return chosen


def _has_gpu_driver() -> bool:
    try:
        ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return os.path.exists(_ROCM_INTERFACE)
    return True
