"""Saving, loading and display of results."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, probe_video
from PIL import Image

from unipixel import PointPrompt, Result, Session, open_video
from unipixel.output.display import MAX_HTML_BYTES, draw_frame, to_html
from unipixel.tracking.types import ObjectMask

mpl.use("agg")


@pytest.fixture
def result(session: Session) -> Result:
    session.prompt(1, PointPrompt(10, 12))
    session.objects.track()
    # Known masks instead of those of a model with random weights.
    for index in range(NUM_FRAMES):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[8:24, 4 + 4 * index : 20 + 4 * index] = index != 3
        session.bank.update(1, index, mask, score=0.9)
    return session.result()


def expected_mask(index: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[8:24, 4 + 4 * index : 20 + 4 * index] = index != 3
    return mask


def test_masks_boxes_and_scores_are_those_of_the_memory(result: Result) -> None:
    item = result.objects[1]
    assert all(np.array_equal(item.masks[index], expected_mask(index)) for index in range(NUM_FRAMES))
    assert item.masks[1:4:2].shape == (2, HEIGHT, WIDTH)
    assert item.masks[4:4].shape == (0, HEIGHT, WIDTH)
    assert item.boxes_xyxy[2].tolist() == [12, 8, 28, 24]
    assert np.isnan(item.boxes_xyxy[3]).all()
    assert item.scores.tolist() == pytest.approx([0.9] * NUM_FRAMES)
    assert item.visible.tolist() == [True, True, True, False, True, True]
    assert [frame.timestamp_seconds for frame in item.frames] == pytest.approx([i / 24 for i in range(NUM_FRAMES)])


def test_result_is_not_changed_by_later_turns(session: Session, result: Result) -> None:
    session.bank.update(1, 0, None, score=0.1)
    session.forget(1)
    assert np.array_equal(result.objects[1].masks[0], expected_mask(0))


def test_answer_of_a_session_is_a_result(session: Session) -> None:
    session.prompt(1, PointPrompt(10, 12))
    answer = session.ask("What is [1]?")
    assert isinstance(answer, Result)
    assert (answer.question, answer.text) == ("What is [1]?", answer.parsed.display)
    assert answer.new_ids == (1,)
    assert answer.num_read_tokens > 0
    assert answer.timings_seconds


def test_saved_result_loads_again(result: Result, tmp_path: Path) -> None:
    result.question, result.answer = "What is [1]?", "It is a square."
    folder = result.save(tmp_path / "out", exports=["coco"], davis_name="square")
    assert sorted(path.name for path in folder.iterdir()) == [
        "coco.json", "davis", "masks", "overlay.mp4", "result.json",
    ]  # fmt: skip
    assert probe_video(folder / "overlay.mp4")[0] == NUM_FRAMES
    loaded = Result.load(folder)
    assert loaded.to_dict() == result.to_dict()
    assert np.array_equal(loaded.objects[1].masks[2], expected_mask(2))
    assert np.array_equal(np.asarray(Image.open(folder / "masks/1/00002.png")) > 0, expected_mask(2))
    assert loaded.parsed.display == "It is a square."
    assert loaded.new_ids == ()
    with pytest.raises(FileExistsError, match="the folder exists"):
        result.save(folder)
    # Frames that were in memory cannot be read again: the masks are saved without an overlay.
    loaded.save(tmp_path / "again")
    assert not (tmp_path / "again/overlay.mp4").exists()


def test_unknown_export_is_refused_before_anything_is_written(result: Result, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown export format 'voc': allowed are coco, cvat, label-studio, yolo"):
        result.save(tmp_path / "out", exports=["voc"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda document: document.update(version=9), "version is 9"),
        (lambda document: document.pop("objects"), "'objects' is missing"),
        (lambda document: document["video"].update(width="wide"), "width must be an integer"),
        (lambda document: document["video"].update(height=10**9), "height must be an integer"),
        (lambda document: document["objects"][0]["frames"][0]["rle"].update(counts="!"), "not a compressed run-length"),
        (lambda document: document["objects"][0]["frames"].reverse(), "frames must be ordered"),
        (lambda document: document["objects"][0].update(source="guess"), "source must be one of"),
        (lambda document: document["objects"].append(document["objects"][0]), "object 1 occurs twice"),
        (lambda document: document.update(answer=5), "answer must be a text or null"),
    ],
)
def test_changed_result_is_refused(
    result: Result, tmp_path: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    document = json.loads(result.to_json())
    edit(document)
    (tmp_path / "result.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        Result.load(tmp_path)


def test_frame_is_drawn_with_its_masks(result: Result) -> None:
    drawn = draw_frame(result, 2)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    changed = (drawn != result.source[2].image).any(axis=-1) if result.source else np.zeros((1, 1))
    assert changed[8:24, 12:28].all()
    with pytest.raises(ValueError, match="frame 99 is outside"):
        draw_frame(result, 99)


def test_page_has_poster_and_video_and_is_light(result: Result) -> None:
    result.question, result.answer = "What is <b>[1]</b>?", "It is red & square."
    page = to_html(result)
    assert len(page.encode()) < MAX_HTML_BYTES
    assert "What is &lt;b&gt;[1]&lt;/b&gt;?" in page
    assert "It is red &amp; square." in page
    assert page == result._repr_html_()
    video = re.search(r'src="data:video/mp4;base64,([^"]+)"', page)
    assert video is not None
    assert base64.b64decode(video[1])[4:8] == b"ftyp"
    assert 'poster="data:image/jpeg;base64,' in page


def test_page_of_a_large_noisy_video_stays_below_its_limit() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (540, 960, 3), dtype=np.uint8) for _ in range(12)]
    video = open_video(noise * 5, fps=10)
    result = Result(video.info, source=video)
    result.add_object(1, source="point")
    mask = np.zeros((540, 960), bool)
    mask[100:200, 100:200] = True
    result.add_frame(video[0], {1: ObjectMask(mask, 0.9, True)})
    assert len(to_html(result).encode()) < MAX_HTML_BYTES


def test_plot_draws_on_axes(result: Result) -> None:
    result.answer = "It is a square."
    axes = result.plot(2)
    assert axes.get_images()[0].get_array().shape == (HEIGHT, WIDTH, 3)
    assert axes.get_title() == "It is a square."
    assert result.plot(axes=axes) is axes


def test_plot_without_matplotlib_names_the_extra(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"unipixel-agent\[plot\]"):
        result.plot()


def test_show_displays_the_page_in_a_notebook_and_an_image_elsewhere(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    class Notebook:
        class display:  # noqa: N801 - the name of the module in IPython
            display = staticmethod(shown.append)

        @staticmethod
        def get_ipython() -> object:
            return object()

    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image.size))
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    result.show()
    monkeypatch.setitem(sys.modules, "IPython", Notebook)
    result.show()
    result.show(2)
    assert shown == [(WIDTH, HEIGHT), result, (WIDTH, HEIGHT)]


def test_detections_of_one_frame_are_those_of_supervision(result: Result) -> None:
    detections = result.to_supervision(frame=2)
    assert type(detections).__module__.startswith("supervision")
    assert detections.xyxy.tolist() == [[12, 8, 28, 24]]
    assert np.array_equal(detections.mask[0], expected_mask(2))
    assert detections.tracker_id.tolist() == [1]
    assert len(result.to_supervision(frame=3)) == 0
    with pytest.raises(ValueError, match="frame 99 has no masks: allowed are 0 to 5"):
        result.to_supervision(frame=99)
