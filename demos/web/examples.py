"""Examples that the bundled model can answer: the sample clip, and a still of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from unipixel.assets import sample_path
from unipixel.video.open import open_video

Verb = Literal["ask", "segment"]


@dataclass(frozen=True)
class DemoExample:
    """Something to try with one click.

    Attributes:
        title: On its button.
        name: Of the clip or picture.
        is_still: Whether it is the picture rather than the clip.
        point: Click on object 1 in frame 0, in pixels.
        verb: Whether the question is asked, or names what to find.
        question: The question.
    """

    title: str
    name: str
    is_still: bool
    point: tuple[float, float] | None
    verb: Verb
    question: str


EXAMPLES = (
    DemoExample("What colour is [1]?", "shapes.mp4", False, (65.0, 85.0), "ask", "What colour is [1]?"),
    DemoExample("Find the blue circle", "shapes.mp4", False, None, "segment", "the blue circle"),
    DemoExample("A picture: find the green square", "shapes.png", True, None, "segment", "the green square"),
)


def example_file(example: DemoExample, folder: Path) -> Path:
    """Return the file of an example; a still is drawn into the folder when it is first needed."""
    if not example.is_still:
        return sample_path()
    path = folder / "still.png"
    if not path.exists():
        with open_video(sample_path()) as video:
            Image.fromarray(np.ascontiguousarray(video.read([0])[0].image)).save(path)
    return path
