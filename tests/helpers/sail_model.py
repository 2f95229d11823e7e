"""The recorded tiny Pixel-SAIL, its images and prompts, for tests of everything around the model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from unipixel import PixelSail, RegionPrompt, SailProcessor

GOLDEN = Path(__file__).parents[1] / "parity" / "sail"
CHECKPOINT = GOLDEN / "checkpoint"


@cache
def recorded_sail() -> tuple[PixelSail, SailProcessor]:
    """Return the model, which must not be changed, and its processor."""
    return PixelSail.from_pretrained(CHECKPOINT), SailProcessor.from_pretrained(CHECKPOINT)


def recorded_image(case: str) -> NDArray[np.uint8]:
    """Return the image (75, 110, 3) of a case."""
    return np.asarray(load_file(GOLDEN / case / "inputs.safetensors")["image"].numpy())


def recorded_prompts(case: str) -> list[RegionPrompt]:
    """Return the prompts of a case, in the order given."""
    inputs = load_file(GOLDEN / case / "inputs.safetensors")
    return [
        RegionPrompt(int(key), mask.numpy())
        for key, mask in zip(inputs["prompt_ids"], inputs["prompt_masks"], strict=True)
    ]


def recorded_generation(case: str, index: int) -> dict[str, Tensor]:
    """Return the tensors of one recorded answer."""
    return load_file(GOLDEN / case / f"generated_{index}.safetensors")
