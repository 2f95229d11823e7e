"""Examples that the bundled model can answer, on the sample video and on its first frame."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from unipixel.assets import sample_path
from unipixel.video.open import open_video

Method = Literal["ask", "segment"]


@dataclass(frozen=True)
class DemoExample:
    """An example that runs with one click.

    Attributes:
        title: Label of its button.
        name: Display name of the video or image.
        is_image: Whether it uses the image.
        point: Click on object 1 in frame 0, in pixels; None for no click.
        method: Method of `UserSession` that receives the text.
        text: The question, or the phrase to segment.
        thumbnail_box: Part of frame 0 that its thumbnail shows: left, top, right, bottom.
    """

    title: str
    name: str
    is_image: bool
    point: tuple[float, float] | None
    method: Method
    text: str
    thumbnail_box: tuple[int, int, int, int]


EXAMPLES = (
    DemoExample(
        "Click the star and ask its colour",
        "shapes.mp4",
        False,
        (65.0, 85.0),
        "ask",
        "What colour is [1]?",
        (20, 50, 116, 122),
    ),
    DemoExample("Find the blue circle", "shapes.mp4", False, None, "segment", "the blue circle", (0, 96, 96, 168)),
    DemoExample(
        "Image: find the green square", "shapes.png", True, None, "segment", "the green square", (192, 59, 320, 155)
    ),
)


def example_file(example: DemoExample, folder: Path) -> Path:
    """Return the file of an example; the image is written to the folder when it is first needed."""
    if not example.is_image:
        return sample_path()
    path = folder / "shapes.png"
    if not path.exists():
        with open_video(sample_path()) as video:
            Image.fromarray(np.ascontiguousarray(video.read([0])[0].image)).save(path)
    return path


@cache
def example_thumbnail(example: DemoExample, *, width: int = 320) -> bytes:
    """Return the thumbnail of an example as JPEG."""
    with open_video(sample_path()) as video:
        part = Image.fromarray(np.ascontiguousarray(video.read([0])[0].image)).crop(example.thumbnail_box)
    buffer = io.BytesIO()
    resized = part.resize((width, round(width * part.height / part.width)), Image.Resampling.LANCZOS)
    resized.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()
