"""Recipes from TOML files, overridden from the command line as `key=value`."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch

from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.recipe import Recipe, Stage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Section = TypeVar("_Section")
_PRETRAINING = "pretrain"


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of the paper's stages, of low-rank tuning or of the segmenter's training.

    Args:
        source: Path of a TOML file, or the name of one that ships with the package, such as `nano/stage1`.
        overrides: `key=value` with a dotted key and a TOML value, such as `loop.max_steps=10`; a value that
            is no TOML is a string.

    Raises:
        FileNotFoundError: There is no such file or bundled recipe.
        ValueError: A key is unknown, or a value out of range, or the recipe is one of the dense pre-training.
    """
    recipe = load_any_recipe(source, overrides)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{str(source)!r} is a recipe of the stage {recipe.stage}, which has other settings")
    return recipe


def load_any_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe | PretrainingRecipe:
    """Read a recipe of any stage; arguments and errors as for `load_recipe`.

    A table `cpu` of a recipe replaces its settings where there is no GPU.
    """
    path = find_recipe(source)
    tree = read_toml(path)
    without_gpu = tree.pop("cpu", {})
    if not torch.cuda.is_available():
        _merge(tree, without_gpu)
    for override in overrides:
        _override(tree, override)
    tree["folder"] = str(path.parent)
    stages = (*get_args(Stage), _PRETRAINING)
    if tree.get("stage", _PRETRAINING) not in stages:
        raise ValueError(f"stage must be one of {stages}, got {tree['stage']!r}")
    if tree.get("stage") == _PRETRAINING:
        return _build(PretrainingRecipe, tree, "")
    return _build(Recipe, tree, "")


def find_recipe(source: str | Path) -> Path:
    """Return the file of a recipe given by path or bundled name.

    Raises:
        FileNotFoundError: There is none.
    """
    path = Path(source)
    if path.is_file():
        return path
    bundled = Path(str(resources.files("unipixel.train") / "recipes"))
    named = bundled / path if path.suffix == ".toml" else bundled / f"{source}.toml"
    if not named.is_file():
        known = sorted(str(file.relative_to(bundled).with_suffix("")) for file in bundled.glob("*/*.toml"))
        raise FileNotFoundError(f"no recipe {str(source)!r}: give the path of a TOML file or one of {known}")
    return named


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"an override is written key=value, got {override!r}")
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


def _build(kind: type[_Section], tree: Mapping[str, Any], where: str) -> _Section:
    """Make a dataclass of a TOML table, with its tables made into dataclasses in turn."""
    hints = typing.get_type_hints(kind)
    known = {entry.name: entry for entry in dataclasses.fields(typing.cast(Any, kind))}
    if unknown := sorted(set(tree) - set(known)):
        nearest = [difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0] for key in unknown]
        meant = ", ".join(f"{where}{key} (nearest: {where}{name})" for key, name in zip(unknown, nearest, strict=True))
        raise ValueError(f"unknown settings {meant}: allowed are {sorted(known)}")
    required = [
        name
        for name, entry in known.items()
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    if missing := [where + name for name in required if name not in tree]:
        raise ValueError(f"the recipe lacks {missing}")
    return kind(**{key: _value(hints[key], value, f"{where}{key}") for key, value in tree.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    options = [
        option
        for option in (get_args(hint) if isinstance(hint, types.UnionType) else (hint,))
        if option is not types.NoneType
    ]
    section = next((option for option in options if dataclasses.is_dataclass(option)), None)
    if section is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is a section, got {value!r}")
        return _build(typing.cast(Any, section), value, f"{where}.")
    origin = typing.get_origin(options[0])
    if origin is Literal:
        if value not in get_args(options[0]):
            raise ValueError(f"{where} must be one of {get_args(options[0])}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return tuple(value)
    if origin is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a table, got {value!r}")
        return value
    if options[0] is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, options[0]) or (options[0] is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be of type {options[0].__name__}, got {value!r}")
    return value
