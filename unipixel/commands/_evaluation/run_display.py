"""Progress of a run on stderr: samples, rate, time left and samples that failed."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipixel.train.evaluation.running.runner import RunProgress
    from unipixel.train.evaluation.running.shards import Shard

_LINE_SECONDS = 30.0
"""Seconds between two lines where stderr is not a terminal."""


class RunDisplay:
    """A bar on a terminal, elsewhere a line now and then; of several processes the first shows its own samples."""

    def __init__(self, title: str, shard: Shard) -> None:
        self._title = title if shard.count == 1 else f"{title} (process {shard.index} of {shard.count})"
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = not self._is_terminal or shard.index == 0
        self._bar: Any = None
        self._next_line = 0.0

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: RunProgress) -> None:
        """Show the state of a run."""
        if not self._is_shown:
            return
        if self._is_terminal:
            self._show_bar(progress)
            return
        is_last = progress.num_finished == progress.num_samples
        if is_last or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            print(f"unipixel: {self._title}: {describe(progress)}", file=sys.stderr, flush=True)

    def _show_bar(self, progress: RunProgress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=progress.num_samples, initial=progress.num_finished, desc=self._title, unit="sample")
        self._bar.set_postfix(failed=progress.num_failed, refresh=False)
        self._bar.update(progress.num_finished - self._bar.n)


def describe(progress: RunProgress) -> str:
    """Return a line about a run: samples, rate, time left, failed."""
    text = f"{progress.num_finished} of {progress.num_samples} samples"
    rate, left = progress.samples_per_second, progress.seconds_left
    if rate is not None and left is not None:
        hours, seconds = divmod(round(left), 3600)
        pace = f"{rate:.1f} a second" if rate >= 1 else f"{1 / rate:.1f} s each"
        text += f", {pace}, {hours}:{seconds // 60:02}:{seconds % 60:02} left"
    return f"{text}, {progress.num_failed} failed"
