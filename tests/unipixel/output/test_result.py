"""The result document and its other forms."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unipixel.memory.rle import decode_rle
from unipixel.output.result import Result
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo

INFO = VideoInfo("clip.mp4", 8, 6, 2, 10.0, 0.2)


def a_mask() -> np.ndarray:
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    return mask


def a_result() -> Result:
    result = Result(INFO, model="tiny", question="What is [1]?", answer="[1] is a cup.")
    result.add_object(1, source="point", anchor_frame=1)
    result.add_object(4, source="language", expression="the cup")
    image = np.zeros((6, 8, 3), np.uint8)
    gone = ObjectMask(np.zeros((6, 8), bool), 0.1, False)
    # Tracking backwards delivers later frames first.
    result.add_frame(Frame(1, 0.1, image), {1: ObjectMask(a_mask(), 0.75, True), 4: gone})
    result.add_frame(Frame(0, 0.0, image), {1: gone, 4: ObjectMask(a_mask(), 0.5, True)})
    result.timings_seconds["track"] = 0.25
    return result


def test_result_json_has_the_documented_form(tmp_path: Path) -> None:
    a_result().save(tmp_path / "saved")
    document = json.loads((tmp_path / "saved/result.json").read_text())
    assert list(document) == [
        "version", "video", "model", "question", "answer", "is_partial", "objects", "timings_seconds",
    ]  # fmt: skip
    assert document["is_partial"] is False
    assert document["video"] == {
        "path": "clip.mp4",
        "width": 8,
        "height": 6,
        "num_frames": 2,
        "fps": 10.0,
        "duration_seconds": 0.2,
    }
    first = document["objects"][0]
    assert list(first) == ["id", "source", "expression", "anchor_frame", "low_confidence", "frames"]
    absent, shown = first["frames"]
    assert (absent["frame_index"], absent["visible"], absent["box_xyxy"], absent["rle"]) == (0, False, None, None)
    assert shown["box_xyxy"] == [2, 1, 7, 4]
    assert shown["rle"]["size"] == [6, 8]
    assert shown["score"] == 0.75
    np.testing.assert_array_equal(decode_rle(shown["rle"]), a_mask())


def test_result_frame_recorded_twice_is_replaced() -> None:
    result = a_result()
    result.add_frame(Frame(0, 0.0, np.zeros((6, 8, 3), np.uint8)), {1: ObjectMask(a_mask(), 0.9, True)})
    assert [(record.frame_index, record.visible) for record in result.objects[1].frames] == [(0, True), (1, True)]


def test_result_refuses_what_does_not_fit() -> None:
    result = a_result()
    frame = Frame(0, 0.0, np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="exists already"):
        result.add_object(1, source="box")
    with pytest.raises(ValueError, match="'scribble'"):
        result.add_object(2, source="scribble")
    with pytest.raises(ValueError, match="was not added"):
        result.add_frame(frame, {9: ObjectMask(a_mask(), 1.0, True)})
    with pytest.raises(ValueError, match="score is nan"):
        result.add_frame(frame, {1: ObjectMask(a_mask(), float("nan"), True)})
    with pytest.raises(ValueError, match="the mask has"):
        result.add_frame(frame, {1: ObjectMask(a_mask()[:3], 1.0, True)})


def test_to_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    (tmp_path / "coco.json").write_text(json.dumps(a_result().to_coco()))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "coco.json"))
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert len(annotations) == 1
    assert annotations[0]["instance_id"] == 1
    assert annotations[0]["bbox"] == [2, 1, 5, 3]
    assert annotations[0]["area"] == 15
    np.testing.assert_array_equal(coco.annToMask(annotations[0]), a_mask())
    assert {category["name"] for category in coco.cats.values()} == {"object", "the cup"}


def test_to_supervision_yields_detections_per_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detections:
        def __init__(self, **values: Any) -> None:
            self.values = values

    monkeypatch.setitem(sys.modules, "supervision", type("module", (), {"Detections": Detections}))
    frames = dict(a_result().to_supervision())
    assert sorted(frames) == [0, 1]
    assert frames[1].values["tracker_id"].tolist() == [1]
    assert frames[1].values["xyxy"].tolist() == [[2, 1, 7, 4]]
    np.testing.assert_array_equal(frames[1].values["mask"][0], a_mask())


def test_to_supervision_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"unipixel-agent\[eval\]"):
        a_result().to_supervision()
