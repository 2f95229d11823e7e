"""The configurations of FSDP and DeepSpeed are what transformers and accelerate read, and name layers that exist."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from helpers.sail_model import recorded_sail
from torch import nn
from transformers import TrainingArguments

from unipixel.model.unipixel import UniPixel
from unipixel.train import sharding
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.sharding import bundled_shardings, read_sharding, sharding_arguments


def test_bundled_configurations_are_those_that_the_recipes_describe() -> None:
    assert bundled_shardings() == ["fsdp2", "zero2", "zero2_offload"]
    assert sharding_arguments("ddp") == {}


def test_fsdp_of_one_process_is_left_out() -> None:
    assert sharding_arguments("fsdp2") == {}


def test_fsdp_is_read_by_transformers_and_accelerate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sharding, "num_processes", lambda: 2)
    given = sharding_arguments("fsdp2")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **given)
    plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.transformer_cls_names_to_wrap == ["Qwen2_5_VLDecoderLayer"]
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)


def test_layers_of_both_models_are_those_that_fsdp_wraps(model: UniPixel) -> None:
    (wrapped,) = read_sharding("fsdp2")["transformer_layer_cls_to_wrap"]

    def num_layers(module: nn.Module) -> int:
        return sum(type(layer).__name__ == wrapped for layer in module.modules())

    assert num_layers(model) == model.config.qwen.text_config.num_hidden_layers
    sail = recorded_sail()[0]
    assert num_layers(sail) == sail.config.text.num_hidden_layers


@pytest.mark.parametrize(("name", "is_offloaded"), [("zero2", False), ("zero2_offload", True)])
def test_deepspeed_configurations_are_read_by_accelerate(name: str, is_offloaded: bool) -> None:
    config = HfDeepSpeedConfig(read_sharding(name))
    assert config.is_zero2()
    assert config.is_offload() == is_offloaded
    assert config.get_value("train_micro_batch_size_per_gpu") == "auto"


def test_deepspeed_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ImportError, match=r"training\.sharding=zero2 needs DeepSpeed: python -m pip install deepspeed"):
        sharding_arguments("zero2")


def test_unknown_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training\.sharding must be one of ddp, fsdp2, zero2.*got 'fsdp'"):
        sharding_arguments("fsdp")
    for text, message in (("{", "is not JSON"), ("[]", "must contain a JSON object, got list")):
        (tmp_path / "own.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            sharding_arguments(str(tmp_path / "own.json"))


def test_stage_3_of_deepspeed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "zero3.json"
    file.write_text('{"zero_optimization": {"stage": 3}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"stage must be 0, 1 or 2, because stage 3 divides the weights: take fsdp2"):
        sharding_arguments(str(file))


@pytest.mark.parametrize("setting", ["training.optimizer=muon", "training.validate_every=10"])
def test_settings_that_need_whole_weights_are_refused_with_sharding(setting: str) -> None:
    with pytest.raises(ValueError, match=r"needs whole weights: set sharding ddp, got fsdp2"):
        load_any_recipe("nano/finetune", ["training.sharding=fsdp2", setting])


def test_page_has_the_tables_that_its_program_writes() -> None:
    memory = load_memory_tables()
    page = memory.PAGE.read_text(encoding="utf-8")
    assert page == memory.page_with_section(page), "run `python docs/make_memory_tables.py`"


@pytest.mark.slow
def test_bytes_for_the_backward_pass_are_those_of_one_layer() -> None:
    memory = load_memory_tables()
    for size, expected in memory.TOKEN_BYTES.items():
        assert memory.measure_language(size) == pytest.approx(expected, rel=0.01)
    assert memory.measure_vision() == pytest.approx(memory.PATCH_BYTES, rel=0.01)
    assert memory.measure_segmenter() == pytest.approx(memory.FRAME_BYTES, rel=0.01)


def load_memory_tables() -> Any:
    path = Path(__file__).parents[2] / "docs/make_memory_tables.py"
    specification = importlib.util.spec_from_file_location("make_memory_tables", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up.
    sys.modules["make_memory_tables"] = module
    specification.loader.exec_module(module)
    return module
