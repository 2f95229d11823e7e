"""Several processes take the same steps as one process with the same batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.launched_training import assert_same_run, resume_copy, train
from helpers.sail_sizes import TINY_SAIL_SIZES
from helpers.tiny_training import save_training_checkpoint, tiny_recipe
from torch import Tensor

from unipixel.cli import main
from unipixel.model.unipixel import UniPixel
from unipixel.train.build import TrainingRun, prepare
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.nano.dense_training import train_dense
from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.recipe_files import load_any_recipe

# Dropout draws from the random state of each process, so that only runs without it can be equal.
COMMON = (
    "training.log_every=1", "training.max_steps=3", "training.save_every=1", "training.max_checkpoints=3",
    "training.warmup_fraction=0.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_training_checkpoint(tmp_path_factory.mktemp("start"), has_dropout=False)


def gradients(job: TrainingRun, indices: range, *, invalid: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """Return the gradients of the loss of some samples, of which some are replaced by invalid ones."""
    examples = [InvalidExample(str(i), "removed") if i in invalid else job.dataset[i] for i in indices]
    job.objective.zero_grad()
    job.objective(**job.collate(examples))["loss"].backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in job.objective.named_parameters()
        if parameter.requires_grad
    }


def assert_halves_average_to_the_whole(job: TrainingRun, batches: Iterator[int], *, invalid: tuple[int, ...]) -> None:
    for batch in batches:
        starts = range(4 * batch, 4 * batch + 4)
        whole = gradients(job, starts, invalid=invalid)
        first, second = gradients(job, starts[:2], invalid=invalid), gradients(job, starts[2:], invalid=invalid)
        assert any(gradient.any() for gradient in whole.values())
        for name, gradient in whole.items():
            torch.testing.assert_close((first[name] + second[name]) / 2, gradient, rtol=1e-3, atol=1e-4)


def test_gradients_of_both_halves_of_a_batch_average_to_those_of_the_batch(start: Path, tmp_path: Path) -> None:
    settings = ("training.batch_size=4", "training.max_steps=4", "lora.dropout=0.0", "data.single_frame_fraction=0.5")
    job = prepare(tiny_recipe("stage3", start, tmp_path, "model.extra_checkpoints=[]", *settings))
    # Of the first half of the first batch no sample is valid, of the second one.
    assert_halves_average_to_the_whole(job, iter(range(4)), invalid=(0, 1, 2))


def test_pretraining_in_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = load_any_recipe("nano/pretrain", [f"output={tmp_path}"])
    assert isinstance(recipe, PretrainingRecipe)
    with pytest.raises(ValueError, match="trains in one process, got 2: start it without torchrun"):
        train_dense(recipe)


def stage_settings(start: Path, *settings: str) -> tuple[str, ...]:
    tiny = (f"model.checkpoint={start}", "data.render_size=48", "data.num_frames=4")
    return (*COMMON, *tiny, *settings)


def assert_two_processes_equal_one(folder: Path, recipe: str, *settings: str) -> tuple[Path, Path]:
    one, two = folder / "one", folder / "two"
    train(recipe, *settings, "training.batch_size=4", output=one)
    printed = train(recipe, *settings, "training.batch_size=2", num_processes=2, output=two)
    assert printed.count("wrote") == 1
    assert_same_run(one, two, num_steps=3)
    return one, two


@pytest.mark.slow
def test_two_processes_of_stage3_take_the_steps_of_one_and_resume_each_other(start: Path, tmp_path: Path) -> None:
    settings = stage_settings(start, "model.extra_checkpoints=[]", "lora.dropout=0.0")
    one, two = assert_two_processes_equal_one(tmp_path, "nano/stage3", *settings)
    resume_copy(one, tmp_path / "one-two", step=1)
    train("nano/stage3", *settings, "training.batch_size=2", num_processes=2, output=tmp_path / "one-two")
    assert_same_run(one, tmp_path / "one-two", num_steps=3, first_step=2)
    resume_copy(two, tmp_path / "two-one", step=1)
    train("nano/stage3", *settings, "training.batch_size=4", output=tmp_path / "two-one")
    assert_same_run(one, tmp_path / "two-one", num_steps=3, first_step=2)


@pytest.mark.slow
def test_two_processes_with_fsdp_take_the_steps_of_one_and_resume(start: Path, tmp_path: Path) -> None:
    settings = stage_settings(start, "model.extra_checkpoints=[]", "lora.dropout=0.0")
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    train("nano/stage3", *settings, "training.batch_size=4", output=one)
    sharded = (*settings, "training.batch_size=2", "training.sharding=fsdp2")
    train("nano/stage3", *sharded, num_processes=2, output=two)
    assert_same_run(one, two, num_steps=3)
    resume_copy(two, resumed, step=1)
    train("nano/stage3", *sharded, num_processes=2, output=resumed)
    assert_same_run(one, resumed, num_steps=3, first_step=2)
    expected, found = (UniPixel.from_pretrained(folder / "final").state_dict() for folder in (one, two))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_two_processes_fine_tune_on_a_data_set_as_one(start: Path, tmp_path: Path) -> None:
    assert main(["synth", "--data", str(tmp_path / "data"), "--show", "5", "--size", "64", "--frames", "4"]) == 0
    settings = stage_settings(start, f"data.path={tmp_path / 'data' / 'data.jsonl'}", "lora.dropout=0.0")
    assert_two_processes_equal_one(tmp_path, "nano/finetune", *settings)


@pytest.mark.slow
def test_a_process_without_a_valid_sample_takes_the_steps_of_fsdp(start: Path, tmp_path: Path) -> None:
    assert main(["synth", "--data", str(tmp_path / "data"), "--show", "3", "--size", "64", "--frames", "4"]) == 0
    data = tmp_path / "data" / "data.jsonl"
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    lines[0]["clip"] = "missing"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = stage_settings(
        start, f"data.path={data}", "lora.dropout=0.0", "training.precision=bfloat16",
        "training.gradient_checkpointing=true",
    )  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    train("nano/finetune", *settings, "training.batch_size=2", output=one)
    sharded = ("training.batch_size=1", "training.sharding=fsdp2")
    assert "invalid sample" in train("nano/finetune", *settings, *sharded, num_processes=2, output=two)
    assert_same_run(one, two, num_steps=3, tolerance=1e-4)


@pytest.mark.slow
def test_two_processes_train_pixel_sail_as_one(tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.toml"
    sizes.write_text(TINY_SAIL_SIZES, encoding="utf-8")
    tiny = (f"model.sizes={sizes}", "data.sizes=[[64, 96]]", "training.num_workers=0")
    # Muon takes its steps in bfloat16, in which rounding is visible.
    exact = ("training.precision=float32", "training.optimizer=adamw")
    assert_two_processes_equal_one(tmp_path, "sail/nano", *COMMON, *tiny, *exact)
