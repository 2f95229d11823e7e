"""Checkpoints: layouts, round trips, and what is refused."""

# mypy: disable-error-code="union-attr, operator, arg-type, assignment"

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.weights import GOLDEN, tiny_config, tiny_model, tiny_segmenter_config
from safetensors.torch import load_file, save_file

from unipixel.checkpoints.files import resolve
from unipixel.checkpoints.segmenters import load_segmenter
from unipixel.checkpoints.tensor_layout import CheckpointError, from_disk_name, to_disk_name
from unipixel.model.config import UniPixelConfig
from unipixel.model.inputs import ModelInputs
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.config import SegmenterConfig


@pytest.fixture
def folder(tmp_path: Path, recorded_model: UniPixel) -> Path:
    recorded_model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


class TestRoundTrip:
    def test_tensors_are_bit_equal_and_named_as_published(self, folder: Path, recorded_model: UniPixel) -> None:
        loaded = UniPixel.from_pretrained(folder)
        _assert_same_tensors(loaded, recorded_model)
        names = set(load_file(folder / "model.safetensors"))
        assert {"model.embed_tokens.weight", "visual.merger.ln_q.weight", "lm_head.weight"} <= names
        assert "sam2.memory_encoder.fuser.layers.0.weight" in names
        assert "ref_encoder.pe_layer.positional_encoding_gaussian_matrix" in names
        assert "tem_pe.positional_encoding_gaussian_matrix" in names

    def test_config_keeps_the_published_fields(self, folder: Path) -> None:
        published = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
        assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == published

    def test_sharded_checkpoint_equals_a_single_one(self, tmp_path: Path, recorded_model: UniPixel) -> None:
        recorded_model.save_pretrained(tmp_path, max_shard_size="2MB")
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
        _assert_same_tensors(UniPixel.from_pretrained(tmp_path), recorded_model)

    def test_saving_over_shards_leaves_none_behind(self, tmp_path: Path, recorded_model: UniPixel) -> None:
        recorded_model.save_pretrained(tmp_path, max_shard_size="2MB")
        recorded_model.save_pretrained(tmp_path)
        assert [file.name for file in tmp_path.glob("model*")] == ["model.safetensors"]
        _assert_same_tensors(UniPixel.from_pretrained(tmp_path), recorded_model)

    def test_tied_head_is_not_written_and_stays_tied(self, tmp_path: Path) -> None:
        config = tiny_config()
        config.qwen.tie_word_embeddings = True
        tied = tiny_model(replace(config, extra={**config.extra, "tie_word_embeddings": True}))
        tied.save_pretrained(tmp_path)
        assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
        loaded = UniPixel.from_pretrained(tmp_path)
        assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
        _assert_same_tensors(loaded, tied)

    def test_current_transformers_layout_is_read(self, folder: Path, recorded_model: UniPixel) -> None:
        file = folder / "model.safetensors"
        save_file({_reference_name(name): tensor for name, tensor in load_file(file).items()}, file)
        _assert_same_tensors(UniPixel.from_pretrained(folder), recorded_model)

    def test_every_name_maps_there_and_back(self, recorded_model: UniPixel) -> None:
        names = list(recorded_model.state_dict())
        assert [from_disk_name(to_disk_name(name)) for name in names] == names
        assert len({to_disk_name(name) for name in names}) == len(names)

    def test_raster_order_is_part_of_the_configuration(self, tmp_path: Path) -> None:
        tiny_model(replace(tiny_config(), memory_pool_order="raster")).save_pretrained(tmp_path)
        assert UniPixel.from_pretrained(tmp_path).config.memory_pool_order == "raster"

    def test_configuration_made_from_sizes_round_trips(self, tmp_path: Path) -> None:
        config = replace(tiny_config(), extra={}, eos_token_ids=(2, 7))
        tiny_model(config).save_pretrained(tmp_path)
        loaded = UniPixel.from_pretrained(tmp_path).config
        assert loaded.eos_token_ids == (2, 7)
        assert loaded.segmenter == config.segmenter
        assert loaded.qwen.text_config.to_dict() == config.qwen.text_config.to_dict()
        # Where transformers 4, and so the published code, looks up the rotary sections.
        fields = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
        assert fields["text_config"]["rope_scaling"]["mrope_section"] == [2, 3, 3]

    def test_segmenter_loads_alone(self, folder: Path, recorded_model: UniPixel) -> None:
        alone, whole = load_segmenter(folder).state_dict(), recorded_model.sam2.state_dict()
        assert alone.keys() == whole.keys()
        assert all(torch.equal(alone[name], whole[name]) for name in whole)


class TestLoading:
    def test_dtype_reaches_the_language_model_only(self, folder: Path) -> None:
        loaded = UniPixel.from_pretrained(folder, dtype=torch.bfloat16)
        assert loaded.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in loaded.sam2.parameters()} == {torch.float32}
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}

    @pytest.mark.parametrize("kind", ["4bit", "8bit"])
    def test_quantised_language_model_stays_close(self, folder: Path, recorded_model: UniPixel, kind: Any) -> None:
        inputs = ModelInputs(torch.arange(20, 40)[None])
        quantised = UniPixel.from_pretrained(folder, quantization=kind)
        assert quantised.model.language_model.layers[0].mlp.up_proj.weight.dtype in (torch.uint8, torch.int8)
        with torch.no_grad():
            similarity = torch.nn.functional.cosine_similarity(
                quantised(inputs).logits.float(), recorded_model(inputs).logits, dim=-1
            )
        assert similarity.mean() > (0.9 if kind == "4bit" else 0.99)

    def test_unknown_quantisation_is_refused(self, folder: Path) -> None:
        options: dict[str, Any] = {"quantization": "2bit"}
        with pytest.raises(ValueError, match="quantization must be one of"):
            UniPixel.from_pretrained(folder, **options)

    def test_custom_sam_without_its_sizes_is_refused(self, folder: Path) -> None:
        (folder / "sam2_config.json").unlink()
        with pytest.raises(ValueError, match=r"unknown SAM 2.1 size 'configs/sam2.1_hiera_nano'"):
            UniPixel.from_pretrained(folder)
        assert UniPixel.from_pretrained(folder, sam2_config=tiny_segmenter_config())


class TestRefusals:
    def test_missing_unexpected_and_misshaped_tensors_are_listed(self, folder: Path) -> None:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        del tensors["seg_head.1.bias"]
        tensors["seg_head.9.bias"] = torch.zeros(1)
        tensors["model.norm.weight"] = torch.zeros(65)
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match=r"1 missing: seg_head\.1\.bias") as error:
            UniPixel.from_pretrained(folder)
        assert "1 unexpected: seg_head.9.bias" in str(error.value)
        assert "model.norm.weight is (65,), expected (64,)" in str(error.value)

    def test_wrong_hidden_size_is_refused_with_both_shapes(self, folder: Path) -> None:
        def edit(fields: dict[str, Any]) -> None:
            fields["text_config"].update(intermediate_size=96)
            fields["intermediate_size"] = 96

        _edit_config(folder, edit)
        with pytest.raises(CheckpointError, match=r"gate_proj.weight is \(128, 64\), expected \(96, 64\)"):
            UniPixel.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("section", "name", "value", "message"),
        [
            ("text_config", "hidden_size", "big", "hidden_size = 'big': it must be an integer in"),
            ("text_config", "num_attention_heads", 0, "num_attention_heads = 0: it must be an integer in"),
            ("text_config", "vocab_size", 10**12, "vocab_size = 1000000000000: it must be an integer in"),
            ("text_config", "num_hidden_layers", -1, "num_hidden_layers = -1: it must be an integer in"),
            ("text_config", "num_attention_heads", 5, "num_attention_heads = 5 does not divide"),
            ("vision_config", "depth", True, "vision_config.depth = True: it must be an integer in"),
            ("vision_config", "num_heads", 0, "vision_config.num_heads = 0: it must be an integer in"),
            ("vision_config", "fullatt_block_indexes", [99], "full attention in block 99"),
            ("vision_config", "tokens_per_second", "2", "tokens_per_second = '2'"),
            (None, "seg_token_id", "265", "seg_token_id = '265'"),
            (None, "sam2_hidden_tokens", 0, "sam2_hidden_tokens = 0"),
            (None, "sam2_config", 5, "sam2_config = 5"),
            (None, "text_config", [], "text_config = "),
            (None, "eos_token_id", {"id": 1}, "eos_token_id must be a token id"),
        ],
    )
    def test_nonsense_in_the_configuration_is_named(
        self, folder: Path, section: str | None, name: str, value: Any, message: str
    ) -> None:
        def edit(fields: dict[str, Any]) -> None:
            (fields if section is None else fields[section])[name] = value
            if section == "text_config" and name in fields:
                fields[name] = value

        _edit_config(folder, edit)
        (folder / "generation_config.json").unlink(missing_ok=True)
        with pytest.raises(ValueError, match=re.escape(message)):
            UniPixel.from_pretrained(folder)

    def test_contradiction_between_top_level_and_text_config_is_named(self, folder: Path) -> None:
        _edit_config(folder, lambda fields: fields.update(hidden_size=128))
        with pytest.raises(ValueError, match="hidden_size = 128 at its top level and 64 in text_config"):
            UniPixel.from_pretrained(folder)

    @pytest.mark.parametrize("name", ["", " "])
    def test_empty_name_is_refused(self, name: str) -> None:
        with pytest.raises(FileNotFoundError, match="name of the checkpoint is empty"):
            UniPixel.from_pretrained(name)

    def test_missing_folder_is_not_looked_for_on_the_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "runs").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match="no checkpoint 'runs/final'"):
            UniPixel.from_pretrained("runs/final")

    def test_earlier_layout_is_refused_in_one_line(self, folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file({f"module.{name}": tensor for name, tensor in load_file(file).items()}, file)
        with pytest.raises(CheckpointError, match=r"checkpoint of another or earlier layout: .*module\.") as error:
            UniPixel.from_pretrained(folder)
        assert len(str(error.value)) < 400
        assert "\n" not in str(error.value)

    def test_truncated_file_is_refused(self, folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:100_000])
        with pytest.raises(OSError, match=r"model.safetensors is not a complete safetensors file"):
            UniPixel.from_pretrained(folder)

    def test_missing_shard_is_refused(self, tmp_path: Path, recorded_model: UniPixel) -> None:
        recorded_model.save_pretrained(tmp_path, max_shard_size="2MB")
        sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
        with pytest.raises(FileNotFoundError, match=r"model-00002-of-\d+.safetensors is missing"):
            UniPixel.from_pretrained(tmp_path)

    def test_index_that_leaves_the_folder_is_refused(self, tmp_path: Path, recorded_model: UniPixel) -> None:
        recorded_model.save_pretrained(tmp_path, max_shard_size="2MB")
        index = tmp_path / "model.safetensors.index.json"
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
        index.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(OSError, match="outside its folder"):
            UniPixel.from_pretrained(tmp_path)

    def test_index_without_a_weight_map_is_refused(self, folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
        with pytest.raises(OSError, match="has no weight_map"):
            UniPixel.from_pretrained(folder)

    def test_pickles_are_refused_unread(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb()))
        with pytest.raises(OSError, match=r"contains pickles only \(pytorch_model.bin\)"):
            UniPixel.from_pretrained(folder)

    def test_remote_code_is_refused(self, folder: Path) -> None:
        _edit_config(folder, lambda fields: fields.update(auto_map={"AutoModel": "modeling.Evil"}))
        with pytest.raises(ValueError, match="remote code"):
            UniPixel.from_pretrained(folder)

    def test_plain_qwen_points_to_from_base(self, folder: Path) -> None:
        _edit_config(folder, lambda fields: fields.update(model_type="qwen2_5_vl"))
        with pytest.raises(ValueError, match=r"UniPixel\.from_base"):
            UniPixel.from_pretrained(folder)

    @pytest.mark.parametrize("name", ["seg_token_id", "sam2_config", "sam2_image_size"])
    def test_incomplete_configuration_is_refused(self, folder: Path, name: str) -> None:
        _edit_config(folder, lambda fields: fields.pop(name))
        with pytest.raises(ValueError, match=f"config.json lacks .*{name}"):
            UniPixel.from_pretrained(folder)

    def test_missing_folder_names_what_is_allowed(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="give a folder, a hub id"):
            resolve(tmp_path / "nowhere")

    def test_hub_without_network_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(OSError, match=r"no folder 'nobody/nothing', and .* not be downloaded .* give a folder"):
            resolve("nobody/nothing")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
    def test_missing_gpu_is_refused_with_the_alternative(self, folder: Path) -> None:
        with pytest.raises(ValueError, match=r"'cuda' is not available, .* use the device cpu"):
            UniPixel.from_pretrained(folder, device="cuda")

    def test_unknown_device_is_refused(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="'tpu7' is unknown"):
            UniPixel.from_pretrained(folder, device="tpu7")

    def test_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
            UniPixel.from_pretrained(tmp_path)

    def test_invalid_json_is_refused(self, folder: Path) -> None:
        (folder / "config.json").write_text("{", encoding="utf-8")
        with pytest.raises(OSError, match="is not valid JSON"):
            UniPixel.from_pretrained(folder)


class TestConfig:
    def test_token_outside_the_vocabulary_is_refused(self) -> None:
        with pytest.raises(ValueError, match="seg_token_id = 1000 is outside the vocabulary of 1000"):
            replace(tiny_config(), seg_token_id=1000)

    def test_generation_config_goes_before_config(self) -> None:
        fields = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
        config = UniPixelConfig.from_dict(
            fields, segmenter=tiny_segmenter_config(), generation={"eos_token_id": [5, 6]}
        )
        assert config.eos_token_ids == (5, 6)
        assert tiny_config().eos_token_ids == (2,)

    @pytest.mark.parametrize("name", ["tiny", "small", "base_plus", "large", "configs/sam2.1_hiera_b+"])
    def test_segmenter_tree_round_trips(self, name: str) -> None:
        config = SegmenterConfig.preset(name, image_size=768)
        assert SegmenterConfig.from_tree(json.loads(json.dumps(config.to_tree()))) == config

    def test_image_size_must_be_a_multiple_of_32(self) -> None:
        with pytest.raises(ValueError, match="multiple of 32, got 720"):
            SegmenterConfig.preset("tiny", image_size=720)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def _assert_same_tensors(one: UniPixel, other: UniPixel) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def _reference_name(name: str) -> str:
    """The layout that transformers 5 writes: both transformers below `model`."""
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model."):
        return name.replace("model.", "model.language_model.", 1)
    return name


def _edit_config(folder: Path, edit: Any) -> None:
    file = folder / "config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    edit(fields)
    file.write_text(json.dumps(fields), encoding="utf-8")
