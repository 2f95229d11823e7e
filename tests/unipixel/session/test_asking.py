"""`unipixel.ask`: one question in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, write_mask

import unipixel
from unipixel import BoxPrompt, GenerationSettings, MaskPrompt, PointPrompt, Processor, Session, UniPixel
from unipixel.session.asking import read_prompt_values
from unipixel.session.settings import SessionSettings

BRIEF: dict[str, Any] = {"num_frames": 4, "generation": GenerationSettings(max_new_tokens=5)}


def test_ask_gives_the_result_of_a_session(model: UniPixel, processor: Processor, clip: Path, checkpoint: Path) -> None:
    session = Session(model, processor, clip, settings=SessionSettings(**BRIEF))
    session.prompt(1, PointPrompt(10, 12, 2))
    expected = session.ask("What is [1]?")
    choices: list[dict[str, Any]] = [{"model": checkpoint}, {"model": model, "processor": processor}]
    for chosen in choices:
        result = unipixel.ask(clip, "What is [1]?", points={1: (10, 12, 2)}, device="cpu", **chosen, **BRIEF)
        assert result.text == expected.text
        assert [frame.rle for frame in result.objects[1].frames] == [frame.rle for frame in expected.objects[1].frames]
        assert result.objects[1].masks[0].shape == (HEIGHT, WIDTH)
        assert len(result.objects[1].masks) == NUM_FRAMES


def test_prompts_are_given_as_plain_values(tmp_path: Path) -> None:
    file, mask = write_mask(tmp_path / "mask.png"), np.ones((4, 4), bool)
    prompts = read_prompt_values(
        points={1: (3, 4), 2: [(1, 2, 3), (5, 6)]},
        boxes={3: (1, 2, 3, 4), 4: [1, 2, 3, 4, 5]},
        masks={5: mask, 6: (str(file), 2)},
    )
    assert prompts[1] == [PointPrompt(3, 4, 0)]
    assert prompts[2] == [PointPrompt(1, 2, 3), PointPrompt(5, 6, 0)]
    assert prompts[3] == [BoxPrompt((1, 2, 3, 4), 0)]
    assert prompts[4] == [BoxPrompt((1, 2, 3, 4), 5)]
    assert isinstance(prompts[5][0], MaskPrompt)
    assert prompts[6][0].frame_index == 2


@pytest.mark.parametrize(
    "given",
    [
        {"points": [(1, 2)]},
        {"points": {"1": (1, 2)}},
        {"points": {1: (1,)}},
        {"points": {1: "12"}},
        {"points": {1: (1, 2, 0.5)}},
        {"boxes": {1: (1, 2, 3)}},
        {"boxes": {1: None}},
        {"masks": 5},
    ],
)
def test_prompts_of_another_form_are_refused_with_the_form(given: dict[str, Any]) -> None:
    values: dict[str, Any] = {"points": None, "boxes": None, "masks": None} | given
    with pytest.raises(TypeError, match=f"{next(iter(given))} must have the form"):
        read_prompt_values(**values)


def test_ask_with_a_loaded_model_needs_its_processor(model: UniPixel, clip: Path) -> None:
    with pytest.raises(TypeError, match="give processor="):
        unipixel.ask(clip, "What?", model=model)
