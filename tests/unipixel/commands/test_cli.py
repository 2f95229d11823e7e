"""The command: exit codes, one-line errors, what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unipixel import cli
from unipixel.commands import score


@pytest.fixture
def folders(tmp_path: Path) -> Any:
    for folder in ("predicted", "truth"):
        (tmp_path / folder / "dog").mkdir(parents=True)
        for index in range(2):
            values = np.zeros((20, 30), dtype=np.uint8)
            values[4:10, 5:15] = 1
            Image.fromarray(values).save(tmp_path / folder / "dog" / f"{index:05d}.png")
    return tmp_path


def test_score_json_prints_the_documented_form(folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", str(folders / "predicted"), str(folders / "truth"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["sequences"]["dog"]["J"] == printed["sequences"]["dog"]["F"] == 1.0
    assert printed["mean"]["J&F"] == 1.0


def test_score_table_names_sequences_and_missing_frames(folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "predicted/dog/00001.png").unlink()
    assert cli.main(["score", str(folders / "predicted"), str(folders / "truth"), "--binary"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].split() == ["dog", "50.0", "50.0", "50.0"]
    assert captured.err == "unipixel: dog: 1 frame(s) without a prediction, scored 0: 00001.png\n"


def test_main_bad_input_is_one_line_and_exit_code_2(folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", str(folders / "nowhere"), str(folders / "truth")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("unipixel: ")
    assert captured.err.count("\n") == 1
    assert "nowhere" in captured.err


@pytest.mark.parametrize("argv", [[], ["paint"], ["score", "one"]])
def test_main_wrong_usage_exits_with_2(argv: Any) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(argv)


@pytest.mark.parametrize(
    ("argv", "start", "end"),
    [
        (["aks"], "unipixel: unknown command aks, did you mean ask? Known commands are ask, segment, chat", "--help\n"),
        (
            ["score", "a", "b", "--jsno"],
            "unipixel score: unknown option --jsno, did you mean --json? Known options",
            "",
        ),
        (["score", "a", "b", "c"], "unipixel score: unexpected argument 'c'; see unipixel score --help\n", ""),
        (["--verbos"], "unipixel: unknown option --verbos", ""),
    ],
)
def test_main_unknown_name_is_one_line_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], argv: Any, start: str, end: str
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(argv)
    line = capsys.readouterr().err
    assert line.startswith(start)
    assert line.endswith(end)
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "unipixel: interrupted\n"),
        (KeyError("object 3 is unknown"), 2, "unipixel: object 3 is unknown\n"),
        (ImportError("two\nlines"), 2, "unipixel: two lines\n"),
    ],
)
def test_main_errors_of_a_command_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folders: Any, error: Any, code: Any, line: Any
) -> None:
    def fail(arguments: Any) -> None:
        raise error

    monkeypatch.setattr(score, "run", fail)
    assert cli.main(["score", "a", "b"]) == code
    assert capsys.readouterr().err == line


def test_main_internal_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: Any) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(score, "run", fail)
    with pytest.raises(AssertionError, match="ours"):
        cli.main(["score", "a", "b"])


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from unipixel import cli; cli.build_parser().format_help(); "
        "print([m for m in ('torch', 'numpy', 'av', 'transformers', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
