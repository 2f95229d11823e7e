"""Malformed input of every command and Python entry point: one line or one typed exception, nothing half-written."""

from __future__ import annotations

import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from helpers.entry_points import entry_points, values
from helpers.malformed import Stdin, malformed_argv, write_files
from helpers.moving_square import write_clip

from unipixel import cli
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor

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
    # A server that could be started serves nobody and ends.
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: None)
    for seed in seeds:
        out = folder / f"out-{seed}"
        argv = malformed_argv(seed, files, checkpoint, out)
        monkeypatch.setattr(sys, "stdin", Stdin(seed))
        with warnings.catch_warnings():
            code: str | int | None
            try:
                code = cli.main(argv)
            except SystemExit as exit_error:
                code = exit_error.code
        printed = capsys.readouterr()
        assert code in (0, 1, 2), (seed, argv, code)
        assert "Traceback" not in printed.err, (seed, argv)
        if code == 2:
            # The last line of a stream is its summary; a folder of clips has a line per clip.
            is_batch = (out / "results.jsonl").exists()
            assert is_batch or any(line.startswith("unipixel") for line in printed.err.splitlines()), (seed, argv)
            # A stream with a question that failed has a whole overlay.
            assert not out.exists() or is_batch or argv[0] == "stream", (seed, argv)
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


ALLOWED = (ValueError, TypeError, OSError, LookupError, RuntimeError, ImportError)
ROOT = Path(__file__).resolve().parents[2]


def raised_by_the_package(error: BaseException) -> bool:
    """Return whether an error was raised by this package, by Python, or by the value itself when it was iterated."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(frame.filename)
    is_ours = path.is_relative_to(ROOT)
    is_python = "site-packages" not in path.parts
    return is_ours or is_python or frame.name == "__iter__"


def check_entry_points(seeds: range, calls: Mapping[str, Callable[[Any], Any]]) -> None:
    names = sorted(calls)
    for seed in seeds:
        choose = random.Random(seed)
        name, value = choose.choice(names), values(choose)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                calls[name](value)
            except ALLOWED as error:
                if not raised_by_the_package(error):
                    raise AssertionError(f"seed {seed}: {name}({value!r:.100}) raised in another library") from error
                if not str(error) or len(str(error)) > 2000:
                    raise AssertionError(f"seed {seed}: {name}({value!r:.100}): {str(error)[:80]!r}") from error
            except Exception as error:
                raise AssertionError(f"seed {seed}: {name}({value!r:.100})") from error


@pytest.fixture
def calls(
    model: UniPixel,
    processor: Processor,
    clip: Path,
    checkpoint: Path,
    frames: list[np.ndarray],
    tmp_path: Path,
    offline: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Mapping[str, Callable[[Any], Any]]:
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    return entry_points(
        model=model, processor=processor, clip=clip, checkpoint=checkpoint, folder=tmp_path, frames=frames
    )


def test_malformed_values_raise_one_typed_exception(calls: Mapping[str, Callable[[Any], Any]]) -> None:
    check_entry_points(range(200), calls)


@pytest.mark.slow
def test_many_malformed_values_raise_one_typed_exception(calls: Mapping[str, Callable[[Any], Any]]) -> None:
    check_entry_points(range(200, 10_000), calls)
