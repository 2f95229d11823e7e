"""`unipixel chat`: lines in, answers out; an error is one line and the conversation goes on."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import moving_square
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, write_mask

from unipixel import cli
from unipixel.session.conversation import Conversation, Reply

Chat = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def chat(checkpoint: Path, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chat:
    def run(
        *lines: Any, options: tuple[str, ...] = (), stdin: type[io.StringIO] = io.StringIO
    ) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "stdin", stdin("".join(f"{line}\n" for line in lines)))
        argv = ["chat", str(clip), "--model", str(checkpoint), "--device", "cpu", "--max-new-tokens", "3", *options]
        code = cli.main(argv)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions; the model answers with a mask for every request to segment, otherwise with text."""
    asked: list[str] = []

    def ask(self: Conversation, turn: Any, on_text: Any = None) -> Reply:
        asked.append(turn.question)
        text = "It is <|seg|>." if "segment" in turn.question else "Nothing moves."
        if on_text is not None:
            for piece in text.replace("<|seg|>", "").split(" "):
                on_text(piece + " ")
        return Reply(text, torch.ones(text.count("<|seg|>"), 2, 32), 1)

    monkeypatch.setattr(Conversation, "ask", ask)
    return asked


class TestConversation:
    def test_answers_are_whole_lines_without_a_prompt(self, chat: Chat, replies: list[str]) -> None:
        assert chat("What moves?", "", "  And why? ", "/quit", "Never asked?") == (0, ["Nothing moves."] * 2, [])
        assert replies == ["What moves?", "And why?"]

    def test_end_of_the_input_ends_the_conversation(self, chat: Chat, replies: list[str]) -> None:
        assert chat() == (0, [], [])
        assert chat("What moves?")[:2] == (0, ["Nothing moves."])

    def test_objects_are_prompted_listed_and_removed(self, chat: Chat, tmp_path: Path) -> None:
        mask = write_mask(tmp_path / "a mask.png")
        code, out, error = chat(
            "/objects",
            "/point 1:10,12@0",
            "/not-point 1:40,30@0",
            "/box 2:10,8,30,30@2",
            f"/mask 3:{mask}@1",
            "/objects",
            "Where is [3]?",
            "/point 3:2,2@4",
            "/forget 2",
            "/objects",
        )
        assert (code, error) == (0, [])
        assert out[:4] == ["no objects yet", *(f"[{key}] is segmented at the next question" for key in (1, 2, 3))]
        listed = out[-2:]
        assert listed[0].startswith("[1] point: visible in ")
        assert listed[0].endswith(f"of {NUM_FRAMES} frames")
        assert listed[1].startswith("[3] mask: visible in ")
        assert listed[1].endswith(", corrected at the next question")

    def test_text_is_segmented(self, chat: Chat, replies: list[str]) -> None:
        _, out, _ = chat("/segment the red cup", "/objects", options=("--anchor", "first"))
        assert out[0] == "It is [1]."
        assert out[1].startswith('[1] language "the red cup": visible in ')
        assert replies == ["Please segment the red cup in this video."]

    def test_prompts_of_the_command_line_are_taken(self, chat: Chat) -> None:
        _, out, _ = chat("/objects", options=("--point", "4:10,10@0"))
        assert out == ["[4] is segmented at the next question"]

    def test_help_names_every_command(self, chat: Chat) -> None:
        _, out, _ = chat("/help")
        for name in ("segment", "point", "not-point", "box", "mask", "objects", "forget", "save", "help", "quit"):
            assert any(line.startswith(f"/{name}") for line in out)

    def test_terminal_shows_a_prompt_and_the_answer_while_it_is_generated(
        self, chat: Chat, replies: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[str] = []

        def read(prompt: str) -> str:
            shown.append(prompt)
            if line := sys.stdin.readline():
                return line
            raise EOFError

        monkeypatch.setattr("builtins.input", read)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        _, out, _ = chat("What moves?", "/segment cup", stdin=_Terminal)
        assert shown == ["> "] * 3
        # The id of a new object is known at the end, so that answer is shown again.
        assert [line.strip() for line in out] == ["Nothing moves.", "It is .", "It is [1]."]


class TestSaving:
    def test_save_writes_what_ask_writes(self, chat: Chat, replies: list[str], tmp_path: Path) -> None:
        out = tmp_path / "result"
        code, _, error = chat("/box 2:10,8,30,30@0", "What is [2]?", "And why?", f"/save {out}", options=("--davis",))
        assert (code, error) == (0, [f"results in {out}"])
        assert sorted(os.listdir(out)) == ["davis", "masks", "overlay.mp4", "result.json"]
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        assert result["question"] == "What is [2]?\nAnd why?"
        assert result["answer"] == "Nothing moves.\nNothing moves."
        assert [item["id"] for item in result["objects"]] == [2]
        assert len(os.listdir(out / "masks/2")) == len(os.listdir(out / "davis/clip")) == NUM_FRAMES
        assert moving_square.probe_video(out / "overlay.mp4") == (NUM_FRAMES, (WIDTH, HEIGHT))

    def test_save_tracks_pending_prompts_and_needs_no_question(self, chat: Chat, tmp_path: Path) -> None:
        out = tmp_path / "result"
        chat("/point 1:10,12@3", f"/save {out}", options=("--no-overlay",))
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        assert (result["question"], result["answer"]) == (None, None)
        assert [len(item["frames"]) for item in result["objects"]] == [NUM_FRAMES]
        assert not (out / "overlay.mp4").exists()

    def test_save_into_an_existing_folder_is_refused_and_the_conversation_goes_on(
        self, chat: Chat, replies: list[str], tmp_path: Path
    ) -> None:
        (tmp_path / "result").mkdir()
        code, out, error = chat(f"/save {tmp_path / 'result'}", "What moves?")
        assert (code, out) == (0, ["Nothing moves."])
        assert len(error) == 1
        assert "--overwrite" in error[0]
        assert os.listdir(tmp_path / "result") == []


class TestBadInput:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("/point 1:99,3@0", "unipixel: the point (99, 3) is outside the frame of 56 x 40"),
            ("/point 1:9,3@6", "unipixel: frame 6 is outside the clip of 6 frames: allowed are 0 to 5"),
            ("/point 1,9", "unipixel: /point '1,9' is not of the form ID:X,Y@FRAME"),
            ("/box 1:30,3,20,9@0", "unipixel: the box (30, 3, 20, 9) is inverted"),
            ("/not-point 1:9,3@0", "unipixel: frame 0 has only negative points"),
            ("/mask 1:nowhere.png@0", "unipixel: nowhere.png: No such file or directory"),
            ("/forget 3", "unipixel: object 3 is not in the memory: ids are []"),
            ("/forget x", "unipixel: /forget 'x' names no object"),
            ("/save", "unipixel: /save needs a folder"),
            ("/paint 1", "unipixel: unknown command /paint, did you mean /point? Known commands are /segment, /point"),
            ("/segment", "unipixel: the query '' is empty"),
            ("Where is [5]?", "unipixel: the question names [5], which is neither prompted nor in the object memory"),
        ],
    )
    def test_error_is_one_line_and_the_conversation_goes_on(
        self, chat: Chat, replies: list[str], line: str, message: str
    ) -> None:
        code, out, error = chat(line, "What moves?")
        assert (code, out) == (0, ["Nothing moves."])
        assert len(error) == 1
        assert error[0].startswith(message)

    def test_video_that_cannot_be_opened_ends_with_2(
        self, checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["chat", "nowhere.mp4", "--model", str(checkpoint)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


class _Terminal(io.StringIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True
