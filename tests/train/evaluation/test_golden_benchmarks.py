"""Miniature benchmarks through the command: samples, figures and failed samples equal those of the published code."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.golden_evaluation import GOLDEN, expected_of, golden_case
from PIL import Image

from unipixel.cli import main
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS

CASES = [case for case in json.loads((GOLDEN / "cases.json").read_text()) if case["name"] in BENCHMARKS]


def expected_content(case: dict[str, Any]) -> Any:
    content = expected_of(case["case"], case["expected"])
    return content["sets"][case["set"]] if "set" in case else content


def cases_with(*keys: str) -> list[Any]:
    """Return parameters (case, key) for the keys that the expected content of a case has."""
    return [
        pytest.param(case, key, id=f"{case['name']}-{case['split']}-{case['case']}-{key}")
        for case in CASES
        for key in keys
        if (expected_content(case).get(key) if key != "reader" else "reader" in expected_content(case))
        and (key == "reader" or key == "submission" or expected_content(case)[key]["figures"])
    ]


def options(case: dict[str, Any]) -> list[str]:
    return ["eval", case["name"], "--split", case["split"], "--data", str(golden_case(case["case"]) / "data")]


def predictions_of(case: dict[str, Any], *, is_faulty: bool = False) -> str:
    folder = golden_case(case["case"]) / ("predictions-faulty" if is_faulty else case.get("predictions", "predictions"))
    return str(folder / case["set"] if "set" in case else folder)


@pytest.mark.parametrize(("case", "key"), cases_with("paper", "honest", "honest_on_faulty"))
def test_figures_equal_those_of_the_published_code(
    case: dict[str, Any], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, tolerance = expected_content(case)[key], case.get("tolerance", 1e-6)
    given = ["--predictions", predictions_of(case, is_faulty=key == "honest_on_faulty")]
    protocol = "paper" if key == "paper" else "honest"
    assert main([*options(case), *given, "--protocol", protocol, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"] == protocol
    # Figures without a recorded value, such as the strict accuracy of PixelQA, may be there too.
    found = {name: result["figures"][name] for name in expected["figures"]}
    assert found == pytest.approx(expected["figures"], abs=tolerance)
    for sample, row in expected.get("samples", {}).items():
        for name, value in row.items():
            wanted = value if isinstance(value, str | bool) else pytest.approx(value, abs=tolerance)
            assert result["samples"][sample][name] == wanted, (sample, name)
    if "failed" in expected:
        assert [row["sample"] for row in result["failed"]] == expected["failed"]
        assert all(row["reason"] for row in result["failed"])


@pytest.mark.parametrize(("case", "key"), cases_with("reader"))
def test_samples_equal_those_of_the_published_reader(
    case: dict[str, Any], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options(case), "--list", "--json"]) == 0
    samples = {row["sample"]: row for row in json.loads(capsys.readouterr().out)["samples"]}
    expected = {row["sample"]: row for row in expected_content(case)[key]}
    assert list(samples) == list(expected)
    for name, row in expected.items():
        assert {field: samples[name][field] for field in row} == row


@pytest.mark.parametrize(("case", "key"), cases_with("submission"))
def test_submission_has_the_images_that_a_server_takes(
    case: dict[str, Any], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "submission.zip"
    assert main([*options(case), "--predictions", predictions_of(case), "--submission", str(archive)]) == 0
    with zipfile.ZipFile(archive) as opened:
        found = {name: np.asarray(Image.open(io.BytesIO(opened.read(name)))) for name in opened.namelist()}
    expected = expected_content(case)[key]["files"]
    assert set(found) == set(expected)
    for name, row in expected.items():
        assert list(found[name].shape) == row["size"]
        assert np.count_nonzero(found[name]) == row["foreground"]
        assert set(np.unique(found[name])) <= {0, 255}
    capsys.readouterr()
    data = str(golden_case(case["case"]) / "data")
    assert main(["eval", "check", str(archive), "--benchmark", case["name"], "--data", data]) == 0


def test_ref_davis_reports_the_protocol_of_davis_too(capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in CASES if case["name"] == "ref-davis17")
    assert main([*options(case), "--predictions", predictions_of(case), "--json"]) == 0
    result, expected = json.loads(capsys.readouterr().out)["davis_protocol"], expected_content(case)["davis_protocol"]
    assert result["figures"] == pytest.approx(expected["figures"], abs=1e-6)
    for ours, theirs in zip(result["annotators"], expected["annotators"], strict=True):
        for name, row in theirs["objects"].items():
            assert ours["objects"][name] == pytest.approx(row, abs=1e-6)


def test_strict_names_the_first_sample_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in CASES if case["name"] == "revos")
    assert main([*options(case), "--predictions", predictions_of(case, is_faulty=True), "--strict"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "sample LVVIS/00012/1 failed: no prediction" in captured.err
