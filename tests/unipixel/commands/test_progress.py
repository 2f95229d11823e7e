"""The display of progress: stages on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from unipixel.commands._running.progress import ProgressDisplay


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class NotedStream(io.StringIO):
    """Sets an event as soon as a text was written that contains all given words."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words, self.has_all = words, threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        if all(word in self.getvalue() for word in self.words):
            self.has_all.set()
        return count


def test_terminal_shows_every_stage_in_one_display() -> None:
    stream = Terminal()
    with ProgressDisplay(stream=stream) as progress:
        progress.start("load the model")
        count_frame: Any = progress.frame_counter(3)
        for _ in range(3):
            count_frame(None)
        progress.count_text("It")
        assert list(progress.track(range(2), total=2, stage="write")) == [0, 1]
    shown = stream.getvalue()
    assert "load the model" in shown
    assert "track" in shown
    assert "answer" in shown
    assert "write" in shown
    assert "\n" not in shown


def test_other_streams_get_a_line_now_and_then() -> None:
    stream = NotedStream("unipixel: load the model, 0 s\n", "unipixel: track 1/3 frames")
    with ProgressDisplay(stream=stream, line_seconds=0.01) as progress:
        progress.start("load the model")
        while "load" not in stream.getvalue():
            threading.Event().wait(0.01)
        count_frame: Any = progress.frame_counter(3)
        count_frame(None)
        assert stream.has_all.wait(10)


def test_short_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as progress:
        progress.start("load the model")
    assert capsys.readouterr().err == ""


def test_state_counts_what_is_known() -> None:
    progress = ProgressDisplay(stream=io.StringIO())
    progress.start("track", total=250, unit="frames")
    progress.advance(40)
    assert progress.describe() == "track 40/250 frames, 0 s"
    progress.start("answer", unit="tokens")
    progress.advance()
    assert progress.describe() == "answer 1 tokens, 0 s"
