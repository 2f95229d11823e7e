"""The demo's user sessions with Pixel-SAIL, which reads images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from helpers.moving_square import write_clip
from helpers.sail_model import recorded_generation, recorded_image, recorded_sail
from PIL import Image

from unipixel.demos.errors import DemoError
from unipixel.demos.limits import Limits
from unipixel.demos.sessions.events import Answered
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession


@pytest.fixture
def store() -> Iterator[SessionStore]:
    model, processor = cast("tuple[Any, Any]", recorded_sail())
    opened = SessionStore(model, processor, limits=Limits(), folder=None, model_name="sail")
    yield opened
    opened.close_all()


@pytest.fixture
def user_session(store: SessionStore, tmp_path: Path) -> UserSession:
    Image.fromarray(recorded_image("case_refer")).save(tmp_path / "photo.png")
    user_session = store.open()
    user_session.load(tmp_path / "photo.png", is_trusted=True)
    return user_session


def test_question_about_an_image_adds_the_recorded_mask(user_session: UserSession) -> None:
    events = list(user_session.ask("Please segment the blue square in this image."))
    assert isinstance(events[-1], Answered)
    assert user_session.history[-1].answer == "It is [1]."
    expected = recorded_generation("case_refer", 0)["masks"][0].numpy() > 0
    np.testing.assert_array_equal(user_session.masks_at(0)[1], expected)


def test_click_box_undo_and_question_work_on_an_image(user_session: UserSession) -> None:
    object_id = user_session.prompts.add_point(0, 50.0, 40.0)
    assert user_session.masks_at(0)[object_id][40, 50]
    user_session.prompts.add_box(3, (5.0, 5.0, 30.0, 30.0))
    assert user_session.masks_at(0)[3].sum() == 25 * 25
    assert list(user_session.track())
    events = list(user_session.ask("What is [3]?"))
    assert isinstance(events[-1], Answered)
    user_session.prompts.undo()
    assert 3 not in user_session.masks_at(0)


def test_video_without_a_segmenter_is_refused(store: SessionStore, tmp_path: Path) -> None:
    user_session = store.open()
    with pytest.raises((DemoError, ValueError), match="Pixel-SAIL cannot track alone"):
        user_session.load(write_clip(tmp_path / "clip.mp4"), is_trusted=True)
