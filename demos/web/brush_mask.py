"""Masks that are painted on the page."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.demos.sessions.errors import PromptError


def read_brush_mask(png: Any, *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask that was painted on the page, a PNG as a data address; what is not transparent belongs to it.

    Args:
        png: Of the page, or of whoever pretends to be it.
        size: Width and height that it must have.

    Raises:
        PromptError: It is something else, or of another size.
    """
    try:
        data = base64.b64decode(str(png).removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.size != size:
                raise PromptError(f"the painted mask has {picture.size} pixels, the frame {size}")
            return np.asarray(picture.convert("RGBA"))[:, :, 3] > 127
    except (OSError, SyntaxError, ValueError, binascii.Error, Image.DecompressionBombError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError("the painted mask cannot be read: paint it again") from error
