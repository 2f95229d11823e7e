"""Types of prompts, and boxes over the edge."""

from __future__ import annotations

from typing import Any

import pytest

from unipixel.processing.prompt_fitting import fit_prompt
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt
from unipixel.session.session import Session

SIZE = (480, 854)


def test_box_over_the_edge_is_clipped_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"box \(-5, 10, 900, 40\) reaches over the edge of the frame of 854 x 480"):
        prompt = fit_prompt(BoxPrompt((-5, 10, 900, 40), 3), frame_size=SIZE)
    assert prompt == BoxPrompt((0, 10, 854, 40), 3)


@pytest.mark.parametrize("box", [(10, 10, 20, 20), (900, 10, 950, 20), (30, 10, 20, 40), (float("nan"), 0, 1, 1)])
def test_box_inside_or_invalid_is_returned_as_it_is(box: tuple[float, float, float, float]) -> None:
    prompt = BoxPrompt(box)
    assert fit_prompt(prompt, frame_size=SIZE) is prompt


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ((10, 20), r"a prompt is a PointPrompt, .* got \(10, 20\): give PointPrompt\(x, y"),
        (None, "got None"),
        (PointPrompt("10", 20), "a point has 2 coordinates"),  # type: ignore[arg-type]
        (BoxPrompt((1, 2, 3)), "a box has 4 coordinates"),  # type: ignore[arg-type]
        (BoxPrompt(5), "a box has 4 coordinates"),  # type: ignore[arg-type]
        (PointPrompt(1, 2, 1.5), "frame_index must be an integer"),  # type: ignore[arg-type]
        (PointPrompt(1, 2, True), "frame_index must be an integer"),
    ],
)
def test_prompt_of_another_type_is_refused_with_what_to_do(prompt: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fit_prompt(prompt, frame_size=SIZE)


def test_session_refuses_a_prompt_of_another_type_and_no_prompt(session: Session) -> None:
    with pytest.raises(TypeError, match="give PointPrompt"):
        session.prompt(1, (10, 20))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give at least one point, box or mask"):
        session.prompt(1)


def test_session_clips_a_box_over_the_edge(session: Session) -> None:
    with pytest.warns(UserWarning, match="is clipped"):
        session.prompt(1, BoxPrompt((40, 10, 70, 30)))
    assert session.objects.pending_prompts[1] == [BoxPrompt((40, 10, 56, 30))]
