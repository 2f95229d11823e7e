"""Configuration of small models from files of sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomllib

import unipixel.train.recipes
from unipixel.processing.chat_template import load_tokenizer
from unipixel.train.nano.model_config import check_sections, configure

SIZES = Path(unipixel.train.recipes.__file__).parent / "nano" / "sizes.toml"


@pytest.fixture
def sizes() -> dict[str, Any]:
    read: dict[str, Any] = tomllib.loads(SIZES.read_text(encoding="utf-8"))
    read.pop("memory", None)
    return read


def test_memory_settings_default_to_those_of_published_models(sizes: dict[str, Any]) -> None:
    config = configure(sizes, load_tokenizer())
    assert (config.memory_pool_weighting, config.memory_position_embedding) == ("uniform", False)


def test_memory_settings_are_read_from_their_table(sizes: dict[str, Any]) -> None:
    sizes["memory"] = {"pool_weighting": "coverage", "position_embedding": True}
    config = configure(sizes, load_tokenizer())
    assert (config.memory_pool_weighting, config.memory_position_embedding) == ("coverage", True)


def test_unknown_tables_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sizes file"):
        check_sections(sizes | {"colours": {}})
