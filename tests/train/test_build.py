"""One step of each stage changes exactly the parameters that it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_training import tiny_recipe
from safetensors.torch import load_file

from unipixel.checkpoints.tensor_layout import PARTIAL_FILE, to_disk_name
from unipixel.model.unipixel import UniPixel
from unipixel.train import trainer
from unipixel.train.build import TrainingRun, prepare
from unipixel.train.objective import UniPixelObjective
from unipixel.train.parameter_groups import lora_targets


def model_of(job: TrainingRun) -> UniPixel:
    assert isinstance(job.objective, UniPixelObjective)
    return job.objective.model


def changed_parts(training_checkpoint: Path, output: Path, stage: str, *overrides: str) -> set[str]:
    before = UniPixel.from_pretrained(training_checkpoint, dtype=torch.float32)
    recipe = tiny_recipe(stage, training_checkpoint, output, *overrides)
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    job.save(output / "final")
    after = model_of(job).state_dict()
    return {
        ".".join(name.split(".")[:2])
        for name, tensor in before.state_dict().items()
        if not torch.equal(tensor, after[name])
    }


def test_stage1_changes_only_the_prompt_projectors(training_checkpoint: Path, tmp_path: Path) -> None:
    changed = changed_parts(training_checkpoint, tmp_path, "stage1", "training.batch_size=8")
    assert changed == {
        "prompt_encoder.ref_proj",
        "prompt_encoder.ref_proj_double",
        "prompt_encoder.ref_proj_single",
        "prompt_encoder.tem_emb",
        "prompt_encoder.tem_proj",
    }
    assert (tmp_path / "final" / "pytorch_model.safetensors").is_file()


def test_stage2_changes_only_the_mask_head_and_stage3_starts_from_it(training_checkpoint: Path, tmp_path: Path) -> None:
    changed = changed_parts(training_checkpoint, tmp_path / "two", "stage2", "training.batch_size=6")
    assert changed == {f"seg_head.{layer}" for layer in (0, 1, 3)}
    folder = tmp_path / "two" / "final"
    partial = f'model.extra_checkpoints=["{folder}"]'
    later = prepare(tiny_recipe("stage3", training_checkpoint, tmp_path / "three", partial))
    trained = load_file(folder / PARTIAL_FILE)
    for name, tensor in model_of(later).seg_head.state_dict().items():
        assert torch.equal(tensor, trained[to_disk_name(f"seg_head.{name}")])


def test_stage3_writes_a_merged_checkpoint_that_loads(training_checkpoint: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("stage3", training_checkpoint, tmp_path, "training.max_steps=2")
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    job.save(tmp_path / "final")
    merged = UniPixel.from_pretrained(tmp_path / "final", dtype=torch.float32)
    before = UniPixel.from_pretrained(training_checkpoint, dtype=torch.float32).state_dict()
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {f"{name}.weight" for name in lora_targets(merged)} <= changed
    assert (tmp_path / "final" / "adapter" / "adapter_config.json").is_file()


def test_gradient_checkpointing_gives_the_same_loss(training_checkpoint: Path, tmp_path: Path) -> None:
    figures = []
    for setting in ("true", "false"):
        recipe = tiny_recipe(
            "stage2",
            training_checkpoint,
            tmp_path,
            f"training.gradient_checkpointing={setting}",
            "training.batch_size=4",
        )
        job = prepare(recipe)
        batch = job.collate([job.dataset[index] for index in range(4)])
        loss = job.objective(**batch)["loss"]
        loss.backward()
        gradient = model_of(job).seg_head.get_parameter("1.weight").grad
        assert gradient is not None
        figures.append((loss.item(), gradient.norm().item()))
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
