"""Resumed runs repeat uninterrupted ones; invalid samples are logged and counted; learning rates of SAM 2.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import tiny_recipe
from torch import nn

from unipixel.train import trainer
from unipixel.train.build import prepare
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.recipe import Recipe
from unipixel.train.run_log import LOG_FILE, InvalidExampleCounter


def losses(recipe: Recipe) -> dict[int, float]:
    lines = (Path(recipe.output) / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


def take_steps(recipe: Recipe, *, stop_after: int | None = None) -> nn.Module:
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate, stop_after=stop_after)
    return job.objective


def test_run_stopped_and_resumed_has_the_same_losses_and_weights(training_checkpoint: Path, tmp_path: Path) -> None:
    steps = ("training.max_steps=4", "training.save_every=100", "lora.dropout=0.1")
    whole = tiny_recipe("stage3", training_checkpoint, tmp_path / "whole", *steps)
    stopped = tiny_recipe("stage3", training_checkpoint, tmp_path / "stopped", *steps)
    expected = take_steps(whole)
    take_steps(stopped, stop_after=2)
    resumed = take_steps(stopped)
    assert losses(stopped) == losses(whole)
    for (name, one), other in zip(expected.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_invalid_samples_are_logged_and_stop_the_run_above_the_fraction(caplog: pytest.LogCaptureFixture) -> None:
    counter = InvalidExampleCounter(max_fraction=0.1, min_samples=10)
    invalid = [InvalidExample("clips/7", "no mask")]
    counter.add(invalid, num_samples=20)
    assert "clips/7" in caplog.text
    with pytest.raises(ValueError, match=r"3 of 28 samples are invalid.*clips/7"):
        counter.add(invalid * 2, num_samples=8)


def test_sam2_learning_rate_applies_to_sam2_alone(training_checkpoint: Path, tmp_path: Path) -> None:
    rates = ("training.sam2_learning_rate=1e-6", "training.learning_rate=1e-4")
    recipe = tiny_recipe("stage3", training_checkpoint, tmp_path, *rates)
    job = prepare(recipe)
    run = trainer.build(recipe, job.objective, job.dataset, job.collate)
    names = {id(parameter): name for name, parameter in job.objective.named_parameters()}
    for group in run.create_optimizer().param_groups:
        is_sam = {names[id(parameter)].startswith("model.sam2.") for parameter in group["params"]}
        assert is_sam == {group["lr"] == 1e-6}
