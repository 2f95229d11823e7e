"""Bad arguments, data and predictions of `unipixel eval`: one line that names the file or value, and status 2."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.golden_evaluation import golden_case
from PIL import Image

from unipixel.cli import main

MEVIS = ["mevis", "--split", "valid_u"]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    assert main(["eval", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def mevis(tmp_path: Path) -> Path:
    """A copy of a miniature case, to damage."""
    return shutil.copytree(golden_case("mevis-valid_u"), tmp_path / "case")


def change(file: Path, edit: object) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)  # type: ignore[operator]
    file.write_text(json.dumps(content), encoding="utf-8")


def test_every_row_describes_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["benchmarks"]
    assert {"revos", "mevis", "ref-youtube-vos", "groundmore", "davis16", "davis17"} <= {
        row["benchmark"] for row in rows
    }
    for row in rows:
        assert row["metric"]
        assert row["source"]
        assert row["licence"]
        assert row["main_figure"]
        assert all(split["tree"] for split in row["splits"])
        for split in row["splits"]:
            for figure in split["published"]:
                assert 0 < figure["value"] <= (1 if row["unit"] == "fraction" else 5)
                assert figure["model"]
                assert figure["source"]
    assert main(["eval", "list"]) == 0
    assert "mevis: MeViS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mevsi", "--data", "d"], "unknown benchmark mevsi, did you mean mevis?"),
        (["mevis"], "give the folder of the data as --data"),
        (["mevis", "--data", "d", "--split", "test"], "mevis has no split 'test': allowed are valid_u, valid"),
        (["mevis", "--data", "d", "--variant", "x"], "mevis has no variant 'x': allowed are none"),
        (["mevis", "--data", "d", "--seed", "3"], "--seed is not an option of `unipixel eval mevis`"),
        (["synthetic", "--out", "d"], "--out is not an option of `unipixel eval synthetic`"),
        (["mevis", "d"], "unexpected argument 'd'"),
        (["mevis,revos", "--data", "d", "--split", "valid"], "give the split as NAME:SPLIT"),
        (["check", "a.zip"], "give the archive and --benchmark, one of mevis"),
        (["check", "a.zip", "--benchmark", "revos"], "revos has no server"),
        (["synthetic", "--split", "valid"], "synthetic clips have no split 'valid'"),
    ],
)
def test_wrong_argument_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_of(capsys, *arguments)


def test_run_without_model_or_folder_is_refused(mevis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --model and --out" in error_of(capsys, *MEVIS, "--data", mevis / "data", "--model", "unipixel-nano")


def test_missing_annotation_shows_the_expected_tree_and_what_is_there(
    mevis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mevis / "data/valid_u/mask_dict.json").unlink()
    message = error_of(capsys, *MEVIS, "--data", mevis / "data", "--predictions", mevis / "predictions")
    assert "valid_u/mask_dict.json: no such file" in message
    assert "expects under" in message
    assert "valid_u/JPEGImages/VIDEO/FRAME.jpg" in message
    assert "found there: valid_u/" in message


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["videos"]["c77e"].update(frames=[]), "video c77e: there are no frames"),
        (lambda content: content["videos"]["c77e"].pop("frames"), "video c77e: the field `frames` is missing"),
        (lambda content: content["videos"].clear(), "mevis valid_u has no sample there"),
        (lambda content: content.pop("videos"), "the field `videos` is missing"),
        (
            lambda content: content["videos"]["c77e"]["expressions"]["0"].update(exp=3),
            "expression 0: the field `exp` must be str, got 3",
        ),
        (lambda content: content["videos"]["c77e"]["expressions"]["0"].update(exp=" . "), "is empty"),
        (
            lambda content: content["videos"]["c77e"]["expressions"]["0"].pop("anno_id"),
            "the field `anno_id` is missing",
        ),
    ],
)
def test_wrong_annotation_names_file_and_field(
    edit: object, message: str, mevis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = mevis / "data/valid_u/meta_expressions.json"
    change(file, edit)
    found = error_of(capsys, *MEVIS, "--data", mevis / "data", "--predictions", mevis / "predictions")
    assert message in found
    assert "valid_u" in found


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["5"].pop(), "one entry for each of 3 frames, got 2"),
        (lambda content: content["5"][0].update(counts="zzz"), "annotation 5, frame 0"),
        (lambda content: content.pop("5"), "there is no annotation '5'"),
    ],
)
def test_wrong_mask_of_the_truth_names_the_annotation(
    edit: object, message: str, mevis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(mevis / "data/valid_u/mask_dict.json", edit)
    assert message in error_of(capsys, *MEVIS, "--data", mevis / "data", "--predictions", mevis / "predictions")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sample": "b1f2c3/0"}', "line 8: sample 'b1f2c3/0' is already in line 1"),
        ('{"sample": 3}', "line 8: a prediction is a JSON object with the text `sample`"),
        ("[1", "line 8: not a JSON object"),
        ('{"sample": "x", "masks": {}}', "line 8: `masks` is a list"),
        ('{"sample": "x", "no_target": 1}', "line 8: `no_target` must be bool"),
    ],
)
def test_wrong_line_of_predictions_is_named(
    line: str, message: str, mevis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (mevis / "predictions/predictions.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    found = error_of(capsys, *MEVIS, "--data", mevis / "data", "--predictions", mevis / "predictions")
    assert message in found
    assert "predictions.jsonl" in found


def test_predictions_for_no_sample_are_counted(mevis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (mevis / "predictions/predictions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"sample": "other/0", "masks": []}')
    arguments = ["--data", str(mevis / "data"), "--predictions", str(mevis / "predictions"), "--json"]
    assert main(["eval", *MEVIS, *arguments]) == 0
    captured = capsys.readouterr()
    assert "1 prediction(s) for no sample of mevis valid_u, such as other/0" in captured.err
    assert json.loads(captured.out)["failed"] == []


def test_folder_without_predictions_is_named(mevis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(capsys, *MEVIS, "--data", mevis / "data", "--predictions", mevis)
    assert "no predictions.jsonl in this folder" in message


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ([], "0 object(s) predicted, 1 expected"),
        ([{"00000": {"size": [48, 64], "counts": "broken"}}], "frame 00000: the run lengths are broken"),
        ([{"00000": 5}], "frame 00000: the run lengths are broken"),
        ([{"00000": {"size": [1, 1], "counts": [1]}}], "frame 00000: the mask has 1x1 pixels, the frame 64x48"),
    ],
)
def test_prediction_that_cannot_be_scored_fails_with_its_reason(
    masks: list[object], reason: str, mevis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mevis / "predictions/predictions.jsonl").write_text(json.dumps({"sample": "zz10/1", "masks": masks}) + "\n")
    arguments = ["--data", str(mevis / "data"), "--predictions", str(mevis / "predictions"), "--json"]
    assert main(["eval", *MEVIS, *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["failed"]) == 7
    assert reason in result["failed"][-1]["reason"]
    assert result["figures"] == {"J": 0.0, "F": 0.0, "JF": 0.0}


def test_split_without_truth_is_not_scored(capsys: pytest.CaptureFixture[str]) -> None:
    case = golden_case("mevis-valid")
    arguments = ["mevis", "--split", "valid", "--data", case / "data", "--predictions", case / "predictions"]
    assert "only a server has the truth of mevis valid: give --submission" in error_of(capsys, *arguments)


@pytest.fixture
def archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """An archive that the server of MeViS takes."""
    case, path = golden_case("mevis-valid"), tmp_path / "submission.zip"
    arguments = ["--data", str(case / "data"), "--predictions", str(case / "predictions"), "--submission", str(path)]
    assert main(["eval", "mevis", "--split", "valid", *arguments]) == 0
    capsys.readouterr()
    return path


def rewrite(archive: Path, edit: object) -> None:
    """Replace the entries of an archive by what a function makes of their names and contents."""
    with zipfile.ZipFile(archive) as opened:
        entries = {name: opened.read(name) for name in opened.namelist()}
    edit(entries)  # type: ignore[operator]
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in entries.items():
            opened.writestr(name, content)


def png(values: object, mode: str, tmp_path: Path) -> bytes:
    Image.fromarray(np.asarray(values, dtype=np.uint8)).convert(mode).save(tmp_path / "image.png")
    return (tmp_path / "image.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "values", "mode", "problem"),
    [
        ("d3/0/00000.png", np.full((48, 64), 1), "L", "a mask has the values 0 and 255, this image has [1]"),
        ("d3/0/00000.png", np.zeros((48, 64)), "RGB", "this image has mode RGB"),
        ("d3/0/00000.png", np.zeros((24, 32)), "L", "32x24 pixels, the frame has 64x48"),
        ("d3/0/99999.png", np.zeros((48, 64)), "L", "d3/0/99999.png: not a frame of this split"),
        ("root/d3/0/00000.png", np.zeros((48, 64)), "L", "expected is VIDEO/EXPRESSION/FRAME.png"),
    ],
)
def test_check_names_what_a_server_would_refuse(
    name: str,
    values: np.ndarray,
    mode: str,
    problem: str,
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rewrite(archive, lambda entries: entries.update({name: png(values, mode, tmp_path)}))
    data = str(golden_case("mevis-valid") / "data")
    assert main(["eval", "check", str(archive), "--benchmark", "mevis", "--data", data]) == 1
    assert problem in capsys.readouterr().out


def test_check_names_a_missing_frame(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(archive, lambda entries: entries.pop("d3/1/00002.png"))
    data = str(golden_case("mevis-valid") / "data")
    assert main(["eval", "check", str(archive), "--benchmark", "mevis", "--data", data]) == 1
    assert "d3/1/00002.png: missing" in capsys.readouterr().out
    # Without the data only the layout can be checked.
    assert main(["eval", "check", str(archive), "--benchmark", "mevis"]) == 0


def test_check_of_another_file_says_that_it_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.zip").write_bytes(b"text")
    assert main(["eval", "check", str(tmp_path / "a.zip"), "--benchmark", "mevis"]) == 1
    assert "not a zip archive" in capsys.readouterr().out


def test_submission_with_failed_samples_has_empty_masks_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, path = golden_case("mevis-valid"), tmp_path / "submission.zip"
    lines = (case / "predictions/predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "predictions.jsonl").write_text("".join(lines[1:]), encoding="utf-8")
    arguments = ["--data", str(case / "data"), "--predictions", str(tmp_path), "--submission", str(path)]
    assert main(["eval", "mevis", "--split", "valid", *arguments]) == 0
    missing = json.loads(lines[0])["sample"]
    assert f"1 sample(s) failed and have empty masks in {path}, the first is {missing}" in capsys.readouterr().err
    assert main(["eval", "check", str(path), "--benchmark", "mevis", "--data", str(case / "data")]) == 0
    with zipfile.ZipFile(path) as opened, opened.open(f"{missing}/00000.png") as image:
        assert not np.asarray(Image.open(image)).any()


def test_submission_replaces_no_file(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = golden_case("mevis-valid")
    arguments = ["mevis", "--split", "valid", "--data", case / "data", "--predictions", case / "predictions"]
    assert "exists already" in error_of(capsys, *arguments, "--submission", archive)
