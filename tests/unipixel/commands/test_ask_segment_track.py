"""`unipixel ask`, `segment` and `track` from end to end: what they write, print and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from helpers import moving_square
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frame, write_audio, write_clip, write_mask
from PIL import Image

from unipixel import cli
from unipixel.memory.rle import decode_rle
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.session import Session

Command = Callable[..., tuple[int, str, str]]

FIELDS = ["version", "video", "model", "question", "answer", "is_partial", "objects", "timings_seconds"]
VIDEO_FIELDS = ["path", "width", "height", "num_frames", "fps", "duration_seconds"]
OBJECT_FIELDS = ["id", "source", "expression", "anchor_frame", "low_confidence", "frames"]
FRAME_FIELDS = ["frame_index", "timestamp_seconds", "visible", "score", "box_xyxy", "rle"]


@pytest.fixture
def unipixel(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(command: str, *argv: Any) -> tuple[int, str, str]:
        options = ["--model", checkpoint, "--device", "cpu"]
        if command != "track":
            options += ["--max-new-tokens", 3]
        code = cli.main([command, *map(str, [*options, *argv])])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Questions; the model answers each with its number and no mask."""
    asked: list[str] = []

    def ask(self: Conversation, turn: Any, on_text: Any = None) -> Reply:
        asked.append(turn.question)
        return Reply(f"Answer {len(asked)}.", torch.empty(0, 2, 32), 1)

    monkeypatch.setattr(Conversation, "ask", ask)
    return asked


class TestResults:
    def test_result_has_the_documented_fields_and_types(
        self, unipixel: Command, clip: Path, tmp_path: Path, words: list[str]
    ) -> None:
        mask = write_mask(tmp_path / "mask.png")
        out = tmp_path / "out"
        prompts = ["--point", "1:10,12@2", "--box", "2:20,8,40,30@0", "--mask", f"3:{mask}@1"]
        code, printed, _ = unipixel("ask", clip, "What is [1] doing to [2]?", *prompts, "--out", out)
        assert (code, printed) == (0, "Answer 1.\n")
        result = _result(out)
        assert list(result) == FIELDS
        assert result["version"] == 1
        assert list(result["video"]) == VIDEO_FIELDS
        assert result["video"] == {
            "path": str(clip), "width": WIDTH, "height": HEIGHT, "num_frames": NUM_FRAMES, "fps": 10.0,
            "duration_seconds": pytest.approx(NUM_FRAMES / 10),
        }  # fmt: skip
        assert isinstance(result["model"], str)
        assert (result["question"], result["answer"]) == ("What is [1] doing to [2]?", "Answer 1.")
        assert [(item["id"], item["source"]) for item in result["objects"]] == [(1, "point"), (2, "box"), (3, "mask")]
        assert [item["anchor_frame"] for item in result["objects"]] == [2, 0, 1]
        assert all(isinstance(seconds, float) for seconds in result["timings_seconds"].values())
        for item in result["objects"]:
            assert list(item) == OBJECT_FIELDS
            assert item["expression"] is None
            assert [frame["frame_index"] for frame in item["frames"]] == list(range(NUM_FRAMES))
            for frame in item["frames"]:
                _check_frame(frame)

    def test_masks_are_grey_images_of_two_values_and_equal_the_run_lengths(
        self, unipixel: Command, clip: Path, tmp_path: Path
    ) -> None:
        mask = write_mask(tmp_path / "mask.png")
        unipixel("track", clip, "--mask", f"1:{mask}@0", "--box", "12:20,8,40,30@3", "--out", tmp_path / "out")
        assert sorted(os.listdir(tmp_path / "out/masks")) == ["1", "12"]
        num_seen = 0
        for item in _result(tmp_path / "out")["objects"]:
            folder = tmp_path / "out/masks" / str(item["id"])
            assert sorted(os.listdir(folder)) == [f"{index:05d}.png" for index in range(NUM_FRAMES)]
            for frame in item["frames"]:
                image = Image.open(folder / f"{frame['frame_index']:05d}.png")
                pixels = np.asarray(image)
                assert (image.mode, image.size) == ("L", (WIDTH, HEIGHT))
                assert set(np.unique(pixels)) <= {0, 255}
                assert np.array_equal(pixels == 255, _decoded(frame))
                num_seen += frame["visible"]
        assert num_seen

    def test_davis_images_hold_ids_in_a_palette(self, unipixel: Command, clip: Path, tmp_path: Path) -> None:
        mask = write_mask(tmp_path / "mask.png")
        out = tmp_path / "out"
        unipixel("track", clip, "--mask", f"7:{mask}@0", "--davis", "--no-overlay", "--out", out)
        assert sorted(os.listdir(out)) == ["davis", "masks", "result.json"]
        (item,) = _result(out)["objects"]
        names = sorted(os.listdir(out / "davis/clip"))
        assert names == [f"{index:05d}.png" for index in range(NUM_FRAMES)]
        for name, frame in zip(names, item["frames"], strict=True):
            image = Image.open(out / "davis/clip" / name)
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), np.where(_decoded(frame), 7, 0))

    def test_overlay_has_the_size_and_the_frames_of_the_video(
        self, unipixel: Command, clip: Path, tmp_path: Path
    ) -> None:
        unipixel("track", clip, "--point", "1:10,12@4", "--out", tmp_path / "out")
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4") == (NUM_FRAMES, (WIDTH, HEIGHT))

    @pytest.mark.parametrize("command", [["track"], ["ask", "Where is [1]?"], ["segment", "cup"]])
    def test_json_on_stdout_is_the_result_file(
        self, unipixel: Command, clip: Path, tmp_path: Path, command: list[str]
    ) -> None:
        name, *question = command
        prompt = ["--point", "1:10,12@0"]
        code, printed, _ = unipixel(name, clip, *question, *prompt, "--json", "--out", tmp_path / "out")
        assert code == 0
        assert printed == (tmp_path / "out/result.json").read_text(encoding="utf-8")

    def test_json_needs_no_folder(self, unipixel: Command, clip: Path, words: list[str]) -> None:
        _, printed, _ = unipixel("ask", clip, "What?", "--json")
        assert json.loads(printed)["objects"] == []

    def test_question_may_follow_options(self, unipixel: Command, clip: Path, words: list[str]) -> None:
        assert unipixel("ask", clip, "--frames", 2, "What?", "--seed", 1)[:2] == (0, "Answer 1.\n")

    def test_image_gives_an_image(self, unipixel: Command, tmp_path: Path) -> None:
        picture = tmp_path / "picture.png"
        Image.fromarray(clip_frame(0)).save(picture)
        code, _, _ = unipixel("track", picture, "--point", "1:10,12@0", "--out", tmp_path / "out")
        assert code == 0
        assert sorted(os.listdir(tmp_path / "out")) == ["masks", "overlay.png", "result.json"]
        assert Image.open(tmp_path / "out/overlay.png").size == (WIDTH, HEIGHT)
        assert _result(tmp_path / "out")["video"]["num_frames"] == 1

    def test_overwrite_replaces_results_and_keeps_other_files(
        self, unipixel: Command, clip: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        unipixel("track", clip, "--point", "1:10,12@0", "--out", out)
        (out / "notes.txt").write_text("mine", encoding="utf-8")
        code, _, _ = unipixel("track", clip, "--point", "5:10,12@0", "--out", out, "--overwrite")
        assert code == 0
        assert os.listdir(out / "masks") == ["5"]
        assert (out / "notes.txt").exists()


class TestSegment:
    def test_text_becomes_the_expression_of_the_object(
        self, unipixel: Command, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = Reply("It is <|seg|>.", torch.ones(1, 2, 32), 1)
        monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)
        code, printed, _ = unipixel("segment", clip, "the red cup", "--anchor", "first", "--out", tmp_path / "out")
        assert (code, printed) == (0, "It is [1].\n")
        result = _result(tmp_path / "out")
        assert result["question"] == "the red cup"
        ((item),) = result["objects"]
        assert [item[key] for key in ("id", "source", "expression", "anchor_frame")] == [
            1, "language", "the red cup", 0,
        ]  # fmt: skip

    def test_no_target_means_no_objects_and_success(
        self, unipixel: Command, clip: Path, tmp_path: Path, words: list[str]
    ) -> None:
        code, printed, _ = unipixel("segment", clip, "the red cup", "--out", tmp_path / "out")
        assert (code, printed) == (0, "Answer 1.\n")
        assert _result(tmp_path / "out")["objects"] == []
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4")[0] == NUM_FRAMES


class TestManyQuestions:
    def test_folder_of_clips_gets_a_folder_each(self, unipixel: Command, tmp_path: Path, words: list[str]) -> None:
        (tmp_path / "clips").mkdir()
        for name in ("a.mp4", "b.mkv"):
            write_clip(tmp_path / "clips" / name)
        code, printed, _ = unipixel("ask", tmp_path / "clips", "What?", "--out", tmp_path / "out")
        assert (code, printed) == (0, "a: Answer 1.\nb: Answer 2.\n")
        assert sorted(os.listdir(tmp_path / "out")) == ["a", "b", "results.jsonl"]
        assert _lines(tmp_path / "out") == [
            {"id": "a", "answers": ["Answer 1."]},
            {"id": "b", "answers": ["Answer 2."]},
        ]

    def test_folder_of_frames_is_one_clip(self, unipixel: Command, tmp_path: Path, words: list[str]) -> None:
        (tmp_path / "frames").mkdir()
        for index in range(3):
            Image.fromarray(clip_frame(index)).save(tmp_path / "frames" / f"{index:05d}.png")
        unipixel("ask", tmp_path / "frames", "What?", "--out", tmp_path / "out")
        assert _result(tmp_path / "out")["video"]["num_frames"] == 3

    def test_broken_lines_are_reported_and_the_rest_go_on(
        self, unipixel: Command, clip: Path, tmp_path: Path, words: list[str]
    ) -> None:
        write_mask(tmp_path / "mask.png")
        rows: list[Any] = [
            {"id": "first", "clip": "clip.mp4", "question": ["What is [1]?", "And [2]?"],
             "points": {"1": [[10, 12, 0], [12, 14, 0]]}, "boxes": {"2": [20, 8, 40, 30, 2]}},
            "{ broken",
            {"id": "far", "clip": "clip.mp4", "question": "What?", "points": {"1": [[10, 12, 60]]}},
            {"id": "../up", "clip": "clip.mp4", "question": "What?"},
            {"id": "gone", "clip": "nowhere.mp4", "question": "What?"},
            {"id": "first", "clip": "clip.mp4", "question": "What?"},
            {"clip": "clip.mp4", "question": "What is [3]?", "masks": {"3": ["mask.png", 1]}},
        ]  # fmt: skip
        file = tmp_path / "questions.jsonl"
        file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
        code, _, error = unipixel("ask", "--questions", file, "--out", tmp_path / "out")
        assert code == 0
        entries = _lines(tmp_path / "out")
        assert [entry["id"] for entry in entries] == ["first", "line-2", "far", "line-4", "gone", "line-6", "line-7"]
        assert entries[0]["answers"] == ["Answer 1.", "Answer 2."]
        assert entries[6]["answers"] == ["Answer 3."]
        for entry, reason in zip(
            entries[1:6], ["line 2", "frame 60 is outside", "not a valid folder name", "nowhere.mp4", "used twice"],
            strict=True,
        ):  # fmt: skip
            assert reason in entry["error"]
        assert sorted(os.listdir(tmp_path / "out")) == ["first", "line-7", "results.jsonl"]
        assert _result(tmp_path / "out/first")["question"] == "What is [1]?\nAnd [2]?"
        assert error.endswith(f"2 answered, 5 failed; results in {tmp_path / 'out'}\n")

    def test_nothing_answered_ends_with_2(self, unipixel: Command, tmp_path: Path) -> None:
        file = tmp_path / "questions.jsonl"
        file.write_text("[]\n", encoding="utf-8")
        assert unipixel("ask", "--questions", file, "--out", tmp_path / "out")[0] == 2

    def test_missing_model_leaves_no_output(self, unipixel: Command, clip: Path, tmp_path: Path) -> None:
        file = tmp_path / "questions.jsonl"
        row = json.dumps({"clip": "clip.mp4", "question": "What?"})
        file.write_text(f"{row}\n{row}\n", encoding="utf-8")
        code = cli.main(["ask", "--questions", str(file), "--out", str(tmp_path / "out"), "--model", str(tmp_path)])
        assert code == 2
        assert not (tmp_path / "out").exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--point", "1:56,12@0"], "the point (56, 12) is outside the frame of 56 x 40 pixels"),
            (["--point", "1:5,12@6"], "frame 6 is outside the clip of 6 frames: allowed are 0 to 5"),
            (["--box", "1:30,8,20,30@0"], "the box (30, 8, 20, 30) is inverted or empty"),
            (["--box", "1:57,8,60,30@0"], "the box (57, 8, 60, 30) is outside the frame of 56 x 40"),
            (["--mask", "1:EMPTY@0"], "empty.png: the mask is empty, it must mark at least one pixel"),
            (["--mask", "1:SMALL@0"], "the mask has shape (20, 30), the frames have (H, W) = (40, 56)"),
            (["--mask", "1:nowhere.png@0"], "nowhere.png"),
            (["--point", "1:5,3,4@0"], "--point '1:5,3,4@0' is not of the form ID:X,Y@FRAME"),
            (["--box", "x:5,3,4,5@0"], "--box 'x:5,3,4,5@0' is not of the form ID:X1,Y1,X2,Y2@FRAME"),
            (["--point", "1:nan,3@0"], "--point '1:nan,3@0' is not of the form"),
            (["--not-point", "1:5,3@0"], "only negative points"),
            (["--point", "10000:5,3@0"], "10000"),
            (["--point", "1:5,3@0", "--max-frames", "5"], "has 6 frames, more than the allowed 5"),
            (["--point", "1:5,3@0", "--max-frames", "0"], "max_frames must be 1 or more, not 0"),
        ],
    )
    @pytest.mark.parametrize("command", ["track", "ask"])
    def test_bad_prompt_is_one_line_and_leaves_nothing(
        self, unipixel: Command, clip: Path, tmp_path: Path, command: str, options: list[str], message: str
    ) -> None:
        masks = {
            "EMPTY": str(write_mask(tmp_path / "empty.png", is_empty=True)),
            "SMALL": str(write_mask(tmp_path / "small.png", size=(30, 20))),
        }
        for name, path in masks.items():
            options = [option.replace(name, path) for option in options]
        question = ["What is that?"] if command == "ask" else []
        _assert_refused(unipixel(command, clip, *question, *options, "--out", tmp_path / "new/out"), message)
        assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "empty.png", "small.png"]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("nowhere.mp4", "No such file"),
            ("zero.mp4", "the file is empty (0 bytes)"),
            ("sound.mp4", "sound.mp4"),
            ("text.mp4", "text.mp4"),
            ("bare", "bare"),
        ],
    )
    @pytest.mark.parametrize("command", ["track", "segment"])
    def test_video_that_cannot_be_read_is_one_line(
        self, unipixel: Command, tmp_path: Path, command: str, source: str, message: str
    ) -> None:
        (tmp_path / "zero.mp4").touch()
        (tmp_path / "text.mp4").write_text("no video", encoding="utf-8")
        (tmp_path / "bare").mkdir()
        write_audio(tmp_path / "sound.mp4")
        argv = ["a cup"] if command == "segment" else ["--point", "1:5,3@0"]
        _assert_refused(unipixel(command, tmp_path / source, *argv, "--out", tmp_path / "out"), message)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("command", "argv", "message"),
        [
            ("track", [], "nothing to track: give --point, --box or --mask"),
            ("ask", ["  "], "the question is empty"),
            (
                "ask",
                ["Where is [4]?"],
                "names [4], which is neither prompted nor in the object memory: known ids are none",
            ),
            ("segment", ["."], "the query '.' is empty"),
            ("ask", [], "give a VIDEO and a question, or --questions FILE.jsonl"),
            ("ask", ["What?", "--frames", "0"], "num_frames must be at least 1, got 0"),
            ("ask", ["What?", "--temperature", "-1"], "temperature must be 0"),
            ("ask", ["What?", "--questions", "file.jsonl"], "--questions contains clips and questions"),
            ("ask", ["What?", "--device", "warp"], "device 'warp' is unknown"),
        ],
    )
    def test_bad_question_is_one_line_and_leaves_nothing(
        self, unipixel: Command, clip: Path, tmp_path: Path, command: str, argv: list[str], message: str
    ) -> None:
        _assert_refused(unipixel(command, clip, "--out", tmp_path / "out", *argv), message)
        assert os.listdir(tmp_path) == ["clip.mp4"]

    def test_existing_folder_asks_for_overwrite_and_is_left_alone(
        self, unipixel: Command, clip: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        ran = unipixel("track", clip, "--point", "1:5,3@0", "--out", tmp_path / "out")
        _assert_refused(ran, f"{tmp_path / 'out'}: the folder exists; give --overwrite to replace its results")
        assert os.listdir(tmp_path / "out") == []

    @pytest.mark.parametrize("place", ["clip.mp4", "clip.mp4/out"])
    def test_folder_that_cannot_be_written_is_one_line(
        self, unipixel: Command, clip: Path, tmp_path: Path, place: str
    ) -> None:
        ran = unipixel("track", clip, "--point", "1:5,3@0", "--out", tmp_path / place, "--overwrite")
        _assert_refused(ran, str(tmp_path / place))

    def test_several_clips_need_a_folder(self, unipixel: Command, tmp_path: Path) -> None:
        for name in ("a.mp4", "b.mp4"):
            write_clip(tmp_path / name)
        _assert_refused(unipixel("ask", tmp_path, "What?"), "2 clips or questions need --out DIR")

    def test_ctrl_c_leaves_what_was_finished_valid(
        self, unipixel: Command, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from unipixel.commands._running.results import ResultWriter

        write = ResultWriter.write

        def stopped(writer: ResultWriter, frame: Any, objects: Any) -> None:
            if frame.index == 3:
                raise KeyboardInterrupt
            write(writer, frame, objects)

        monkeypatch.setattr(ResultWriter, "write", stopped)
        code, _, error = unipixel("track", clip, "--point", "1:10,12@0", "--out", tmp_path / "out")
        out = tmp_path / "out"
        assert (code, error) == (130, f"unipixel: partial result of 3 frames in {out}\nunipixel: interrupted\n")
        assert _result(out)["is_partial"] is True
        assert [len(item["frames"]) for item in _result(tmp_path / "out")["objects"]] == [3]
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4")[0] == 3

    def test_ctrl_c_before_the_first_frame_leaves_no_folder(
        self, unipixel: Command, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Conversation, "ask", stopped)
        code, _, error = unipixel("ask", clip, "What?", "--out", tmp_path / "new/out")
        assert (code, error) == (130, "unipixel: interrupted\n")
        assert not (tmp_path / "new").exists()

    def test_ctrl_c_in_a_batch_says_what_is_finished(
        self, unipixel: Command, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ask(self: Conversation, turn: Any, on_text: Any = None) -> Reply:
            if turn.question == "Second?":
                raise KeyboardInterrupt
            return Reply("Done.", torch.empty(0, 2, 32), 1)

        monkeypatch.setattr(Conversation, "ask", ask)
        lines = [{"clip": clip.name, "question": question} for question in ("First?", "Second?", "Third?")]
        (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
        out = tmp_path / "out"
        code, _, error = unipixel("ask", "--questions", tmp_path / "questions.jsonl", "--out", out)
        assert code == 130
        assert error.splitlines()[-2:] == [
            f"unipixel: 1 of 3 finished; their results are in {out}", "unipixel: interrupted",
        ]  # fmt: skip
        assert sorted(os.listdir(out)) == ["line-1", "results.jsonl"]
        assert len((out / "results.jsonl").read_text().splitlines()) == 1

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"points": [[1, 2, 0]]}, "points must have the form"),
            ({"points": {"1": [1, 2, 0]}}, "points must have the form"),
            ({"points": {"1": [[1, 2]]}}, "points must have the form"),
            ({"points": {"one": [[1, 2, 0]]}}, "points must have the form"),
            ({"boxes": [1, 2, 3]}, "boxes must have the form"),
            ({"boxes": {"1": [1, 2, 3, "4", 0]}}, "boxes must have the form"),
            ({"masks": ["mask.png", 0]}, "masks must have the form"),
            ({"masks": {"1": "mask.png"}}, "masks must have the form"),
            ({"masks": {"1": ["absent.png", 0]}}, "absent.png"),
            ({"question": {"text": "What?"}}, "clip must be a text"),
            ({"points": {"1": [[1, 2, -1]]}}, "points must have the form"),
            ({"points": {"1": [[1e999, 2, 0]]}}, "points must have the form"),
        ],
    )
    def test_line_with_prompts_of_another_form_is_one_failed_line(
        self, unipixel: Command, clip: Path, tmp_path: Path, words: list[str], fields: dict[str, Any], message: str
    ) -> None:
        lines = [{"clip": clip.name, "question": "What?"} | fields, {"clip": clip.name, "question": "And?"}]
        (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
        out = tmp_path / "out"
        code, printed, _ = unipixel("ask", "--questions", tmp_path / "questions.jsonl", "--no-overlay", "--out", out)
        assert (code, printed) == (0, "line-2: Answer 1.\n")
        failed, answered = map(json.loads, (out / "results.jsonl").read_text().splitlines())
        assert message in failed["error"]
        assert answered["answers"] == ["Answer 1."]

    def test_questions_that_are_not_text_name_the_file(self, unipixel: Command, tmp_path: Path) -> None:
        file = tmp_path / "questions.jsonl"
        file.write_bytes(b'{"clip": "\xff"}')
        _assert_refused(unipixel("ask", "--questions", file, "--out", tmp_path / "out"), f"{file} is not a text file")

    def test_missing_file_is_named_without_an_error_number(self, unipixel: Command, tmp_path: Path) -> None:
        ran = unipixel("ask", tmp_path / "nowhere.mp4", "What?")
        _assert_refused(ran, f"unipixel: {tmp_path / 'nowhere.mp4'}: No such file or directory")

    @pytest.mark.parametrize("command", ["ask", "segment", "track"])
    def test_empty_name_of_the_video_is_refused(self, unipixel: Command, command: str) -> None:
        words = ["", "--point", "1:3,4"] if command == "track" else ["", "What?"]
        _assert_refused(unipixel(command, *words), "is empty: give a file")

    @pytest.mark.parametrize("object_id", [0, 255])
    def test_davis_refuses_ids_beyond_the_palette_before_the_work(
        self, unipixel: Command, clip: Path, tmp_path: Path, object_id: int
    ) -> None:
        argv = ["--point", f"{object_id}:10,12@0", "--davis", "--out", tmp_path / "out"]
        _assert_refused(unipixel("track", clip, *argv), f"object {object_id}: --davis supports ids 1 to 254")
        _assert_refused(unipixel("ask", clip, "What?", *argv), f"object {object_id}: --davis supports ids 1 to 254")

    def test_libraries_print_nothing_beside_the_one_line(self, clip: Path, checkpoint: Path) -> None:
        """In a new process, where models are loaded for the first time."""
        argv = ["ask", str(clip), "What is [3]?", "--model", str(checkpoint), "--device", "cpu"]
        ran = subprocess.run([sys.executable, "-m", "unipixel.cli", *argv], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr == (
            "unipixel: the question names [3], which is neither prompted nor in the object memory: known ids are none\n"
        )


class TestDamagedVideo:
    """A file with a damaged frame gives the frames before it, as a truncated one does."""

    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        clip = write_clip(tmp_path / "damaged.mp4", num_frames=30)
        with av.open(str(clip)) as container:
            packets = [packet.pos for packet in container.demux(video=0) if packet.size]
        content = bytearray(clip.read_bytes())
        # The length of a unit of H.264: the decoder refuses the packet.
        content[packets[12] : packets[12] + 4] = b"\xff" * 4
        clip.write_bytes(content)
        return clip

    @pytest.mark.parametrize("frame", [0, 8])
    def test_track_keeps_the_frames_before_the_damage(
        self, unipixel: Command, damaged: Path, tmp_path: Path, frame: int
    ) -> None:
        code, _, error = unipixel("track", damaged, "--point", f"1:10,12@{frame}", "--out", tmp_path / "out")
        assert code == 0
        assert "damaged after 13 frame(s), the rest is skipped" in error
        result = _result(tmp_path / "out")
        assert result["video"]["num_frames"] == 13
        assert [item["frame_index"] for item in result["objects"][0]["frames"]] == list(range(13))
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4")[0] == 13

    def test_ask_reads_the_frames_before_the_damage(
        self, unipixel: Command, damaged: Path, tmp_path: Path, words: list[str]
    ) -> None:
        code, printed, _ = unipixel("ask", damaged, "What is [1]?", "--point", "1:10,12@0", "--out", tmp_path / "out")
        assert (code, printed) == (0, "Answer 1.\n")
        assert len(_result(tmp_path / "out")["objects"][0]["frames"]) == 13

    def test_prompt_behind_the_damage_is_refused(self, unipixel: Command, damaged: Path) -> None:
        code, _, error = unipixel("track", damaged, "--point", "1:10,12@20")
        assert (code, "the file is damaged there" in error) == (2, True)


class TestLongQuestions:
    def test_question_longer_than_the_positions_is_refused_with_both_numbers(
        self, clip: Path, model: UniPixel, processor: Processor
    ) -> None:
        session = Session(model, processor, clip)
        with pytest.raises(ValueError, match=r"have \d{6} tokens, the model takes at most 32767"):
            session.ask("What moves? " * 20_000)
        assert session.bank.ids == ()


class TestUncertainResults:
    @pytest.fixture
    def low_scores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From frame 1 on, the tracker is as good as certain that its masks are wrong."""
        from unipixel.session import video_tracker

        convert = video_tracker.object_masks

        def doubtful(tracked: Any) -> dict[int, Any]:
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[5:9, 5:9] = True
            score = 0.9 if tracked.frame_index == 0 else 0.1
            return {key: item._replace(mask=mask, visible=True, score=score) for key, item in convert(tracked).items()}

        monkeypatch.setattr(video_tracker, "object_masks", doubtful)

    def test_track_says_after_which_frame_scores_stay_low(
        self, unipixel: Command, clip: Path, tmp_path: Path, low_scores: None
    ) -> None:
        code, printed, _ = unipixel("track", clip, "--point", "1:10,12@0", "--out", tmp_path / "out")
        assert code == 0
        assert printed.startswith("[1] point: visible in 6 of 6 frames, low confidence after frame 0\n")
        assert _result(tmp_path / "out")["objects"][0]["low_confidence"] == [[1, 5]]

    def test_ask_warns_on_stderr(self, unipixel: Command, clip: Path, low_scores: None, words: list[str]) -> None:
        code, printed, error = unipixel("ask", clip, "What is [1]?", "--point", "1:10,12@0")
        assert (code, printed) == (0, "Answer 1.\n")
        assert error == "unipixel: warning: [1] low confidence after frame 0\n"


class TestExports:
    def test_export_options_write_the_files_of_the_tools(self, unipixel: Command, clip: Path, tmp_path: Path) -> None:
        mask = write_mask(tmp_path / "mask.png")
        options = ["--coco", "--cvat", "--label-studio", "--yolo", "--no-overlay", "--out", tmp_path / "out"]
        assert unipixel("track", clip, "--mask", f"1:{mask}@0", *options)[0] == 0
        assert sorted(os.listdir(tmp_path / "out")) == [
            "coco.json", "cvat.xml", "label_studio.json", "label_studio.xml", "label_studio_video.json", "masks",
            "result.json", "yolo",
        ]  # fmt: skip
        coco = json.loads((tmp_path / "out/coco.json").read_text())
        assert [image["id"] for image in coco["images"]] == list(range(1, NUM_FRAMES + 1))

    def test_davis_sequence_of_a_folder_of_images_has_the_name_of_the_clip(
        self, unipixel: Command, tmp_path: Path
    ) -> None:
        folder = tmp_path / "bear/images"
        folder.mkdir(parents=True)
        for index in range(2):
            Image.fromarray(clip_frame(index)).save(folder / f"{index:05d}.png")
        unipixel("track", folder, "--point", "1:10,12@0", "--davis", "--no-overlay", "--out", tmp_path / "out")
        assert os.listdir(tmp_path / "out/davis") == ["bear"]


def _check_frame(frame: dict[str, Any]) -> None:
    assert list(frame) == FRAME_FIELDS
    assert frame["timestamp_seconds"] == pytest.approx(frame["frame_index"] / 10)
    assert isinstance(frame["visible"], bool)
    assert isinstance(frame["score"], float)
    assert (frame["box_xyxy"] is None) == (frame["rle"] is None) == (not frame["visible"])
    if frame["visible"]:
        rows, columns = np.nonzero(_decoded(frame))
        assert frame["box_xyxy"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert list(frame["rle"]) == ["size", "counts"]
        assert frame["rle"]["size"] == [HEIGHT, WIDTH]


def _assert_refused(ran: tuple[int, str, str], message: str) -> None:
    code, printed, error = ran
    assert (code, printed) == (2, "")
    assert error.startswith("unipixel: ")
    assert message in error
    assert error.count("\n") == 1


def _decoded(frame: dict[str, Any]) -> np.ndarray:
    return decode_rle(frame["rle"]) if frame["rle"] else np.zeros((HEIGHT, WIDTH), dtype=bool)


def _result(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def _lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
