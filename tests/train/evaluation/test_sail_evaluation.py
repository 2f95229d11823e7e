"""Whole runs of the recorded tiny Pixel-SAIL on the miniatures of image benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.golden_evaluation import GOLDEN, golden_case
from helpers.sail_model import CHECKPOINT
from PIL import Image

from unipixel.cli import main

SAIL = json.loads((GOLDEN / "sail-metrics.json").read_text(encoding="utf-8"))
FAST = ["--device", "cpu", "--max-new-tokens", "12", "--json"]


def _run(name: str, data: Path, out: Path) -> list[dict[str, object]]:
    arguments = ["eval", name, "--data", str(data), "--model", str(CHECKPOINT), "--out", str(out), *FAST]
    assert main(arguments) == 0
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["refcoco", "grefcoco"])
def test_referring_questions_are_answered_with_masks(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = _run(name, golden_case(name) / "data", tmp_path)
    scored = json.loads(capsys.readouterr().out)
    assert scored["failed"] == []
    assert len(predictions) == len(scored["samples"]) > 0
    assert all(prediction["masks"] for prediction in predictions)


def test_perbench_draws_the_prompts_and_forces_a_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    Image.fromarray(np.zeros((*SAIL["image_size"], 3), np.uint8)).save(data / "a.png")
    files = {"caption": "STBench_Detailed_Caption.json", "mcq": "STBench_MCQ.json", "vres": "STBench_VRES.json"}
    for name, file in files.items():
        (data / file).write_text(json.dumps([SAIL[f"{name}_reader"]["item"]]), encoding="utf-8")
    predictions = {str(row["sample"]).split("/")[0]: row for row in _run("perbench", data, tmp_path / "out")}
    scored = json.loads(capsys.readouterr().out)
    assert not [row for row in scored["failed"] if row["reason"] != "the answer is empty"]
    assert set(predictions) == {"captions", "mcq", "vres"}
    # A black image has no target: the answer of the tiny model may be an empty mask, but never none at all.
    assert predictions["vres"].get("masks") is not None
    assert predictions["captions"].get("masks") is None
