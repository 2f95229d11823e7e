"""The line about a run: samples, pace, time left, failed."""

from __future__ import annotations

import pytest

from unipixel.commands._evaluation.run_display import describe
from unipixel.train.evaluation.running.runner import RunProgress


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (RunProgress(40, 100, 2, 0.0, 0), "40 of 100 samples, 2 failed"),
        (RunProgress(50, 100, 0, 4.0, 10), "50 of 100 samples, 2.5 a second, 0:00:20 left, 0 failed"),
        (RunProgress(50, 10_000, 1, 100.0, 20), "50 of 10000 samples, 5.0 s each, 13:49:10 left, 1 failed"),
        (RunProgress(100, 100, 0, 4.0, 10), "100 of 100 samples, 2.5 a second, 0:00:00 left, 0 failed"),
    ],
)
def test_line_has_samples_pace_time_left_and_failed(progress: RunProgress, line: str) -> None:
    assert describe(progress) == line
