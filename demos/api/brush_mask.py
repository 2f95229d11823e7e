"""Masks that the user draws with the brush."""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.demos.errors import PromptError


def read_brush_mask(png: bytes, *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a brush mask: a PNG that is transparent outside the mask.

    Args:
        png: Untrusted content of a request.
        size: Required width and height in pixels.

    Returns:
        bool (H, W).

    Raises:
        PromptError: It is not a PNG, or of another size.
    """
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.size != size:
                raise PromptError(f"the mask has {image.size} pixels, the frame has {size}")
            return np.asarray(image.convert("RGBA"))[:, :, 3] > 127
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError("the mask must be a PNG: draw it again") from error


def decode_base64(text: str) -> bytes:
    """Decode a PNG in base64, with or without the prefix of a data URL.

    Raises:
        PromptError: It is not base64.
    """
    try:
        return base64.b64decode(text.removeprefix("data:image/png;base64,"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise PromptError("the mask must be a PNG in base64: draw it again") from error
