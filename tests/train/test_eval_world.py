"""The figures of the drawn world: their shape, their sums, and what counts as a right answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import tiny_checkpoint

from unipixel.cli import main
from unipixel.train.evaluation.tally import Tally, score_masks
from unipixel.train.evaluation.wording import chosen_option, is_right


def test_eval_world_prints_the_agreed_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    arguments = ["--limit", "9", "--frames", "4", "--render-size", "48", "--seed", "3", "--json"]
    assert main(["eval", "world", "--model", str(checkpoint), *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"track", "segment", "pixelqa", "no_target", "follow_up", "baselines", "num_samples"} <= set(report)
    assert report["num_samples"] == 9
    assert set(report["pixelqa"]) == {"point", "box", "mixed"}
    for figures in (*report["segment"].values(), *report["track"].values()):
        assert {"J", "F", "JF"} <= set(figures)


@pytest.mark.parametrize(
    ("given", "expected", "options", "is_expected"),
    [
        ("The best option is (B) Left.", "The best option is (B) Left.", 4, True),
        ("(B)", "The best option is (B) Left.", 4, True),
        ("B", "The best option is (B) Left.", 4, True),
        ("The best option is (A) Left.", "The best option is (B) Left.", 4, False),
        ("Left.", "The best option is (B) Left.", 4, False),
        ("It is red.", "Red.", 0, True),
        ("It is a dark red.", "Red.", 0, False),
        ("", "Yes.", 0, False),
    ],
)
def test_is_right(given: str, expected: str, options: int, is_expected: bool) -> None:
    assert is_right(given, expected, options=options) is is_expected


def test_chosen_option_of_an_answer_without_letter_is_none() -> None:
    assert chosen_option("nothing fits") is None


def test_score_masks_perfect_and_empty_prediction() -> None:
    truth = np.zeros((2, 20, 20), bool)
    truth[:, 5:15, 5:15] = True
    assert score_masks(truth, truth) == (1.0, 1.0)
    assert score_masks(np.zeros_like(truth), truth) == (0.0, 0.0)


def test_tally_reports_means_and_none_where_nothing_was_measured() -> None:
    tally = Tally()
    tally.masks(("segment", "motion"), (0.4, 0.6))
    tally.masks(("segment", "motion"), (0.6, 0.8))
    tally.hit(("pixelqa", "box"), True)
    tally.hit(("pixelqa", "box"), False)
    report = tally.report()
    assert report["segment"] == {"motion": {"J": 0.5, "F": 0.7, "JF": 0.6, "num": 2}}
    assert report["pixelqa"]["box"]["accuracy"] == 0.5
    assert report["follow_up"]["accuracy"] is None
