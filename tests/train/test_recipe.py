"""Recipes: the bundled ones are valid, overrides are typed, and errors name the nearest alternative."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipixel.train.recipe_files import bundled_recipes, find_recipe, load_any_recipe, load_recipe


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipe_is_valid_and_starts_with_its_command(name: str) -> None:
    load_any_recipe(name)
    first = find_recipe(name).read_text(encoding="utf-8").splitlines()[0]
    assert f"train {name}" in first


@pytest.mark.parametrize("size", ["nano", "3b", "7b"])
def test_every_size_has_the_stages_of_the_paper_and_finetune(size: str) -> None:
    assert {f"{size}/{stage}" for stage in ("stage1", "stage2", "stage3", "finetune")} <= set(bundled_recipes())


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_stage3_of_the_published_sizes_has_the_settings_of_the_paper(size: str) -> None:
    recipe = load_recipe(f"{size}/stage3")
    assert (recipe.training.learning_rate, recipe.training.sam2_learning_rate) == (2e-5, 5e-6)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout) == (128, 256, 0.1)
    assert (recipe.losses.focal, recipe.losses.dice, recipe.losses.iou, recipe.losses.score) == (100, 5, 5, 5)


def test_load_recipe_overrides_are_typed() -> None:
    overrides = ["training.max_steps=7", "training.learning_rate=1", "output=runs/x", "lora.rank=4"]
    recipe = load_recipe("nano/stage1", [*overrides, 'model.extra_checkpoints=["a", "b"]'])
    assert (recipe.training.max_steps, recipe.training.learning_rate, recipe.output) == (7, 1.0, "runs/x")
    assert recipe.model.extra_checkpoints == ("a", "b")
    assert recipe.lora is not None
    assert recipe.lora.rank == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_stepz=3", r"unknown setting training\.max_stepz \(nearest: training\.max_steps\): allowed are"),
        ("trainin.max_steps=3", r"unknown setting trainin \(nearest: training\)"),
        ("training.max_steps=many", r"training\.max_steps: .*integer.*'many'"),
        ("training.max_steps=true", r"training\.max_steps: .*integer.*True"),
        ("training.max_steps=0", "at least 1"),
        ("training.learning_rate_schedule=zigzag", "'cosine', 'linear' or 'constant'.*'zigzag'"),
        ("stage=stage4", r"must be one of .* got 'stage4' \(nearest: stage3\)"),
        ("training", "must be key=value"),
        ("training=3", "training: .*got 3"),
        ("seed.x=1", "not a section"),
        ("model.sam2=here", "belong together"),
        ("losses.focal=-1", r"\[losses\] focal must not be negative"),
    ],
)
def test_load_recipe_wrong_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("nano/stage2", [override])


def test_load_recipe_without_a_required_setting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('stage = "stage1"\noutput = "x"\n[model]\n[data]\ntasks = { all = 1 }\n[training]\n', "utf-8")
    with pytest.raises(ValueError, match=r"the recipe lacks training\.max_steps"):
        load_recipe(file)


def test_load_recipe_unknown_name_lists_the_bundled_ones_and_the_nearest() -> None:
    with pytest.raises(FileNotFoundError, match=r"'nano/finetun' \(nearest: nano/finetune\).*nano/stage1"):
        load_recipe("nano/finetun")


def test_load_recipe_invalid_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("stage = ", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.toml is not valid TOML"):
        load_recipe(file)


def test_load_recipe_unknown_key_of_an_optional_section_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lora\.rang \(nearest: lora\.rank\)"):
        load_recipe("nano/stage3", ["lora.rang=3"])
