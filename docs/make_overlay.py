"""Writes the picture of the README: the bundled model's masks and answer on the bundled clip.

    python docs/make_overlay.py [FILE.webp]

Three objects are clicked on frame 0 and one question is asked. Masks and answer are the model's output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unipixel import PointPrompt, Processor, Session, UniPixel
from unipixel.assets import sample_path
from unipixel.commands._running.results import masks_on_frame
from unipixel.output.overlay import PromptMark, draw_overlay

MODEL = "unipixel-nano"
CLICKS = {1: (65, 85), 2: (30, 130), 3: (260, 115)}
QUESTION = "What colour is [1]?"
FRAME_STEP = 2
CAPTION_HEIGHT = 28
PROMPT_FRAMES = 16
"""Source frames on which the clicks are shown."""


def overlay_frames() -> tuple[list[Image.Image], float]:
    """Track the objects, ask the question, and return the captioned frames and their rate per second."""
    session = Session(UniPixel.from_pretrained(MODEL), Processor.from_pretrained(MODEL), sample_path())
    marks = []
    for object_id, (x, y) in CLICKS.items():
        session.prompt(object_id, PointPrompt(x, y, frame_index=0))
        marks.append(PromptMark(object_id, 0, point_xy=(x, y)))
    caption = f"{QUESTION}   {session.ask(QUESTION).text}"
    video = session.objects.video
    frames = []
    for frame in video:
        if frame.index % FRAME_STEP == 0:
            prompts = marks if frame.index < PROMPT_FRAMES else []
            objects = masks_on_frame(session.bank, frame.index)
            frames.append(_captioned(draw_overlay(frame.image, objects, prompts=prompts, opacity=0.35), caption))
    return frames, (video.info.fps or 24.0) / FRAME_STEP


def main() -> None:
    """Write the picture beside this file, or to the given path."""
    parser = argparse.ArgumentParser(description="Write the animated overlay of the README.")
    parser.add_argument("path", type=Path, nargs="?", default=Path(__file__).with_name("overlay.webp"))
    path = parser.parse_args().path
    (first, *others), fps = overlay_frames()
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, quality=80, method=6)
    print(f"{path}: {path.stat().st_size} bytes")


def _captioned(image: NDArray[np.uint8], caption: str) -> Image.Image:
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
    canvas.paste(Image.fromarray(image))
    centre = (width / 2, height + CAPTION_HEIGHT / 2)
    ImageDraw.Draw(canvas).text(centre, caption, fill="black", anchor="mm", font=ImageFont.load_default(15))
    return canvas


if __name__ == "__main__":
    main()
