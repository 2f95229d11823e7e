"""`unipixel stream`: a line per frame, answers between them, an overlay that stays valid."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import moving_square
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, write_clip, write_mask

from unipixel import cli
from unipixel.commands._running import streaming
from unipixel.memory.rle import decode_rle
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.stream_objects import StreamObjects
from unipixel.video.open import open_video

POINT = ["--point", "1:20,16@0"]


@pytest.fixture
def stream(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[Any], str]]:
    def run(*argv: Any) -> tuple[int, list[Any], str]:
        options = ["--model", str(checkpoint), "--device", "cpu", "--max-new-tokens", "4"]
        code = cli.main(["stream", *map(str, argv), *options])
        captured = capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return run


class TestLines:
    def test_each_frame_is_a_line_of_the_documented_form(self, stream: Any, clip: Path) -> None:
        code, lines, _ = stream(clip, *POINT)
        assert code == 0
        assert [line["frame_index"] for line in lines] == list(range(NUM_FRAMES))
        assert [line["timestamp_seconds"] for line in lines] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
        for line in lines:
            assert list(line) == ["frame_index", "timestamp_seconds", "objects"]
            for item in line["objects"]:
                assert list(item) == ["id", "visible", "score", "box_xyxy", "rle"]
                assert (item["box_xyxy"] is None) == (item["rle"] is None) == (not item["visible"])
                assert item["rle"] is None or item["rle"]["size"] == [HEIGHT, WIDTH]

    def test_masks_are_those_of_a_live_scene(self, stream: Any, clip: Path, checkpoint: Path) -> None:
        from unipixel.checkpoints.segmenters import load_segmenter
        from unipixel.processing.visual_prompts import PointPrompt

        _, lines, _ = stream(clip, *POINT)
        scene = StreamObjects(load_segmenter(checkpoint, device=torch.device("cpu")))
        for frame, line in zip(open_video(clip), lines, strict=True):
            scene.step(frame)
            if frame.index == 0:
                scene.prompt(1, PointPrompt(20, 16, 0))
            (item,), own = line["objects"], scene.masks[1]
            assert item["score"] == own.score
            assert np.array_equal(decode_rle(item["rle"]) if item["rle"] else own.mask & False, own.mask)

    def test_every_and_max_frames_select_frames(self, stream: Any, clip: Path) -> None:
        _, lines, _ = stream(clip, *POINT, "--every", 2)
        assert [line["frame_index"] for line in lines] == [0, 2, 4]
        _, lines, _ = stream(clip, *POINT, "--every", 2, "--max-frames", 2)
        assert [line["frame_index"] for line in lines] == [0, 2]

    def test_container_on_stdin_is_read(self, stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = write_clip(tmp_path / "clip.mkv").read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, lines, _ = stream("-", *POINT)
        assert code == 0
        assert [line["frame_index"] for line in lines] == list(range(NUM_FRAMES))

    def test_mask_and_later_prompts_are_taken_on_their_frames(self, stream: Any, clip: Path, tmp_path: Path) -> None:
        mask = write_mask(tmp_path / "mask.png")
        _, lines, _ = stream(clip, "--mask", f"2:{mask}@1", "--box", "3:10,8,30,30@2", "--not-point", "3:12,9@3")
        assert [[item["id"] for item in line["objects"]] for line in lines[:4]] == [[], [2], [2, 3], [2, 3]]

    def test_lines_are_flushed_one_by_one(self, stream: Any, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        step = StreamObjects.step
        out = _Unflushed()

        def noted(scene: StreamObjects, *given: Any) -> Any:
            seen.append(out.flushed)
            return step(scene, *given)

        monkeypatch.setattr(StreamObjects, "step", noted)
        monkeypatch.setattr(sys, "stdout", out)
        stream(clip, *POINT)
        assert [text.count("\n") for text in seen] == list(range(NUM_FRAMES))

    def test_frames_that_arrive_while_the_model_works_are_dropped(
        self, stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clip = write_clip(tmp_path / "long.mp4", num_frames=40)
        step = StreamObjects.step

        def step_after_reading(objects: StreamObjects, *frame: Any) -> Any:
            # The model is slower than the source: all frames arrive while it processes one.
            for thread in threading.enumerate():
                if thread.name == "unipixel-reader":
                    thread.join()
            return step(objects, *frame)

        monkeypatch.setattr(StreamObjects, "step", step_after_reading)
        code, lines, error = stream(clip, "--drop", "always", "--point", "1:20,16@0", "--out", tmp_path / "out")
        indices = [line["frame_index"] for line in lines]
        assert code == 0
        assert indices == sorted(set(indices))
        assert indices[-1] == 39
        num_dropped = int(error.split(", ")[1].split()[0])
        assert num_dropped == 40 - len(indices) > 0
        # The prompt was added on the first processed frame.
        assert [item["id"] for item in lines[0]["objects"]] == [1]
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4")[0] == len(indices)

    @pytest.mark.parametrize(
        ("source", "is_live"),
        [
            ("0", True),
            ("rtsp://camera/1", True),
            ("udp://239.0.0.1:5000", True),
            ("https://host/clip.mp4", False),
            ("clip.mp4", False),
            ("-", False),
        ],
    )
    def test_live_sources_are_distinguished_from_files(self, source: str, is_live: bool) -> None:
        assert streaming._is_live(source) is is_live


class TestLanguage:
    def test_text_is_segmented_on_the_first_frame(
        self, stream: Any, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = _answer(monkeypatch, ["It is <|seg|>."])
        code, lines, _ = stream(clip, "the red cup")
        assert code == 0
        assert asked == ["Please segment the red cup in this image."]
        assert all([item["id"] for item in line["objects"]] == [1] for line in lines)

    def test_text_is_segmented_again_until_it_is_found(
        self, stream: Any, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = _answer(monkeypatch, ["There is none.", "There is none.", "It is <|seg|>."])
        _, lines, _ = stream(clip, "the red cup", "--retry", 0.2, "--point", "7:20,16@0")
        assert len(asked) == 3
        assert [[item["id"] for item in line["objects"]] for line in lines[2:5]] == [[7], [7], [7, 8]]

    def test_answers_are_lines_after_that_of_their_frame(self, stream: Any, clip: Path) -> None:
        code, lines, _ = stream(
            clip, *POINT, "--ask", "Where is [1]?", "--ask-at", 0.25, "--ask", "And?", "--ask-at", 0
        )
        assert code == 0
        kinds = ["answer" if "question" in line else line["frame_index"] for line in lines]
        assert kinds == [0, "answer", 1, 2, 3, "answer", 4, 5]
        assert list(lines[1]) == ["question", "answer", "timestamp_seconds"]
        assert (lines[1]["question"], lines[5]["question"]) == ("And?", "Where is [1]?")
        assert lines[5]["timestamp_seconds"] == pytest.approx(0.3)
        assert isinstance(lines[5]["answer"], str)

    def test_question_that_fails_is_reported_and_the_stream_goes_on(self, stream: Any, clip: Path) -> None:
        code, lines, error = stream(clip, *POINT, "--ask", "Where is [4]?")
        assert code == 2
        assert "names [4], which is neither prompted nor in the object memory: known ids are [1]" in lines[1]["error"]
        assert lines[1]["answer"] is None
        assert len(lines) == NUM_FRAMES + 1
        assert error.startswith("unipixel: the question names [4]")

    def test_what_the_stream_did_not_reach_is_reported(
        self, stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = write_clip(tmp_path / "clip.mkv").read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, lines, error = stream("-", *POINT, "--point", "2:3,3@90", "--ask", "When?", "--ask-at", 30)
        assert code == 2
        assert len(lines) == NUM_FRAMES
        assert "ended before frame 90, the prompted frame of object 2" in error
        assert "ended before 30 s, the time of the question 'When?'" in error


class TestOverlay:
    def test_overlay_contains_the_processed_frames(self, stream: Any, clip: Path, tmp_path: Path) -> None:
        stream(clip, *POINT, "--every", 2, "--out", tmp_path / "out")
        assert os.listdir(tmp_path / "out") == ["overlay.mp4"]
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4") == (3, (WIDTH, HEIGHT))

    def test_ctrl_c_leaves_a_valid_overlay(
        self, stream: Any, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _stop_at(monkeypatch, 4, KeyboardInterrupt())
        code, lines, error = stream(clip, *POINT, "--out", tmp_path / "out")
        assert (code, len(lines), error) == (130, 4, "unipixel: interrupted\n")
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4")[0] == 4

    def test_overlay_is_kept_when_standard_output_is_closed(
        self, checkpoint: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with (tmp_path / "pipe").open("w") as pipe:
            monkeypatch.setattr(sys, "stdout", _Closing(pipe.fileno(), after=3))
            code = cli.main(["stream", str(clip), *POINT, "--out", str(tmp_path / "out"), "--model", str(checkpoint)])
        assert code == 1
        assert moving_square.probe_video(tmp_path / "out/overlay.mp4")[0] == 3

    def test_failure_leaves_nothing(
        self, stream: Any, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _stop_at(monkeypatch, 2, OSError("the camera is gone"))
        code, _, error = stream(clip, *POINT, "--out", tmp_path / "out")
        assert (code, error) == (2, "unipixel: the camera is gone\n")
        assert sorted(os.listdir(tmp_path)) == ["clip.mp4"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "nothing to track: give a text, --point, --box, --mask or --ask"),
            ([" "], "the question ' ' is empty"),
            (["--ask", ""], "the question '' is empty"),
            ([*POINT, "--every", "0"], "--every must be in 1 to 1099511627776, got 0"),
            ([*POINT, "--max-frames", "0"], "--max-frames must be in 1 to 1099511627776, got 0"),
            ([*POINT, "--ask", "A?", "--ask", "B?", "--ask-at", "1"], "2 --ask and 1 --ask-at were given"),
            ([*POINT, "--ask", "A?", "--ask-at", "nan"], "seconds of at least 0, got nan"),
            (["--point", "1:56,3@0"], "point (56, 3) is outside the frame of 56 x 40"),
            (["--point", "1:5,3@6"], "frame 6 is outside the clip of 6 frames: allowed are 0 to 5"),
            (
                ["--point", "1:5,3@3", "--every", "2"],
                "frame 3, but --every 2 processes multiples of 2 only",
            ),
            (["--point", "1:5"], "--point '1:5' is not of the form ID:X,Y@FRAME"),
            (["--point", "10000:5,5@0"], "an object id must be an integer in [0, 9999]"),
            (["--not-point", "1:5,5@0"], "only negative points"),
            (["--box", "1:30,8,20,30"], "inverted"),
            (["--ask", "What?", "--frames", "0"], "num_frames must be at least 1, got 0"),
        ],
    )
    def test_bad_input_is_one_line_and_nothing_is_written(
        self, stream: Any, clip: Path, tmp_path: Path, options: list[str], message: str
    ) -> None:
        code, lines, error = stream(clip, *options, "--out", tmp_path / "out")
        assert code == 2
        assert lines == []
        assert message in error
        assert error.count("\n") == 1
        assert os.listdir(tmp_path) == ["clip.mp4"]

    @pytest.mark.parametrize("source", ["nowhere.mp4", "gopher://host/clip"])
    def test_source_that_cannot_be_opened_is_one_line(self, stream: Any, source: str) -> None:
        code, lines, error = stream(source, *POINT)
        assert (code, lines, error.count("\n")) == (2, [], 1)

    def test_existing_folder_asks_for_overwrite(self, stream: Any, clip: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        code, _, error = stream(clip, *POINT, "--out", tmp_path / "out")
        assert code == 2
        assert "--overwrite" in error
        assert stream(clip, *POINT, "--out", tmp_path / "out", "--overwrite")[0] == 0


class _Unflushed(io.StringIO):
    """Standard output that records what was flushed."""

    flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


class _Closing(io.StringIO):
    """Standard output whose reader closes it after some lines."""

    def __init__(self, number: int, *, after: int) -> None:
        super().__init__()
        self._number, self._after = number, after

    def write(self, text: str) -> int:
        if self.getvalue().count("\n") >= self._after:
            raise BrokenPipeError
        return super().write(text)

    def fileno(self) -> int:
        return self._number


def _answer(monkeypatch: pytest.MonkeyPatch, replies: list[str]) -> list[str]:
    """Replace the model's answers, one after the other, and return the list of questions that it is asked."""
    asked: list[str] = []

    def ask(self: Conversation, turn: Any, on_text: Any = None) -> Reply:
        text = replies[len(asked)]
        asked.append(turn.question)
        return Reply(text, torch.ones(text.count("<|seg|>"), 2, 32), 1)

    monkeypatch.setattr(Conversation, "ask", ask)
    return asked


def _stop_at(monkeypatch: pytest.MonkeyPatch, index: int, error: BaseException) -> None:
    step = StreamObjects.step

    def stopped(scene: StreamObjects, frame: Any, *given: Any) -> Any:
        if frame.index == index:
            raise error
        return step(scene, frame, *given)

    monkeypatch.setattr(StreamObjects, "step", stopped)
