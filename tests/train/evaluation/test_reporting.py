"""Galleries and reports of runs."""

import base64
import importlib.util
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.golden_evaluation import golden_case
from PIL import Image

from unipixel.cli import main
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.reporting.run_table import read_runs, text_table
from unipixel.train.evaluation.reporting.sample_selection import sample_quality, select_samples
from unipixel.train.evaluation.scoring.scores import Scores


def scores_of(qualities: dict[str, float], failed: dict[str, str] | None = None) -> Scores:
    samples = {name: {"J": value, "F": value} for name, value in qualities.items()}
    return Scores(figures={"JF": 0.5}, samples=samples, failed=failed or {})


def test_a_gallery_shows_the_worst_the_best_and_others_once_each() -> None:
    scores = scores_of({f"s{number}": number / 10 for number in range(10)})
    groups = select_samples(list(scores.samples), scores, count=2)
    assert [item.name for item in groups["worst"]] == ["s0", "s1"]
    assert [item.name for item in groups["best"]] == ["s9", "s8"]
    shown = [item.name for items in groups.values() for item in items]
    assert len(groups["random"]) == 2
    assert len(shown) == len(set(shown))


def test_the_objects_of_a_sequence_count_as_their_mean() -> None:
    scores = scores_of({"dance_twirl_1": 0.2, "dance_twirl_2": 0.6, "dance_3": 1.0})
    groups = select_samples(["dance_twirl"], scores, count=1)
    assert groups["worst"][0].quality == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("figures", "quality"),
    [
        ({"J": 0.2, "F": 0.4, "A": 1.0}, 0.3),
        ({"J": [1.0, 0.0], "F": [1.0, 0.0], "verdict": "wrong"}, 0.5),
        ({"inter": 300, "union": 600, "iou": 0.5}, 0.5),
        ({"verdict": "not an option"}, 0.0),
        ({"Subject Correspondence": 5.0, "Appearance Description": 2.0}, 3.5),
        ({}, None),
    ],
)
def test_the_quality_of_a_sample_is_its_main_figure(figures: dict[str, object], quality: float | None) -> None:
    assert sample_quality(figures) == (quality if quality is None else pytest.approx(quality))


def test_a_gallery_of_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="--gallery must be at least 1, got 0"):
        select_samples(["s"], scores_of({"s": 1.0}), count=0)


def run_gallery(name: str, case: str, folder: Path, *options: str) -> str:
    predictions = folder / "predictions"
    shutil.copytree(golden_case(case) / "predictions", predictions)
    data = golden_case(case) / "data"
    command = ["eval", name, "--data", str(data), "--predictions", str(predictions), "--gallery", "2", *options]
    assert main(command) == 0
    return (predictions / "gallery.html").read_text(encoding="utf-8")


def test_the_gallery_page_is_self_contained_and_shows_masks_on_frames(tmp_path: Path) -> None:
    page = run_gallery("mevis", "mevis-valid_u", tmp_path, "--split", "valid_u")
    assert not re.search(r'(?:src|href)="(?!data:image/jpeg;base64,)', page)
    assert "<script" not in page
    urls = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))) for url in urls]
    assert pictures
    assert all(picture.ndim == 3 and max(picture.shape) <= 360 for picture in pictures)
    assert "truth" in page
    assert "prefers-color-scheme: dark" in page


def test_texts_of_the_data_are_escaped(tmp_path: Path) -> None:
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    shutil.copytree(golden_case("mevis-valid_u") / "data", data)
    shutil.copytree(golden_case("mevis-valid_u") / "predictions", predictions)
    (file,) = data.rglob("meta_expressions.json")
    annotations = json.loads(file.read_text(encoding="utf-8"))
    for video in annotations["videos"].values():
        for expression in video["expressions"].values():
            expression["exp"] = "<img src=x onerror=alert(1)>"
    file.write_text(json.dumps(annotations), encoding="utf-8")
    command = ["eval", "mevis", "--split", "valid_u", "--data", str(data), "--predictions", str(predictions)]
    assert main([*command, "--gallery", "1"]) == 0
    page = (predictions / "gallery.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def write_run(folder: Path, *, benchmark: str = "revos", honest: float = 0.5, paper: float = 0.52) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"benchmark": benchmark, "model": "m"}), encoding="utf-8")
    split = BENCHMARKS["revos"].splits[0].name
    scores = {
        protocol: {
            "benchmark": benchmark,
            "split": split,
            "protocol": protocol,
            "figures": {"J": value - 0.1, "JF": value},
            "samples": {"a": {}, "b": {}},
            "failed": [{"sample": "b", "reason": "no prediction"}],
        }
        for protocol, value in (("honest", honest), ("paper", paper))
    }
    (folder / "scores.json").write_text(json.dumps({"model": "m", "protocols": scores}), encoding="utf-8")


def test_a_report_shows_both_protocols_beside_published_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs/revos")
    assert main(["eval", "report", str(tmp_path / "runs"), "--html", str(tmp_path / "report.html")]) == 0
    heads, row = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", heads.strip())[5:] == ["honest", "paper", "UniPixel-3B", "UniPixel-7B", "best known"]
    # Published: the paper's table, see the specification of the benchmarks.
    assert re.split(r"\s{2,}", row.strip()) == [
        "ReVOS valid", "JF", "m", "2", "1", "50.00", "52.00", "62.10", "64.00", "68.40 (VIRST)"
    ]  # fmt: skip
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "40.00" in page
    assert "<strong>JF</strong>" in page


def test_a_report_as_json_has_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "revos")
    assert main(["eval", "report", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["figure"]: row["honest"] for row in rows} == {"JF": 0.5, "J": 0.4}


def test_a_report_of_a_folder_without_runs_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "report", str(tmp_path)]) == 2
    assert "contains no run with scores (scores.json)" in capsys.readouterr().err


def test_scores_of_an_unknown_benchmark_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "x", benchmark="other")
    with pytest.raises(ValueError, match=r"scores\.json: unknown benchmark 'other'"):
        read_runs(tmp_path)


def test_the_text_table_is_aligned(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", honest=0.123)
    lines = text_table(read_runs(tmp_path)).splitlines()
    column = lines[0].index("honest")
    assert [line[column : column + 5] for line in lines[1:]] == ["50.00", "12.30"]


def test_the_page_about_benchmarks_shows_the_table_that_the_command_uses() -> None:
    path = Path(__file__).parents[3] / "docs/make_benchmark_tables.py"
    specification = importlib.util.spec_from_file_location("make_benchmark_tables", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    page = path.with_name("evaluation.md").read_text(encoding="utf-8")
    assert page == module.page_with_section(page), "run `python docs/make_benchmark_tables.py`"
