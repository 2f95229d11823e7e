"""Display of progress over all stages of a command, on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from unipixel.session.video_tracker import TrackedVideoFrame

LINE_SECONDS = 15.0
"""Seconds between two lines where stderr is not a terminal."""
_REFRESH_SECONDS = 0.5

_Item = TypeVar("_Item")


class ProgressDisplay:
    """One bar on a terminal, that is relabelled for each stage; elsewhere a line now and then.

    Use it in a `with` block. A thread refreshes the display, because loading a model or encoding a clip calls nothing
    for many seconds.
    """

    def __init__(self, *, stream: TextIO | None = None, line_seconds: float = LINE_SECONDS) -> None:
        """Prepare the display without printing anything.

        Args:
            stream: Where it is printed; None is stderr.
            line_seconds: Time between two lines where the stream is not a terminal.
        """
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._interval_seconds = _REFRESH_SECONDS if self._is_terminal else line_seconds
        self._stage, self._unit = "start", ""
        self._total: int | None = None
        self._count = 0
        self._stage_start = time.monotonic()
        self._bar: Any = None
        self._lock = threading.Lock()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="unipixel-progress", daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def start(self, stage: str, *, total: int | None = None, unit: str = "") -> None:
        """Begin a stage.

        Args:
            stage: What is done, such as "track".
            total: Number of units; None if it is not known.
            unit: What is counted, such as "frames"; empty if nothing is.
        """
        with self._lock:
            self._stage, self._total, self._unit = stage, total, unit
            self._count, self._stage_start = 0, time.monotonic()
            self._show_bar()

    def advance(self, count: int = 1) -> None:
        """Count finished units of the stage."""
        with self._lock:
            self._count += count
            if self._bar is not None:
                self._bar.update(count)

    def track(self, items: Iterable[_Item], *, total: int | None, stage: str, unit: str = "frames") -> Iterator[_Item]:
        """Yield items as a stage that counts them."""
        self.start(stage, total=total, unit=unit)
        for item in items:
            yield item
            self.advance()

    def count_text(self, piece: str) -> None:
        """Count a piece of an answer, as `on_text` of a session."""
        del piece
        if self._stage != "answer":
            self.start("answer", unit="tokens")
        self.advance()

    def frame_counter(self, total: int | None) -> Any:
        """Return a function that counts tracked frames, as `on_frame` of a session."""

        def count(frame: TrackedVideoFrame) -> None:
            del frame
            if self._stage != "track":
                self.start("track", total=total, unit="frames")
            self.advance()

        return count

    def describe(self) -> str:
        """Return the state as text, such as "track 40/250 frames, 12 s"."""
        seconds = time.monotonic() - self._stage_start
        counted = f"{self._count}/{self._total}" if self._total else str(self._count)
        done = f" {counted} {self._unit}" if self._unit else ""
        return f"{self._stage}{done}, {seconds:.0f} s"

    def _show_bar(self) -> None:
        if not self._is_terminal:
            return
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(file=self._stream, leave=False)
        self._bar.set_description(self._stage, refresh=False)
        self._bar.unit = self._unit or "it"
        self._bar.reset(total=self._total)

    def _refresh(self) -> None:
        while not self._has_ended.wait(self._interval_seconds):
            with self._lock:
                if self._bar is not None:
                    self._bar.refresh()
                elif not self._is_terminal:
                    print(f"unipixel: {self.describe()}", file=self._stream, flush=True)
