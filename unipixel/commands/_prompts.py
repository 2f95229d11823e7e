"""Visual prompts on the command line: `ID:X,Y@FRAME`, `ID:X1,Y1,X2,Y2@FRAME`, `ID:FILE.png@FRAME`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from unipixel.commands._options import PROMPT_FORMS
from unipixel.output.overlay import PromptMark
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.video.images import read_mask


def read_prompts(arguments: argparse.Namespace) -> dict[int, list[VisualPrompt]]:
    """Read the prompts of a command line by object id, negative points last.

    Raises:
        ValueError: A prompt is malformed.
        OSError: A mask file cannot be read.
    """
    prompts: dict[int, list[VisualPrompt]] = {}
    for kind, texts in (
        ("mask", arguments.mask),
        ("box", arguments.box),
        ("point", arguments.point),
        ("not-point", arguments.not_point),
    ):
        for object_id, prompt in (parse_prompt(kind, text) for text in texts):
            prompts.setdefault(object_id, []).append(prompt)
    return prompts


def parse_prompt(kind: str, text: str, *, sign: str = "--") -> tuple[int, VisualPrompt]:
    """Parse one prompt.

    Args:
        kind: `point`, `not-point`, `box` or `mask`.
        text: In the form of the kind; the frame is optional and 0 by default.
        sign: Characters before the kind, for error messages.

    Returns:
        The object id and the prompt.

    Raises:
        ValueError: The text does not have this form.
        OSError: A mask file cannot be read.
    """
    try:
        head, _, rest = text.partition(":")
        body, at, frame = rest.rpartition("@")
        if not at:
            body, frame = rest, "0"
        object_id, frame_index = _parse_index(head), _parse_index(frame)
        if kind == "mask":
            if not body:
                raise ValueError("no file")
            return object_id, MaskPrompt(_read_mask(Path(body)), frame_index)
        values = [float(value) for value in body.split(",")]
        if not all(np.isfinite(values)) or len(values) != (4 if kind == "box" else 2):
            raise ValueError("wrong number of values")
    except ValueError as error:
        if isinstance(error, _EmptyMaskError):
            raise
        raise ValueError(
            f"{sign}{kind} {text!r} is not of the form {PROMPT_FORMS[kind]}, such as {_example(kind)}"
        ) from error
    if kind == "box":
        left, top, right, bottom = values
        return object_id, BoxPrompt((left, top, right, bottom), frame_index)
    return object_id, PointPrompt(values[0], values[1], frame_index, is_positive=kind == "point")


def prompt_marks(prompts: Iterable[tuple[int, VisualPrompt]]) -> list[PromptMark]:
    """Return the marks of points and boxes on the overlay."""
    marks = []
    for object_id, prompt in prompts:
        if isinstance(prompt, PointPrompt):
            point = (prompt.x, prompt.y)
            marks.append(PromptMark(object_id, prompt.frame_index, point_xy=point, is_positive=prompt.is_positive))
        elif isinstance(prompt, BoxPrompt):
            marks.append(PromptMark(object_id, prompt.frame_index, box_xyxy=prompt.xyxy))
    return marks


class _EmptyMaskError(ValueError):
    """The mask file has no marked pixel."""


def _read_mask(file: Path) -> np.ndarray:
    mask = read_mask(file)
    if not mask.any():
        raise _EmptyMaskError(f"{file}: the mask is empty, it must mark at least one pixel")
    return mask


def _parse_index(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("negative")
    return value


def _example(kind: str) -> str:
    return {"box": "2:10,20,300,400@0", "mask": "1:first.png@0"}.get(kind, "1:640,360@12")
