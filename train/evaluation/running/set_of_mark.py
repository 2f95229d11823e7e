"""Drawing of numbered marks into frames, for models that take no visual prompts (set-of-mark, arXiv:2310.11441)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt

# Colours that differ in brightness too.
_COLOURS = ((230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240))
# Sizes as fractions of the frame's shorter side.
_RADIUS, _LINE, _TEXT = 0.015, 0.006, 0.05
_MIN_TEXT_PIXELS = 8


def draw_marks(frame: NDArray[np.uint8], prompts: Mapping[int, PointPrompt | BoxPrompt]) -> NDArray[np.uint8]:
    """Return a frame (H, W, 3) with a dot or an outline and the id of each object beside it.

    Args:
        frame: The frame.
        prompts: A point or box for each id, in pixels of the frame.
    """
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    shorter = min(image.size)
    line = max(1, round(_LINE * shorter))
    font = ImageFont.load_default(max(_MIN_TEXT_PIXELS, round(_TEXT * shorter)))
    for object_id, prompt in prompts.items():
        colour = _COLOURS[object_id % len(_COLOURS)]
        if isinstance(prompt, PointPrompt):
            radius = max(2, round(_RADIUS * shorter))
            corners = (prompt.x - radius, prompt.y - radius, prompt.x + radius, prompt.y + radius)
            draw.ellipse(corners, fill=colour, outline=(255, 255, 255))
            anchor = (prompt.x + radius, prompt.y - radius)
        else:
            left, top, right, bottom = prompt.xyxy
            draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
            anchor = (left, top)
        _write_label(draw, str(object_id), anchor, font=font, colour=colour, size=image.size)
    return np.asarray(image)


def _write_label(
    draw: ImageDraw.ImageDraw,
    text: str,
    anchor: tuple[float, float],
    *,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    """Write a label on a filled box whose lower left corner is the anchor, moved into the image."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2, bottom - top + 2
    x = min(max(anchor[0], 0), size[0] - width)
    y = min(max(anchor[1] - height, 0), size[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 1 - left, y + 1 - top), text, fill=(255, 255, 255), font=font)
