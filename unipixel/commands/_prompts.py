"""Prompts on the command line: `ID:X,Y@FRAME`, `ID:X1,Y1,X2,Y2@FRAME`, `ID:FILE.png@FRAME`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from unipixel.commands._options import PROMPT_FORMS
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.video.images import read_mask


def read_prompts(arguments: argparse.Namespace) -> dict[int, list[VisualPrompt]]:
    """Read the prompts of a command line by object, positive ones first.

    Raises:
        ValueError: A prompt is not of its form.
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
    """Read one prompt.

    Args:
        kind: `point`, `not-point`, `box` or `mask`.
        text: Of the form that belongs to it; the frame may be left out and is 0 then.
        sign: What stands before the kind where the user writes it.

    Raises:
        ValueError: It is not of that form.
        OSError: A mask file cannot be read.
    """
    try:
        head, _, rest = text.partition(":")
        body, at, frame = rest.rpartition("@")
        if not at:
            body, frame = rest, "0"
        object_id, frame_index = _count(head), _count(frame)
        if kind == "mask":
            if not body:
                raise ValueError("no file")
            return object_id, MaskPrompt(_read_mask(Path(body)), frame_index)
        values = [float(value) for value in body.split(",")]
        if not all(np.isfinite(values)) or len(values) != (4 if kind == "box" else 2):
            raise ValueError("wrong number of values")
    except ValueError as error:
        if isinstance(error, _MaskError):
            raise
        raise ValueError(
            f"{sign}{kind} {text!r} is not of the form {PROMPT_FORMS[kind]}, such as {_example(kind)}"
        ) from error
    if kind == "box":
        left, top, right, bottom = values
        return object_id, BoxPrompt((left, top, right, bottom), frame_index)
    return object_id, PointPrompt(values[0], values[1], frame_index, is_positive=kind == "point")


def marks(prompts: Iterable[tuple[int, VisualPrompt]]) -> list:
    """Return what the overlay draws of prompts: points and boxes."""
    from unipixel.output.overlay import PromptMark

    drawn = []
    for object_id, prompt in prompts:
        if isinstance(prompt, PointPrompt):
            point = (prompt.x, prompt.y)
            drawn.append(PromptMark(object_id, prompt.frame_index, point_xy=point, is_positive=prompt.is_positive))
        elif isinstance(prompt, BoxPrompt):
            drawn.append(PromptMark(object_id, prompt.frame_index, box_xyxy=prompt.xyxy))
    return drawn


class _MaskError(ValueError):
    """The file was read and holds no mask."""


def _read_mask(file: Path) -> np.ndarray:
    mask = read_mask(file)
    if not mask.any():
        raise _MaskError(f"{file}: the mask is empty, it must mark at least one pixel")
    return mask


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("negative")
    return value


def _example(kind: str) -> str:
    return {"box": "2:10,20,300,400@0", "mask": "1:first.png@0"}.get(kind, "1:640,360@12")
