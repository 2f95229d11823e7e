from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unipixel.demos.frame_images import frame_jpeg
from unipixel.demos.sessions.saved_session import SavedTurn
from unipixel.demos.sessions.session_snapshot import ObjectInfo
from unipixel.demos.web.render import (
    answer_html,
    chip,
    color_of,
    conversation_html,
    downloads_html,
    error_html,
    objects_html,
    runs_of,
    timeline_html,
)
from unipixel.output.overlay import object_color

EVIL = "<img src=x onerror=alert(1)>\"'&"


def info(object_id: int, *, name: str = "", pending: bool = False, visible: tuple[int, ...] = ()) -> ObjectInfo:
    return ObjectInfo(object_id, name or f"object {object_id}", color_of(object_id), "point", pending, 1, 6, visible)


def test_id_in_an_answer_has_the_color_of_its_mask() -> None:
    shown = answer_html("[1] passes [12].")
    assert f"background:{color_of(1)}" in shown
    assert f"background:{color_of(12)}" in shown
    assert color_of(1) == "#{:02x}{:02x}{:02x}".format(*object_color(1))


def test_brackets_without_an_id_stay_text() -> None:
    assert answer_html("a[b] [x] [12345]") == "a[b] [x] [12345]"


def luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("object_id", range(1, 22))
def test_text_on_every_color_has_contrast(object_id: int) -> None:
    shown = chip(object_id)
    background, text = (shown.split(f"{name}:")[1][:7] for name in ("background", ";color"))
    light, dark = sorted((luminance(background), luminance(text)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.4  # WCAG requires 4.5 for text, 3 for bold text


@pytest.mark.parametrize(
    "shown",
    [
        answer_html(EVIL, names={1: EVIL}),
        answer_html("[1]", names={1: EVIL}),
        conversation_html([SavedTurn(EVIL, EVIL)], names={1: EVIL}, pending=(EVIL, EVIL), status=EVIL),
        conversation_html([], status=EVIL),
        objects_html([info(1, name=EVIL)], base=EVIL, num_frames=6, revision=1),
        timeline_html([info(1, name=EVIL, visible=(1, 2))], num_frames=6, fps=10.0),
        downloads_html(EVIL, has_masks=True, link=EVIL),
        error_html(EVIL),
    ],
)
def test_untrusted_text_is_escaped(shown: str) -> None:
    assert "<img src=x" not in shown
    assert "\"'&" not in shown


def test_runs_join_consecutive_frames() -> None:
    assert runs_of((5, 0, 1, 2, 6)) == [(0, 2), (5, 6)]
    assert runs_of(()) == []


def test_timeline_has_a_bar_per_run_and_is_empty_for_an_image() -> None:
    shown = timeline_html([info(1, visible=(0, 1, 4))], num_frames=6, fps=10.0)
    assert shown.count(f'fill="{color_of(1)}"') == 2
    assert "0 to 1, 4 to 4" in shown
    assert timeline_html([info(1, visible=(0,))], num_frames=1, fps=None) == ""


def test_object_with_pending_prompts_says_what_to_do() -> None:
    assert "choose Track" in objects_html([info(1, pending=True)], base="session/k", num_frames=6, revision=1)


def test_masks_are_drawn_and_the_size_is_kept() -> None:
    image = np.full((40, 56, 3), 30, np.uint8)
    mask = np.zeros((40, 56), bool)
    mask[8:24, 4:20] = True
    plain = np.asarray(Image.open(io.BytesIO(frame_jpeg(image, {}))))
    shown = np.asarray(Image.open(io.BytesIO(frame_jpeg(image, {1: mask}))))
    assert plain.shape == shown.shape == (40, 56, 3)
    assert np.abs(shown.astype(int) - plain)[14:18, 8:16].mean() > 30
    assert np.abs(shown.astype(int) - plain)[32:, 40:].mean() < 4
