"""Evaluation of answers about several masks in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unipixel.cli import main
from unipixel.train.evaluation.answer_accuracy import region_lines


def test_region_lines_are_read_by_id() -> None:
    assert region_lines("[3]: a red star\n [1]: blue \nand more\n[3]: green") == {3: "a red star", 1: "blue"}


def test_tasks_about_regions_are_evaluated_on_request(
    training_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(training_checkpoint), "--limit", "4", "--frames", "4", "--render-size", "48", "--json"]
    assert main(["eval", "synthetic", *options, "--tasks", "regions,pairs"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["regions"]
    assert all(0 <= accuracy <= 1 for accuracy in report["regions"].values())
    assert report["pixelqa"]["pairs"]["accuracy"] is not None
