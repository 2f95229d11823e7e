"""Runs of a model on miniature benchmarks: resumption, shards, failed samples, and folders of other runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.golden_evaluation import golden_case

from unipixel.cli import main
from unipixel.train.evaluation.running import runner
from unipixel.train.evaluation.running.predictions import (
    Prediction,
    PredictionFile,
    PredictionWriter,
    rewrite_predictions,
)

FAST = ["--device", "cpu", "--max-new-tokens", "4"]


def run(name: str, data: Path, model: Path, out: Path, *more: str) -> int:
    arguments = ["eval", name, "--data", str(data), "--model", str(model), "--out", str(out), *FAST, *more]
    return main(arguments)


def lines_of(folder: Path) -> list[bytes]:
    return (folder / "predictions.jsonl").read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def mevis() -> Path:
    return golden_case("mevis-valid_u") / "data"


@pytest.fixture(scope="module")
def whole_run(mevis: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run by one process; tests must not change it."""
    out = tmp_path_factory.mktemp("whole")
    assert run("mevis", mevis, checkpoint, out) == 0
    return out


@pytest.mark.parametrize(
    ("name", "split", "case"),
    [
        ("revos", "valid", "revos"),
        ("ref-davis17", "valid", "ref-davis17"),
        ("ref-sav", "valid", "ref-sav"),
        ("groundmore", "test", "groundmore"),
        ("reasonvos", "test", "reasonvos"),
        ("davis17", "val", "davis17"),
    ],
)
def test_run_scores_like_its_predictions_scored_again(
    name: str, split: str, case: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = golden_case(case) / "data"
    assert run(name, data, checkpoint, tmp_path, "--split", split, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["failed"] == []
    again = ["--split", split, "--data", str(data), "--predictions", str(tmp_path), "--json"]
    assert main(["eval", name, *again]) == 0
    assert json.loads(capsys.readouterr().out) == first
    stored = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert stored["protocols"]["honest"]["figures"] == first["figures"]


@pytest.mark.parametrize("num_lines", [0, 1, 4, 6])
def test_run_continues_after_a_kill_with_the_same_bytes(
    num_lines: int, whole_run: Path, mevis: Path, checkpoint: Path, tmp_path: Path
) -> None:
    lines = lines_of(whole_run)
    shutil.copy(whole_run / "run.json", tmp_path)
    # The process was killed while it wrote the next line.
    (tmp_path / "predictions.jsonl").write_bytes(b"".join(lines[:num_lines]) + lines[num_lines][:25])
    assert run("mevis", mevis, checkpoint, tmp_path) == 0
    assert lines_of(tmp_path) == lines


def test_finished_run_is_scored_without_loading_the_model(
    whole_run: Path, mevis: Path, tmp_path: Path, checkpoint: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    assert run("mevis", mevis, model, tmp_path / "out") == 0
    (model / "model.safetensors").unlink()
    assert run("mevis", mevis, model, tmp_path / "out") == 0
    assert lines_of(tmp_path / "out") == lines_of(whole_run)


def test_shared_encoded_frames_change_nothing(
    whole_run: Path, mevis: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner._Asker, "_reuse", runner._Asker._open)
    assert run("mevis", mevis, checkpoint, tmp_path) == 0
    assert lines_of(tmp_path) == lines_of(whole_run)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_shards_write_what_one_process_writes(
    order: tuple[int, int],
    whole_run: Path,
    mevis: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(order[0]))
    assert run("mevis", mevis, checkpoint, tmp_path) == 0
    assert not (tmp_path / "predictions.jsonl").exists()
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", str(order[1]))
    assert run("mevis", mevis, checkpoint, tmp_path) == 0
    assert lines_of(tmp_path) == lines_of(whole_run)
    assert sorted(path.name for path in tmp_path.glob("predictions*")) == ["predictions.jsonl"]
    assert "MeViS" in capsys.readouterr().out


def test_run_of_shards_is_continued_by_one_process(
    whole_run: Path, mevis: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert run("mevis", mevis, checkpoint, tmp_path) == 0
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert run("mevis", mevis, checkpoint, tmp_path) == 0
    assert lines_of(tmp_path) == lines_of(whole_run)


@pytest.mark.parametrize(("name", "value"), [("RANK", "two"), ("RANK", "2"), ("WORLD_SIZE", "-1")])
def test_wrong_rank_is_named(
    name: str,
    value: str,
    mevis: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, value)
    assert run("mevis", mevis, checkpoint, tmp_path) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("ref-sav", (), "benchmark is 'mevis', now 'ref-sav'"),
        ("mevis", ("--split", "valid"), "split is 'valid_u', now 'valid'"),
        ("mevis", ("--anchor", "first"), "anchor is 'auto', now 'first'"),
        ("mevis", ("--model", "unipixel-nano"), "now 'unipixel-nano'"),
    ],
)
def test_folder_of_another_run_is_refused_and_kept(
    name: str,
    more: tuple[str, ...],
    message: str,
    whole_run: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = "ref-sav" if name == "ref-sav" else "mevis-valid" if "valid" in more else "mevis-valid_u"
    shutil.copytree(whole_run, tmp_path / "out")
    assert run(name, golden_case(case) / "data", checkpoint, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert lines_of(tmp_path / "out") == lines_of(whole_run)


def test_folder_with_predictions_of_unknown_origin_is_refused(
    mevis: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions.jsonl").write_text('{"sample": "b1f2c3/0", "text": "made by hand"}\n')
    assert run("mevis", mevis, checkpoint, tmp_path) == 2
    assert "predictions but no run.json" in capsys.readouterr().err
    assert "made by hand" in (tmp_path / "predictions.jsonl").read_text()


@pytest.fixture
def damaged(mevis: Path, tmp_path: Path) -> Path:
    """A copy of the data in which one frame of one clip does not decode."""
    data = tmp_path / "data"
    shutil.copytree(mevis, data)
    frame = data / "valid_u/JPEGImages/c77e/00002.jpg"
    frame.write_bytes(frame.read_bytes()[:60])
    return data


def test_sample_whose_image_is_damaged_fails_is_listed_and_counts_zero(
    damaged: Path, whole_run: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mevis", damaged, checkpoint, tmp_path / "out", "--json") == 0
    result: Any = json.loads(capsys.readouterr().out)
    assert [row["sample"] for row in result["failed"]] == ["c77e/0", "c77e/1"]
    assert all("c77e/00002.jpg" in row["reason"] for row in result["failed"])
    assert result["samples"]["c77e/0"] == {"J": 0.0, "F": 0.0}
    predictions, whole = PredictionFile(tmp_path / "out"), PredictionFile(whole_run)
    assert predictions.names == whole.names
    for name in ("b1f2c3/2", "zz10/0"):
        assert predictions.get(name) == whole.get(name)


def test_failed_samples_are_asked_again_on_request(
    damaged: Path, mevis: Path, whole_run: Path, checkpoint: Path, tmp_path: Path
) -> None:
    assert run("mevis", damaged, checkpoint, tmp_path / "out") == 0
    failed = lines_of(tmp_path / "out")
    assert run("mevis", mevis, checkpoint, tmp_path / "out") == 0
    assert lines_of(tmp_path / "out") == failed
    assert run("mevis", mevis, checkpoint, tmp_path / "out", "--retry-failed") == 0
    assert lines_of(tmp_path / "out") == lines_of(whole_run)


def test_strict_run_stops_at_the_sample_and_keeps_those_before(
    damaged: Path, whole_run: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mevis", damaged, checkpoint, tmp_path / "out", "--strict") == 1
    assert "sample c77e/0 failed: OSError" in capsys.readouterr().err
    assert lines_of(tmp_path / "out") == lines_of(whole_run)[:3]


def test_several_benchmarks_share_one_model_and_have_a_folder_each(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unipixel.model.unipixel import UniPixel

    loaded: list[Any] = []
    load = UniPixel.from_pretrained

    def count_and_load(source: Any, **options: Any) -> UniPixel:
        loaded.append(source)
        return load(source, **options)

    monkeypatch.setattr(UniPixel, "from_pretrained", count_and_load)
    for name, case in (("mevis", "mevis-valid"), ("ref-sav", "ref-sav")):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(golden_case(case) / "data")
    assert run("mevis:valid,ref-sav", tmp_path / "data", checkpoint, tmp_path / "runs", "--limit", "2") == 0
    assert len(loaded) == 1
    assert len(lines_of(tmp_path / "runs/mevis-valid")) == len(lines_of(tmp_path / "runs/ref-sav-valid")) == 2


def test_rewritten_predictions_keep_unknown_fields(tmp_path: Path) -> None:
    from dataclasses import replace

    file = tmp_path / "predictions.jsonl"
    file.write_text('{"sample": "0", "text": "a", "note": [1]}\n{"text": "b", "sample": "1"}\n')
    rewrite_predictions(tmp_path, lambda prediction: replace(prediction, judge=f"4 for {prediction.text}"))
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first == {"sample": "0", "text": "a", "judge": "4 for a", "note": [1]}
    assert second == {"sample": "1", "text": "b", "judge": "4 for b"}


def test_folder_without_frames_is_refused_before_the_model_is_asked(
    damaged: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged / "valid_u/JPEGImages").rename(damaged / "valid_u/frames")
    assert run("mevis", damaged, checkpoint, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "valid_u/JPEGImages/b1f2c3/00000.jpg: no such file" in message
    assert "valid_u/JPEGImages/VIDEO/FRAME.jpg" in message
    assert not (tmp_path / "out").exists()


def test_clip_without_folder_fails_and_the_others_are_asked(
    damaged: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(damaged / "valid_u/JPEGImages/c77e")
    assert run("mevis", damaged, checkpoint, tmp_path / "out", "--json") == 0
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert [row["sample"] for row in failed] == ["c77e/0", "c77e/1"]
    assert "c77e/00000.jpg" in failed[0]["reason"]


def test_run_of_a_split_without_truth_writes_the_submission(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, archive = golden_case("ref-youtube-vos") / "data", tmp_path / "submission.zip"
    assert run("ref-youtube-vos", data, checkpoint, tmp_path / "out") == 0
    assert "add --submission ZIP for the server" in capsys.readouterr().err
    assert run("ref-youtube-vos", data, checkpoint, tmp_path / "out", "--submission", str(archive)) == 0
    assert main(["eval", "check", str(archive), "--benchmark", "ref-youtube-vos", "--data", str(data)]) == 0


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    with PredictionWriter(file) as writer:
        writer.append(Prediction(sample="0", text="a"))
        with pytest.raises(OSError, match="another process is writing it"):
            PredictionWriter(file)
    with PredictionWriter(file) as writer:
        writer.append(Prediction(sample="1", text="b"))
    assert PredictionFile(file).names == ("0", "1")


@pytest.mark.slow
def test_killed_process_is_continued_with_the_same_bytes(
    whole_run: Path, mevis: Path, checkpoint: Path, tmp_path: Path
) -> None:
    options = ["--data", str(mevis), "--model", str(checkpoint), "--out", str(tmp_path), *FAST]
    command = [sys.executable, "-m", "unipixel.eval", "mevis", *options]
    for num_lines in (1, 3, 6):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            file = tmp_path / "predictions.jsonl"
            while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < num_lines):
                time.sleep(0.001)
            process.kill()
        assert whole_run.joinpath("predictions.jsonl").read_bytes().startswith(b"".join(lines_of(tmp_path)[:num_lines]))
    subprocess.run(command, check=True, capture_output=True)
    assert lines_of(tmp_path) == lines_of(whole_run)


@pytest.mark.slow
def test_torchrun_shares_the_samples_among_its_processes(
    whole_run: Path, mevis: Path, checkpoint: Path, tmp_path: Path
) -> None:
    options = ["--data", str(mevis), "--model", str(checkpoint), "--out", str(tmp_path), *FAST]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "unipixel.eval"]
    result = subprocess.run([*launcher, "mevis", *options, "--json"], check=True, capture_output=True, text=True)
    assert lines_of(tmp_path) == lines_of(whole_run)
    assert json.loads(result.stdout)["failed"] == []
