"""A run that is killed goes on as if nothing had happened; broken samples are named and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import save_training_checkpoint, tiny_recipe
from torch import nn

from unipixel.train import trainer
from unipixel.train.build import prepare
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.recipe import Recipe
from unipixel.train.run_log import LOG_FILE, InvalidExampleCounter


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_training_checkpoint(tmp_path_factory.mktemp("tiny"))


def losses(recipe: Recipe) -> dict[int, float]:
    lines = (Path(recipe.output) / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


def take_steps(recipe: Recipe, *, stop_after: int | None = None) -> nn.Module:
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate, stop_after=stop_after)
    return job.objective


def test_run_killed_and_resumed_has_the_same_loss_curve(checkpoint: Path, tmp_path: Path) -> None:
    steps = ("training.max_steps=4", "training.save_every=100", "lora.dropout=0.1")
    whole = tiny_recipe("stage3", checkpoint, tmp_path / "whole", *steps)
    broken = tiny_recipe("stage3", checkpoint, tmp_path / "broken", *steps)
    expected = take_steps(whole)
    take_steps(broken, stop_after=2)
    resumed = take_steps(broken)
    assert losses(broken) == losses(whole)
    for (name, one), other in zip(expected.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_broken_count_names_samples_and_stops_beyond_the_share(caplog: pytest.LogCaptureFixture) -> None:
    count = InvalidExampleCounter(max_fraction=0.1, min_samples=10)
    broken = [InvalidExample("clips/7", "no mask")]
    count.add(broken, num_taken=20)
    assert "clips/7" in caplog.text
    with pytest.raises(ValueError, match=r"3 of 28 samples are broken.*clips/7"):
        count.add(broken * 2, num_taken=8)


def test_rates_sam_has_its_own(checkpoint: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("stage3", checkpoint, tmp_path, "loop.sam2_learning_rate=1e-6", "training.learning_rate=1e-4")
    job = prepare(recipe)
    run = trainer.build(recipe, job.objective, job.dataset, job.collate)
    names = {id(parameter): name for name, parameter in job.objective.named_parameters()}
    for group in run.create_optimizer().param_groups:
        is_sam = {names[id(parameter)].startswith("model.sam2.") for parameter in group["params"]}
        assert is_sam == {group["lr"] == 1e-6}
