"""Every public class has a `repr` on one short line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unipixel
from unipixel import PointPrompt, Processor, Session, StreamingTracker, UniPixel
from unipixel.memory.representation import short_value
from unipixel.processing.chat_template import Turn


def test_objects_of_a_session_are_shown_in_one_short_line(
    session: Session, model: UniPixel, processor: Processor, clip: Path
) -> None:
    session.prompt(1, PointPrompt(10, 12))
    result = session.ask("What is [1]?")
    inputs = processor("What moves?", videos=clip)
    stream = unipixel.AnswerStream(model, inputs)
    shown: list[Any] = [
        session, result, result.objects[1], result.turn, result.objects[1].masks, session.bank, session.settings,
        session.objects.video, model, model.config, model.config.segmenter, processor, inputs, inputs.videos[0], stream,
        stream.settings, unipixel.LiveSession(model, processor), StreamingTracker(model.sam2),
        model.generate(inputs, settings=unipixel.GenerationSettings(max_new_tokens=2))[0], Turn("What is it?"),
        unipixel.MaskPrompt(np.ones((480, 640), bool)), PointPrompt(1, 2), unipixel.BoxPrompt((1, 2, 3, 4)),
        *model.encode_videos(inputs.videos), unipixel.prefill(model, inputs).prompt_cache,
    ]  # fmt: skip
    long = {type(item).__name__: repr(item) for item in shown if len(repr(item)) > 400 or "\n" in repr(item)}
    assert long == {}
    assert all(type(item).__name__ in repr(item) or "masks" in repr(item) for item in shown)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 3, dtype=torch.bfloat16), "bfloat16[2, 3]"),
        (np.zeros((4,), np.uint8), "uint8[4]"),
        ((1, 2), "(1, 2)"),
        ((1,), "(1,)"),
        ([1, 2, 3, 4, 5], "<5 items>"),
        ({"a": 1}, "<1 entries>"),
        ("x" * 100, "'" + "x" * 47 + "..."),
        (PointPrompt(1, 2), "<PointPrompt>"),
    ],
)
def test_values_are_shortened(value: Any, text: str) -> None:
    assert short_value(value) == text
