"""LoRA adapters and partial weights."""

# mypy: disable-error-code="union-attr, operator, arg-type, assignment"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity.weights import tiny_model
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from unipixel.checkpoints.lora import add_lora, merge_lora, save_adapter
from unipixel.checkpoints.tensor_layout import CheckpointError
from unipixel.model.inputs import ModelInputs
from unipixel.model.unipixel import UniPixel

INPUTS = ModelInputs(torch.arange(20, 50)[None])
LAYERS = ["model.language_model.layers.0.self_attn.q_proj", "model.visual.blocks.1.attn.qkv"]
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS)


@pytest.fixture
def adapted() -> UniPixel:
    """A model with LoRA layers whose update is not zero."""
    model = tiny_model()
    add_lora(model, LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    return model.eval()


def _logits(model: UniPixel) -> torch.Tensor:
    with torch.no_grad():
        return model(INPUTS).logits


def test_adapter_changes_the_model_and_merging_keeps_its_function(adapted: UniPixel) -> None:
    before = _logits(adapted)
    merge_lora(adapted)
    assert not [name for name in adapted.state_dict() if "lora" in name or "base_layer" in name]
    torch.testing.assert_close(_logits(adapted), before, atol=1e-4, rtol=1e-4)
    assert (before - _logits(tiny_model())).abs().max() > 1e-2


def test_merged_weight_is_the_closed_form(adapted: UniPixel) -> None:
    layer = adapted.get_submodule(LAYERS[0])
    expected = layer.base_layer.weight + 2.0 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    merge_lora(adapted)
    torch.testing.assert_close(adapted.get_submodule(LAYERS[0]).weight, expected)


def test_adapter_folder_is_merged_into_its_base(tmp_path: Path, adapted: UniPixel) -> None:
    with torch.no_grad():
        adapted.seg_head[1].bias += 1
    save_adapter(adapted, tmp_path / "adapter", LORA, trained=("seg_head.1.bias",))
    loaded = UniPixel.from_pretrained(tmp_path / "adapter", base=tiny_model())
    torch.testing.assert_close(_logits(loaded), _logits(adapted), atol=1e-4, rtol=1e-4)
    assert torch.equal(loaded.seg_head[1].bias, adapted.seg_head[1].bias)
    assert not [name for name in loaded.state_dict() if "lora" in name]


def test_adapter_folder_stays_trainable_when_asked(tmp_path: Path, adapted: UniPixel) -> None:
    save_adapter(adapted, tmp_path / "adapter", LORA)
    tiny_model().save_pretrained(tmp_path / "base")
    loaded = UniPixel.from_pretrained(tmp_path / "adapter", base=tmp_path / "base", merge_adapter=False)
    assert torch.equal(_logits(loaded), _logits(adapted))
    trainable = [name for name, parameter in loaded.named_parameters() if parameter.requires_grad and "lora_" in name]
    assert len(trainable) == 4


def test_files_are_named_as_published(tmp_path: Path, adapted: UniPixel) -> None:
    save_adapter(adapted, tmp_path, LORA, trained=("prompt_encoder.ref_proj.1.bias",))
    lora = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight" in lora
    partial = set(load_file(tmp_path / "pytorch_model.safetensors"))
    # The Fourier matrices, which the published code leaves out.
    assert partial == {
        "base_model.model.ref_proj.1.bias",
        "base_model.model.ref_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "base_model.model.tem_pe.positional_encoding_gaussian_matrix",
        "base_model.model.sam2.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    }


def test_partial_folder_overwrites_only_its_tensors(tmp_path: Path) -> None:
    save_file({"ref_proj.1.bias": torch.full((64,), 3.0)}, tmp_path / "pytorch_model.safetensors")
    loaded = UniPixel.from_pretrained(tmp_path, base=tiny_model())
    assert torch.equal(loaded.prompt_encoder.ref_proj[1].bias, torch.full((64,), 3.0))


def test_partial_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_file({"ref_proj.1.bias": torch.zeros(65)}, tmp_path / "pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"ref_proj.1.bias is \(65,\), expected \(64,\)"):
        UniPixel.from_pretrained(tmp_path, base=tiny_model())


def test_adapter_of_another_model_is_refused(tmp_path: Path, adapted: UniPixel) -> None:
    save_adapter(adapted, tmp_path, LORA)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("layers.0", "layers.77"): tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match="layers that the model does not have"):
        UniPixel.from_pretrained(tmp_path, base=tiny_model())


def test_adapter_without_a_base_is_refused(tmp_path: Path, adapted: UniPixel) -> None:
    save_adapter(adapted, tmp_path, LORA)
    with pytest.raises(ValueError, match="give `base`"):
        UniPixel.from_pretrained(tmp_path)


def test_saving_an_unmerged_model_is_refused(tmp_path: Path, adapted: UniPixel) -> None:
    with pytest.raises(ValueError, match="merge the adapter before saving"):
        adapted.save_pretrained(tmp_path)
