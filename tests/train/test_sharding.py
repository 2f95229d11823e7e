"""The configurations of FSDP and DeepSpeed are what transformers and accelerate read, and name layers that exist."""

from __future__ import annotations

import importlib.util
from pathlib import Path

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
    assert bundled_shardings() == ["fsdp2", "zero2", "zero2_offload", "zero3"]
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


@pytest.mark.parametrize(
    ("name", "stage", "offload"), [("zero2", 2, set()), ("zero2_offload", 2, {"cpu"}), ("zero3", 3, set())]
)
def test_deepspeed_configurations_are_read_by_accelerate(name: str, stage: int, offload: set[str]) -> None:
    config = HfDeepSpeedConfig(read_sharding(name))
    assert (config.is_zero2(), config.is_zero3()) == (stage == 2, stage == 3)
    assert set(config.config["zero_optimization"].get("offload_optimizer", {}).values()) & {"cpu"} == offload
    assert config.get_value("train_micro_batch_size_per_gpu") == "auto"


def test_deepspeed_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ImportError, match=r"training\.sharding=zero3 needs DeepSpeed: python -m pip install deepspeed"):
        sharding_arguments("zero3")


def test_unknown_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training\.sharding must be one of ddp, fsdp2, zero2.*got 'fsdp'"):
        sharding_arguments("fsdp")
    for text, message in (("{", "is not JSON"), ("[]", "must contain a JSON object, got list")):
        (tmp_path / "own.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            sharding_arguments(str(tmp_path / "own.json"))


@pytest.mark.parametrize("setting", ["training.optimizer=muon", "training.validate_every=10"])
def test_settings_that_need_whole_weights_are_refused_with_sharding(setting: str) -> None:
    with pytest.raises(ValueError, match=r"needs whole weights: set sharding ddp, got fsdp2"):
        load_any_recipe("nano/finetune", ["training.sharding=fsdp2", setting])
