"""Images of a model's predictions: one grid per validation."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.output.overlay import draw_overlay
from unipixel.processing.processor import Processor
from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.tracking.types import ObjectMask
from unipixel.train.datasets.synthetic import Sample, generate
from unipixel.train.datasets.synthetic.attributes import Split
from unipixel.train.evaluation.synthetic import TASKS, to_prompt

_MAX_NEW_TOKENS = 48
_NUM_FRAMES, _RENDER_SIZE = 8, 160
_SHOWN_TIMES = (0.25, 0.75)
_LINE, _MARGIN, _WRAP = 14, 6, 96


def draw_predictions(
    model: UniPixel, processor: Processor, path: Path, *, split: Split = "val", seed: int = 0, count: int = 7
) -> None:
    """Write an image of a model's masks and answers for a few synthetic questions, beside the correct ones.

    Args:
        model: In evaluation mode.
        processor: Processor of the model.
        path: PNG to write, with a row per question: two frames with the true masks, the same two with the predicted
            ones.
        split: Split of the samples.
        seed: First seed of the clips.
        count: Number of questions; the tasks alternate.
    """
    rows = []
    for number in range(count):
        task = TASKS[number % len(TASKS)]
        if task != "track":
            sample = generate(seed + number, split=split, task=task, render_size=_RENDER_SIZE, num_frames=_NUM_FRAMES)
            rows.append(_row(model, processor, sample))
    width = max(row.shape[1] for row in rows)
    page = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(page)).save(path)


def _row(model: UniPixel, processor: Processor, sample: Sample) -> NDArray[np.uint8]:
    clip, turn = sample.clip, sample.turns[0]
    settings = SessionSettings(generation=GenerationSettings(max_new_tokens=_MAX_NEW_TOKENS))
    session = Session(model, processor, list(clip.frames), settings=settings)
    for object_id, annotation in sample.prompts.items():
        session.prompt(object_id, to_prompt(annotation))
    answer = session.ask(turn.question)
    predicted_ids = tuple(session.objects.known_ids)
    predicted = session.bank.masks_on(range(len(clip.frames)), object_ids=predicted_ids)
    true_ids = (*sample.prompts, *(name for name in turn.target_ids if name not in sample.prompts))
    true = np.stack([clip.masks_of(name) for name in true_ids], axis=1) if true_ids else predicted[:, :0]
    frames = [round(time * (len(clip.frames) - 1)) for time in _SHOWN_TIMES]
    images = [
        draw_overlay(clip.frames[frame], _objects(ids, masks[frame]))
        for ids, masks in ((true_ids, true), (predicted_ids, predicted))
        for frame in frames
    ]
    strip = np.concatenate(images, axis=1)
    text = [f"[{sample.task}] {turn.question}", f"true: {turn.answer}", f"predicted: {answer.text}"]
    lines = [line for part in text for line in textwrap.wrap(" ".join(part.split()), _WRAP) or [""]]
    width = max(strip.shape[1], _WRAP * 7)
    caption = Image.new("RGB", (width, _LINE * len(lines) + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(caption)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + number * _LINE), line, fill="black")
    strip = np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([np.asarray(caption), strip])


def _objects(ids: tuple[int, ...], masks: NDArray[np.bool_]) -> dict[int, ObjectMask]:
    return {name: ObjectMask(masks[row], 1.0, bool(masks[row].any())) for row, name in enumerate(ids)}
