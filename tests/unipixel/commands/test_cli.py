"""The command: exit codes, one-line errors, what it prints."""

from __future__ import annotations

import argparse
import json
import re
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
        (
            ["aks"],
            "unipixel: unknown command aks, did you mean ask? Known commands are ask, segment, batch, chat",
            "--help\n",
        ),
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


def _write_masks(folder: Path, value: int) -> None:
    folder.mkdir(parents=True)
    values = np.zeros((20, 30), dtype=np.uint8)
    values[4:10, 5:15] = value
    Image.fromarray(values).save(folder / "00000.png")


@pytest.mark.parametrize(("predicted", "truth"), [(1, 255), (255, 1)])
def test_score_of_ids_against_masks_of_255_says_binary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], predicted: int, truth: int
) -> None:
    _write_masks(tmp_path / "predicted/dog", predicted)
    _write_masks(tmp_path / "truth/dog", truth)
    argv = ["score", str(tmp_path / "predicted"), str(tmp_path / "truth")]
    assert cli.main(argv) == 2
    assert f"has the values [{truth}], " in (error := capsys.readouterr().err)
    assert "give --binary" in error
    assert error.count("\n") == 1
    assert cli.main([*argv, "--binary"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["mean", "100.0", "100.0", "100.0"]


def test_train_help_lists_the_bundled_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    from unipixel.train.recipe_files import bundled_recipes

    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Bundled recipes: {', '.join(bundled_recipes())}" in shown


def test_finetune_without_data_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "nano/finetune", f"output={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err.startswith("unipixel: the recipe lacks data.path: give data.path=DATA.jsonl")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "value"), [("--frames", "-3"), ("--render-size", "-3"), ("--limit", "0")])
def test_eval_with_a_number_below_its_range_is_one_line(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert cli.main(["eval", "synthetic", option, value]) == 2
    assert "must be at least" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    ["ask", "segment", "track", "chat", "stream", "score", "synth", "check", "demo", "batch", "serve", "eval", "data"],
)
def test_help_states_every_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    subparsers = next(
        action for action in cli.build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    silent = [
        action.option_strings[-1]
        for action in subparsers.choices[command]._actions
        if action.option_strings
        # A flag is off without it.
        and action.default not in (None, False, [], argparse.SUPPRESS)
        and "%(default)" not in (action.help or "")
        and str(action.default) not in (action.help or "")
    ]
    assert silent == []


@pytest.mark.parametrize(
    "command",
    ["ask", "segment", "track", "chat", "stream", "score", "synth", "check", "demo", "batch", "serve", "eval"],
)
def test_help_says_what_an_option_that_is_not_given_means(command: str) -> None:
    subparsers = next(
        action for action in cli.build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    prompts = {"point", "not_point", "box", "mask"}
    actions = [action for action in subparsers.choices[command]._actions if action.option_strings]
    silent = [
        action.option_strings[-1]
        for action in actions
        if not action.required
        and action.dest not in prompts | {"help"}
        and not re.search(r"\(.+\)$|default", action.help or "")
    ]
    assert silent == []
