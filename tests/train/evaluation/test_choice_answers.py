"""Parsers of multiple choice against the verdicts of four published evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.golden_evaluation import GOLDEN, expected_of, golden_case

from unipixel.train.evaluation.answers.choice_scores import EMPTY_ANSWER, score_choices
from unipixel.train.evaluation.answers.choices import (
    bracketed_letter,
    contains_answer,
    first_letter,
    judge_choice,
    matches_mvbench,
    stated_option,
)
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.running.predictions import PredictionFile
from unipixel.train.evaluation.scoring.scores import Scores

RULES = {
    "videorefer-bench-q": ("videorefer", "type", "videorefer_repository"),
    "mvbench": ("mvbench", "task", "mvbench_repository"),
}
OPTIONS = ("falling", "A thing at rest", "rising", "none of these")


def scored(name: str, predictions: Path, *, protocol: Any = "paper") -> Scores:
    case, kind, second = RULES[name]
    benchmark = BENCHMARKS[name]
    samples = benchmark.read(golden_case(case) / "data", split="test", variant=benchmark.variant(None))
    return score_choices(samples, PredictionFile(predictions), protocol=protocol, kind=kind, second=second)


def golden_predictions(name: str) -> Path:
    return golden_case(RULES[name][0]) / ("predictions/q" if name == "videorefer-bench-q" else "predictions")


@pytest.mark.parametrize("name", RULES)
def test_second_published_rule_gives_its_recorded_verdicts(name: str) -> None:
    case, _, second = RULES[name]
    expected = expected_of(case)[second]
    found = scored(name, golden_predictions(name)).others[second]
    assert found["samples"] == expected["samples"]
    assert {key: found["figures"][key] for key in expected["figures"]} == pytest.approx(expected["figures"], abs=1e-6)


@pytest.mark.parametrize("protocol", ["paper", "honest"])
@pytest.mark.parametrize("text", ["", " ", ".", "\n", "()"])
def test_an_answer_without_a_letter_is_wrong_for_every_rule(text: str, protocol: str, tmp_path: Path) -> None:
    content = (golden_predictions("mvbench") / "predictions.jsonl").read_text()
    lines = [json.loads(line) for line in content.splitlines()]
    lines[0]["text"] = text
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = scored("mvbench", tmp_path, protocol=protocol)
    name = lines[0]["sample"]
    assert scores.samples[name]["verdict"] == "not an option"
    assert not scores.others["mvbench_repository"]["samples"][name]
    assert bracketed_letter(text) not in set("ABCD")
    assert not contains_answer(text, "A")
    # An empty answer is listed; it stays in the mean.
    assert dict(scores.failed) == ({name: EMPTY_ANSWER} if text == "" else {})
    assert scores.figures["accuracy"] == pytest.approx(
        sum(row["verdict"] == "right" for row in scores.samples.values()) / len(lines)
    )


def test_a_missing_prediction_and_one_without_text_are_wrong_and_listed(tmp_path: Path) -> None:
    lines = (golden_predictions("videorefer-bench-q") / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "predictions.jsonl").write_text("\n".join([*lines[2:], '{"sample": "1"}']) + "\n")
    scores = scored("videorefer-bench-q", tmp_path)
    assert dict(scores.failed) == {"0": "no prediction", "1": "no answer: the prediction has no `text`"}
    assert {scores.samples[name]["verdict"] for name in "01"} == {"not an option"}


@pytest.mark.parametrize(
    ("text", "published", "stated"),
    [
        ("(B) the second", "B", 1),
        ("b", "B", 1),
        ("B) A thing at rest", "B", 1),
        ("Answer: B", "A", 1),
        ("The answer is A", None, 0),
        ("The answer is a thing at rest.", None, 1),
        ("the best option is (c).", None, 2),
        ("B) no, (A)", "B", 1),
        ("A.B", "A", 0),
        ("It is rising.", None, 2),
        ("A thing at rest", "A", 1),
        ("It is falling or rising", None, None),
        ("E", None, None),
        ("I think option D: it", None, 3),
        ("D<|im_end|>", "D", 3),
        ("I choose B because it rests", None, 1),
        ("A dog is there", "A", None),
    ],
)
def test_published_rule_reads_the_first_letter_and_the_strict_one_the_stated_option(
    text: str, published: str | None, stated: int | None
) -> None:
    assert first_letter(text, letters="ABCD") == published
    assert stated_option(text, OPTIONS) == stated


def test_an_option_that_ends_with_a_letter_is_not_mistaken_for_it() -> None:
    assert stated_option("Vitamin C", ("Vitamin A", "Vitamin C", "Vitamin B")) == 1
    assert stated_option("Vitamin C.", ("vitamin a", "vitamin c", "vitamin b")) == 1


def test_perbench_choices_equal_the_recorded_verdicts() -> None:
    items = json.loads((GOLDEN / "sail-metrics.json").read_text())["mcq"]["items"]
    assert sum(contains_answer(item["prediction"], item["truth"]) for item in items) == 4
    strict = [stated_option(item["prediction"], 4) for item in items]
    truths = [stated_option(item["truth"], 4) for item in items]
    assert [one == other for one, other in zip(strict, truths, strict=True)] == [True, True, True, False, False, True]


def test_mvbench_rule_takes_a_contained_word() -> None:
    assert matches_mvbench("B) yes", "B")
    assert not matches_mvbench("(B", "B")
    assert judge_choice("A", "A") == "right"
