"""Malformed input of every command and Python entry point: one line or one typed exception, nothing half-written."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
from helpers.malformed import Stdin, malformed_argv, write_files
from helpers.moving_square import write_clip

from unipixel import cli

NUM_DEFAULT, NUM_SLOW = 120, 3000


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def check_commands(
    seeds: range, folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    assert isinstance(capsys, pytest.CaptureFixture)
    clip = write_clip(folder / "clip.mp4", num_frames=3)
    files = write_files(folder, clip)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    monkeypatch.chdir(folder)
    for seed in seeds:
        out = folder / f"out-{seed}"
        argv = malformed_argv(seed, files, checkpoint, out)
        monkeypatch.setattr(sys, "stdin", Stdin(seed))
        with warnings.catch_warnings():
            try:
                code = cli.main(argv)
            except SystemExit as exit_error:
                code = exit_error.code
        printed = capsys.readouterr()
        assert code in (0, 1, 2), (seed, argv, code)
        assert "Traceback" not in printed.err, (seed, argv)
        if code == 2:
            # The last line of a stream is its summary.
            assert any(line.startswith("unipixel") for line in printed.err.splitlines()), (seed, argv, printed.err)
            assert not out.exists() or (out / "results.jsonl").exists(), (seed, argv)
        assert not [path for path in os.listdir(folder) if path.endswith((".partial", ".old"))], (seed, argv)
    assert [path for path in before if not (folder / path).exists()] == []


def test_malformed_command_lines_are_one_line(
    tmp_path: Path, checkpoint: Path, offline: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_commands(range(NUM_DEFAULT), tmp_path, checkpoint, monkeypatch, capsys)


@pytest.mark.slow
def test_many_malformed_command_lines_are_one_line(
    tmp_path: Path, checkpoint: Path, offline: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_commands(range(NUM_DEFAULT, NUM_DEFAULT + NUM_SLOW), tmp_path, checkpoint, monkeypatch, capsys)
