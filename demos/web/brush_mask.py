"""Masks that the user draws with the brush."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.demos.errors import PromptError


def read_brush_mask(png: Any, *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a brush mask: a PNG in base64, with or without a data URL prefix, transparent outside the mask.

    Args:
        png: Untrusted value of a request.
        size: Required width and height in pixels.

    Returns:
        bool (H, W).

    Raises:
        PromptError: It is not a PNG in base64, or of another size.
    """
    try:
        data = base64.b64decode(str(png).removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size != size:
                raise PromptError(f"the mask has {image.size} pixels, the frame has {size}")
            return np.asarray(image.convert("RGBA"))[:, :, 3] > 127
    except (OSError, SyntaxError, ValueError, binascii.Error, Image.DecompressionBombError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError("the mask must be a PNG in base64: draw it again") from error
