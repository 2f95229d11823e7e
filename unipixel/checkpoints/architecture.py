"""Loading of a checkpoint whose configuration says which model it is: UniPixel or Pixel-SAIL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unipixel.checkpoints.files import CONFIG_FILE, read_json, resolve
from unipixel.sail.model_type import is_sail_config

if TYPE_CHECKING:
    import torch

    from unipixel.checkpoints.quantization import Quantization
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.sail.pixel_sail import PixelSail
    from unipixel.sail.sail_processor import SailProcessor


def is_sail_checkpoint(source: str | Path) -> bool:
    """Return whether a checkpoint is that of Pixel-SAIL, without torch; a hub id is downloaded first.

    Raises:
        OSError: It cannot be found, downloaded or read.
    """
    file = resolve(source) / CONFIG_FILE
    return file.is_file() and is_sail_config(read_json(file))


def load_checkpoint(
    source: str | Path,
    *,
    dtype: torch.dtype | Literal["auto"] = "auto",
    device: str | torch.device = "cpu",
    quantization: Quantization | None = None,
) -> tuple[UniPixel, Processor] | tuple[PixelSail, SailProcessor]:
    """Load a model and its processor; the configuration decides between UniPixel and Pixel-SAIL.

    Args:
        source: A bundled name, a folder or a hub id.
        dtype: See `UniPixel.from_pretrained`.
        device: Device of the model; `auto` is the first GPU, or the CPU.
        quantization: See `UniPixel.from_pretrained`; not for Pixel-SAIL.

    Returns:
        What `open_session` takes.

    Raises:
        OSError: The source cannot be found, downloaded or read.
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
        ValueError: The configuration is incomplete or inconsistent, or Pixel-SAIL is to be quantised.
        ImportError: bitsandbytes is required but not installed.
    """
    if is_sail_checkpoint(source):
        from unipixel.sail.pixel_sail import PixelSail
        from unipixel.sail.sail_processor import SailProcessor

        if quantization is not None:
            raise ValueError(f"{source} is a Pixel-SAIL checkpoint, which is not quantised: leave {quantization} out")
        return PixelSail.from_pretrained(source, dtype=dtype, device_map=device), SailProcessor.from_pretrained(source)
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor

    model = UniPixel.from_pretrained(source, dtype=dtype, device_map=device, quantization=quantization)
    return model, Processor.from_pretrained(source)
