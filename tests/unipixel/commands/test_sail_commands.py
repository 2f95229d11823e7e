"""`unipixel` with a Pixel-SAIL checkpoint: ask, segment, prompts, exports, videos, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.sail_model import CHECKPOINT, GOLDEN, recorded_generation, recorded_image, recorded_prompts
from PIL import Image

from unipixel.cli import main
from unipixel.memory.rle import decode_rle


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(recorded_image("case_refer")).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([*map(str, arguments), "--model", str(CHECKPOINT)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def _result(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return fields


def test_ask_writes_the_recorded_mask(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code, printed, _ = _run(
        capsys, "ask", photo, "Please segment the blue square in this image.", "--out", out, "--coco"
    )
    assert (code, printed) == (0, "It is [1].\n")
    (item,) = _result(out)["objects"]
    expected = recorded_generation("case_refer", 0)["masks"][0].numpy() > 0
    np.testing.assert_array_equal(decode_rle(item["frames"][0]["rle"]), expected)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "masks/1/00000.png")) > 0, expected)
    assert (out / "overlay.png").is_file()
    assert json.loads((out / "coco.json").read_text(encoding="utf-8"))["annotations"]


def test_segment_takes_what_a_text_describes(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = _run(capsys, "segment", photo, "the blue square", "--json")
    fields = json.loads(printed)
    assert (code, fields["answer"], len(fields["objects"])) == (0, "It is [1].", 1)


def test_masks_boxes_and_points_are_named_in_one_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(recorded_image("case_region_one")).save(tmp_path / "photo.png")
    (prompt,) = recorded_prompts("case_region_one")
    Image.fromarray((np.asarray(prompt.mask) > 0).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    code, printed, _ = _run(
        capsys, "ask", tmp_path / "photo.png", "Please describe [3], [0] and [14] in detail.",
        "--mask", f"3:{tmp_path / 'mask.png'}", "--box", "0:5,5,25,25", "--point", "14:100,70", "--json",
    )  # fmt: skip
    objects = {item["id"]: item["source"] for item in json.loads(printed)["objects"]}
    assert code == 0
    assert {key: objects[key] for key in (0, 3, 14)} == {0: "box", 3: "mask", 14: "point"}


def test_file_of_questions_continues_one_conversation(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = ["Please segment the blue square in this image.", "Please segment the yellow triangle in this image."]
    (tmp_path / "questions.jsonl").write_text(
        json.dumps({"id": "a", "clip": photo.name, "question": questions}) + "\n", encoding="utf-8"
    )
    code, _, error = _run(capsys, "ask", "--questions", tmp_path / "questions.jsonl", "--out", tmp_path / "out")
    assert code == 0, error
    assert [item["id"] for item in _result(tmp_path / "out" / "a")["objects"]] == [1, 2]


def test_video_is_tracked_by_the_segmenter_of_another_checkpoint(
    clip: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = _run(
        capsys, "segment", clip, "the red square", "--segmenter", checkpoint, "--out", tmp_path / "out"
    )
    assert code == 0, error
    (item,) = _result(tmp_path / "out")["objects"]
    assert (item["anchor_frame"], len(item["frames"])) == (0, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("segment", "CLIP", "it"), "is a video of 6 frames, which Pixel-SAIL cannot track alone: give a segmenter"),
        (("ask", "PHOTO", "What is [15]?", "--point", "15:3,3"), "object id 15 is out of range: Pixel-SAIL has prompt"),
        (("ask", "PHOTO", "What is [1]?", "--mask", "1:SMALL"), "the mask has shape (3, 3), the frames have"),
        (("ask", "PHOTO", "What is [1]?", "--quantize", "int8"), "is not quantised"),
        (("stream", "CLIP", "--ask", "What?@1"), "reads images"),
    ],
    ids=["video", "id", "mask", "quantize", "stream"],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    photo: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    Image.fromarray(np.full((3, 3), 255, dtype=np.uint8)).save(tmp_path / "small.png")
    names = {"PHOTO": str(photo), "CLIP": str(clip), "1:SMALL": f"1:{tmp_path / 'small.png'}"}
    code, _, error = _run(capsys, *(names.get(argument, argument) for argument in arguments))
    assert code == 2
    assert message in error
    assert error.rstrip("\n").count("\n") == 0


def test_track_says_that_the_checkpoint_has_no_segmenter(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = _run(capsys, "track", photo, "--point", "1:3,3")
    assert code == 2
    assert "give a UniPixel checkpoint, SAM 2.1 or SAM 2.0" in error
    assert GOLDEN.is_dir()
