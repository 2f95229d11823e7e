"""Frames by index with decord: the same as with PyAV, for every kind of file."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.numbered_clips import write_numbered_clip

from unipixel.video.open import open_video


def assert_equal_frames(path: Path, indices: list[int]) -> None:
    with warnings.catch_warnings():
        # A file that decord reads in another way is left to PyAV, which the warning says.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = open_video(path, decoder="decord").read(indices)
    for ours, theirs in zip(found, open_video(path, decoder="av").read(indices), strict=True):
        assert (ours.index, ours.timestamp_seconds) == (theirs.index, theirs.timestamp_seconds)
        np.testing.assert_array_equal(ours.image, theirs.image)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip.mp4", {"options": {"g": "7", "bf": "3", "b-pyramid": "normal"}}),
        ("clip.mkv", {"options": {"g": "250"}}),
        ("clip.mp4", {"options": {"x264-params": "open-gop=1:keyint=6:bframes=3"}}),
        ("clip.mp4", {"options": {"intra-refresh": "1"}}),
        ("clip.mp4", {"pix_fmt": "yuv420p10le"}),
        ("clip.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("clip.mkv", {"codec": "ffv1"}),
        ("clip.ts", {}),
    ],
)
def test_decord_reads_the_frames_that_pyav_reads(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / name, num_frames=30, **options)
    assert_equal_frames(tmp_path / name, [29, 3, 12, 12, 18, 0])


def test_decord_reads_frames_of_a_variable_rate(tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / "clip.mp4", times_ms=[0, 40, 50, 300, 1300, 1310])
    assert_equal_frames(tmp_path / "clip.mp4", [4, 1, 5])


def test_decord_is_used_where_it_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import decord

    opened: list[str] = []
    reader = decord.VideoReader

    def open_and_count(path: str, **options: Any) -> Any:
        opened.append(path)
        return reader(path, **options)

    monkeypatch.setattr(decord, "VideoReader", open_and_count)
    write_numbered_clip(tmp_path / "clip.mp4", num_frames=30)
    for decoder in ("auto", "av"):
        open_video(tmp_path / "clip.mp4", decoder=decoder).read([3, 20])
    assert opened == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_video(tmp_path / "clip.mp4", decoder="decord").read([3, 20])
    assert opened == [str(tmp_path / "clip.mp4")]


def test_unknown_decoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"decoder must be one of auto, av, decord, got 'gpu'"):
        open_video(tmp_path, decoder="gpu")  # type: ignore[arg-type]


def test_missing_decord_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    write_numbered_clip(tmp_path / "clip.mp4", num_frames=4)
    with pytest.raises(ImportError, match=r"requires the extra `eval`"):
        open_video(tmp_path / "clip.mp4", decoder="decord").read([1])
