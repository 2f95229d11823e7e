"""Reading of recipes from TOML files, with overrides `key=value`."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

from unipixel.session.question_file import read_text
from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.nano.segmenter.segmenter_recipe import SegmenterRecipe
from unipixel.train.recipe import Recipe, Stage
from unipixel.train.sail.sail_recipe import SailRecipe

try:
    from pydantic import TypeAdapter, ValidationError
except ImportError as error:
    raise ImportError("recipes need pydantic: install the extra `unipixel-agent[train]`") from error

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Recipe = TypeVar("_Recipe")
AnyRecipe = Recipe | SegmenterRecipe | PretrainingRecipe | SailRecipe
# Stages with settings of their own.
_OTHER_STAGES: dict[str, type[Any]] = {
    "segmenter": SegmenterRecipe,
    "pretrain": PretrainingRecipe,
    "sail": SailRecipe,
}


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of one of the paper's stages or of fine-tuning.

    Args:
        source: Path of a TOML file, or the name of one that ships with the package, such as `nano/stage1`.
        overrides: `key=value` with a dotted key and a TOML value, such as `training.max_steps=10`; a value that is
            not TOML is a string.

    Raises:
        FileNotFoundError: There is no such file or bundled recipe.
        ValueError: A key is unknown, a value is out of range, or the recipe is of a stage with other
            settings.
    """
    recipe = load_any_recipe(source, overrides)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{str(source)!r} is a recipe of the stage {recipe.stage}, which has other settings")
    return recipe


def load_any_recipe(source: str | Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe of any stage; arguments and errors as for `load_recipe`.

    The table `cpu` of a recipe replaces settings where there is no GPU.
    """
    path = find_recipe(source)
    tree = read_toml(path)
    without_gpu = tree.pop("cpu", {})
    import torch

    if not torch.cuda.is_available():
        _merge(tree, without_gpu)
    for override in overrides:
        _override(tree, override)
    tree["folder"] = str(path.parent)
    stages = (*get_args(Stage), *_OTHER_STAGES)
    stage = tree.get("stage")
    if stage is not None and stage not in stages:
        raise ValueError(f"stage must be one of {stages}, got {stage!r} (nearest: {nearest(str(stage), stages)})")
    return _validated(_OTHER_STAGES.get(str(stage), Recipe), tree)


def find_recipe(source: str | Path) -> Path:
    """Return the file of a recipe given by its path or bundled name.

    Raises:
        FileNotFoundError: There is no such file or bundled recipe.
    """
    path = Path(source)
    if path.is_file():
        return path
    bundled = _bundled_folder()
    named = bundled / path if path.suffix == ".toml" else bundled / f"{source}.toml"
    if not named.is_file():
        known = bundled_recipes()
        raise FileNotFoundError(
            f"no recipe {str(source)!r} (nearest: {nearest(str(source), known)}): "
            f"give the path of a TOML file or one of {known}"
        )
    return named


def bundled_recipes() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    folder = _bundled_folder()
    files = (file for file in folder.glob("*/*.toml") if file.stem != "sizes")
    return sorted(str(file.relative_to(folder).with_suffix("")) for file in files)


def _bundled_folder() -> Path:
    return Path(str(resources.files("unipixel.train") / "recipes"))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"an override must be key=value, got {override!r}")
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ValueError(f"override {override!r}: {section} is a value, not a section")
    try:
        tree[name] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        tree[name] = text


def _merge(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Replace values of a tree by those of another, table by table."""
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        else:
            tree[name] = value


def _validated(kind: type[_Recipe], tree: Mapping[str, Any]) -> _Recipe:
    """Make a recipe of a tree of TOML tables."""
    # JSON, because pydantic's strict mode takes a list for a tuple and a table for a dataclass only there.
    text = json.dumps(tree, default=str)
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise ValueError("; ".join(_described(kind, problem) for problem in error.errors())) from error


def _described(kind: type[Any], problem: Mapping[str, Any]) -> str:
    """Describe an error of pydantic in one line."""
    *sections, name = problem["loc"] or ("",)
    key = ".".join(map(str, (*sections, name)))
    if problem["type"] == "unexpected_keyword_argument":
        known = _setting_names(kind, sections)
        path = "".join(f"{section}." for section in sections)
        return f"unknown setting {key} (nearest: {path}{nearest(name, known)}): allowed are {known}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return f"the recipe lacks {key}"
    return f"{key}: {problem['msg']}, got {problem['input']!r}"


def _setting_names(kind: type[Any], sections: Sequence[Any]) -> list[str]:
    """Return the names of the settings in a section, given by the names of the sections that contain it."""
    for section in sections:
        hint = typing.get_type_hints(kind)[section]
        # A section may be optional: `LoraRecipe | None`.
        kind = next(option for option in (*get_args(hint), hint) if option is not type(None))
    return sorted(entry.name for entry in dataclasses.fields(kind))


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the most similar of some names."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
