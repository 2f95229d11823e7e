"""The table of ablations: its rows, and runs that were measured before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unipixel.train.evaluation.metrics import MetricAccumulator
from unipixel.train.nano.ablation_table import REPORT_FILE, VARIANTS, Variant, format_table, train_and_measure
from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.recipe_files import load_any_recipe


def report(accuracy: bool) -> dict[str, object]:
    metrics = MetricAccumulator()
    metrics.add_masks(("track", "box"), (0.5, 0.75))
    metrics.add_answer(("pixelqa", "pairs"), accuracy)
    return {**metrics.report(), "num_trained_samples": 160}


def test_table_has_a_column_per_variant_and_a_row_per_rate() -> None:
    lines = format_table({"the recipe": report(True), "without": report(False)}).splitlines()
    assert lines[0] == "| | the recipe | without |"
    assert "| conversations in training | 160 | 160 |" in lines
    assert "| track box, J&F | 0.625 | 0.625 |" in lines
    assert "| question answering pairs, accuracy | 1 | 0 |" in lines
    assert "| follow-up questions, accuracy |  |  |" in lines


def test_measured_run_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / REPORT_FILE).write_text(json.dumps(report(True)), encoding="utf-8")
    assert train_and_measure(tmp_path, ("no.such=setting",))["num_trained_samples"] == 160
    with pytest.raises(ValueError, match="unknown setting no"):
        train_and_measure(tmp_path / "other", ("no.such=setting",))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_settings_of_variants_are_valid(variant: Variant, tmp_path: Path) -> None:
    recipe = load_any_recipe("nano/pretrain", [f"output={tmp_path}", *variant.overrides])
    assert isinstance(recipe, PretrainingRecipe)
