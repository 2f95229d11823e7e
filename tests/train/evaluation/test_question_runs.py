"""Whole runs of a tiny random checkpoint on the miniatures of image, region and question benchmarks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.byte_model import tiny_model_and_processor
from helpers.golden_evaluation import GOLDEN, golden_case
from PIL import Image

from unipixel.cli import main
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.processor import Processor
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.running.predictions import PredictionFile
from unipixel.train.evaluation.scoring import scores

SAIL = json.loads((GOLDEN / "sail-metrics.json").read_text(encoding="utf-8"))
FAST = ["--device", "cpu", "--max-new-tokens", "4"]


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with four visual tokens a frame."""
    folder = tmp_path_factory.mktemp("small_checkpoint")
    model, processor = tiny_model_and_processor()
    model.save_pretrained(folder)
    budget = FrameBudget(min_tokens=4, max_tokens=4)
    Processor(model.config, processor.tokenizer, budget=budget).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def perbench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("perbench")
    Image.fromarray(np.zeros((*SAIL["image_size"], 3), np.uint8)).save(folder / "a.png")
    files = {"caption": "STBench_Detailed_Caption.json", "mcq": "STBench_MCQ.json", "vres": "STBench_VRES.json"}
    for name, file in files.items():
        (folder / file).write_text(json.dumps([SAIL[f"{name}_reader"]["item"]]))
    return folder


def run(name: str, data: Path, model: Path, out: Path, *more: str) -> int:
    return main(["eval", name, "--data", str(data), "--model", str(model), "--out", str(out), *FAST, *more, "--json"])


def scored_again(name: str, data: Path, out: Path, *more: str) -> int:
    return main(["eval", name, "--data", str(data), "--predictions", str(out), *more, "--json"])


@pytest.mark.parametrize(
    ("name", "case", "more"),
    [
        ("refcoco+", "refcoco", ["--split", "testB"]),
        ("grefcoco", "grefcoco", []),
        ("reasonseg", "reasonseg", ["--split", "test"]),
        ("videorefer-bench-q", "videorefer", ["--variant", "single"]),
        ("pixelqa", "videorefer", ["--variant", "point", "--limit", "4"]),
        ("pixelqa-forced", "videorefer", ["--limit", "4"]),
        ("pixelqa-set-of-mark", "videorefer", ["--variant", "box"]),
    ],
)
def test_run_scores_like_its_predictions_scored_again(
    name: str, case: str, more: list[str], small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = golden_case(case) / "data"
    assert run(name, data, small_checkpoint, tmp_path, *more) == 0
    first = json.loads(capsys.readouterr().out)
    assert scored_again(name, data, tmp_path, *more) == 0
    assert json.loads(capsys.readouterr().out) == first
    # The random model may give empty answers; nothing else fails.
    assert {row["reason"] for row in first["failed"]} <= {"the answer is empty"}
    assert len(first["samples"]) == len((tmp_path / "predictions.jsonl").read_text().splitlines())


def test_run_on_perbench_ends_with_the_overall_score(
    perbench: Path, small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("perbench", perbench, small_checkpoint, tmp_path) == 0
    first = json.loads(capsys.readouterr().out)
    assert {"METEOR", "CIDEr", "accuracy", "cIoU", "gIoU", "overall"} == set(first["figures"])
    assert scored_again("perbench", perbench, tmp_path) == 0
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.parametrize(
    ("name", "case", "predictions"),
    [
        ("refcoco", "refcoco", "predictions/refcoco/val"),
        ("grefcoco", "grefcoco", "predictions"),
        ("reasonseg", "reasonseg", "predictions/val"),
        ("videorefer-bench-q", "videorefer", "predictions/q"),
        ("videorefer-bench-d", "videorefer", "predictions/d"),
        ("pixelqa", "videorefer", "predictions/pixelqa"),
        ("mvbench", "mvbench", "predictions"),
    ],
)
def test_samples_can_be_measured_in_other_processes(
    name: str, case: str, predictions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, folder = BENCHMARKS[name], golden_case(case)
    samples = benchmark.read(folder / "data", split=benchmark.splits[0].name, variant=benchmark.variant(None))
    alone = benchmark.score(samples, PredictionFile(folder / predictions), protocol="honest")

    class CopyingPool:
        """Hands copies to functions, as a pool of processes does."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __enter__(self) -> CopyingPool:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def map(self, function: Any, chunks: Any) -> Any:
            for chunk in chunks:
                copied, part = pickle.loads(pickle.dumps((function, chunk)))
                yield pickle.loads(pickle.dumps(copied(part)))

    monkeypatch.setattr(scores, "ProcessPoolExecutor", CopyingPool)
    monkeypatch.setattr(scores, "_MIN_SAMPLES_PER_PROCESS", 1)
    with scores.scoring_processes(2):
        assert benchmark.score(samples, PredictionFile(folder / predictions), protocol="honest") == alone


def test_run_on_mvbench_lists_questions_whose_video_is_missing(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = golden_case("mvbench") / "data"
    assert run("mvbench", data, small_checkpoint, tmp_path, "--limit", "4") == 0
    result = json.loads(capsys.readouterr().out)
    missing = {row["sample"]: row["reason"] for row in result["failed"] if "empty" not in row["reason"]}
    assert list(missing) == ["action_sequence/1"]
    assert "action_sequence_1.mp4" in missing["action_sequence/1"]


def test_run_on_descriptions_asks_the_judge_that_is_configured_and_no_other(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from unipixel.train.evaluation.answers import judge_client

    data = golden_case("videorefer") / "data"
    asked: list[Any] = []

    def reply(correct: str, predicted: str, *, settings: judge_client.JudgeSettings) -> str:
        asked.append((correct, predicted, settings.model, settings.key))
        return "1. Subject Correspondence: 5"

    monkeypatch.setattr(judge_client, "ask_judge", reply)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert run("videorefer-bench-d", data, small_checkpoint, tmp_path, "--limit", "2") == 0
    assert asked == []
    capsys.readouterr()
    lines = [
        json.loads(line) | {"text": "A dog."} for line in (tmp_path / "predictions.jsonl").read_text().splitlines()
    ]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = ["--judge-url", "https://judge.example/v1", "--judge-model", "stub", "--limit", "2"]
    assert scored_again("videorefer-bench-d", data, tmp_path, *judge) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["figures"]["Subject Correspondence"] == 5
    caption = "The red triangle drifts slowly – très lentement."
    assert asked == [(caption, "A dog.", "stub", "secret")] * 2


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("videorefer-bench-d", ["--judge-model", "m"], "needs both --judge-url and --judge-model"),
        ("videorefer-bench-q", ["--judge-url", "https://j", "--judge-model", "m"], "needs no judge"),
        ("videorefer-bench-q", ["--variant", "point"], "allowed are multi, single"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    name: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case = golden_case("videorefer")
    folder = case / "predictions" / name[-1]
    assert scored_again(name, case / "data", folder, *more) == 2
    assert message in capsys.readouterr().err


def test_a_run_with_another_wording_is_refused(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = golden_case("videorefer") / "data"
    assert run("videorefer-bench-q", data, small_checkpoint, tmp_path, "--limit", "1") == 0
    assert run("videorefer-bench-q", data, small_checkpoint, tmp_path, "--limit", "1", "--wording", "session") == 2
    assert "wording" in capsys.readouterr().err
