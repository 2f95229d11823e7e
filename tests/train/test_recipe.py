"""Recipes: every bundled one is sound, overrides are typed, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipixel.train.recipe_files import find_recipe, load_any_recipe, load_recipe

BUNDLED = sorted(
    str(file.relative_to(file.parents[1]).with_suffix(""))
    for file in find_recipe("nano/stage1").parents[1].glob("*/*.toml")
    if file.stem != "sizes"
)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_recipe_is_sound_and_opens_with_its_command(name: str) -> None:
    load_any_recipe(name)
    first = find_recipe(name).read_text(encoding="utf-8").splitlines()[0]
    assert f"train {name}" in first


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_stage3_of_the_published_sizes_has_the_rates_of_the_paper(size: str) -> None:
    recipe = load_recipe(f"{size}/stage3")
    assert (recipe.loop.learning_rate, recipe.loop.sam2_learning_rate) == (2e-5, 5e-6)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout) == (128, 256, 0.1)
    assert (recipe.losses.focal, recipe.losses.dice, recipe.losses.iou, recipe.losses.score) == (100, 5, 5, 5)


def test_load_recipe_overrides_are_typed() -> None:
    recipe = load_recipe("nano/stage1", ["loop.max_steps=7", "loop.learning_rate=1", "output=runs/x", "lora.rank=4"])
    assert (recipe.loop.max_steps, recipe.loop.learning_rate, recipe.output) == (7, 1.0, "runs/x")
    assert recipe.lora is not None
    assert recipe.lora.rank == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.max_stepz=3", "unknown settings"),
        ("loop.max_steps=many", "must be of type int"),
        ("loop.max_steps=0", "at least 1"),
        ("loop.schedule=zigzag", "must be one of"),
        ("stage=stage4", "must be one of"),
        ("loop", "key=value"),
        ("seed.x=1", "not a section"),
        ("model.sam2=here", "belong together"),
    ],
)
def test_load_recipe_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("nano/stage2", [override])


def test_load_recipe_unknown_name_lists_the_bundled_ones() -> None:
    with pytest.raises(FileNotFoundError, match="nano/stage1"):
        load_recipe("nano/stage9")


def test_load_recipe_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("stage = ", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.toml"):
        load_recipe(file)
