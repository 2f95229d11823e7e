"""Methods that peft and users expect of a model of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.sail_model import recorded_sail
from peft import LoraConfig, PeftModel, get_peft_model

from unipixel import Processor, UniPixel
from unipixel.processing.chat_template import Turn


def test_embeddings_and_sizes_are_those_of_the_modules(model: UniPixel) -> None:
    sail = recorded_sail()[0]
    assert model.get_input_embeddings() is model.model.language_model.embed_tokens
    assert model.get_output_embeddings() is model.lm_head
    assert sail.get_input_embeddings().weight.shape == (sail.config.text.vocab_size, sail.config.width)
    assert sail.get_output_embeddings().weight.shape == (sail.config.text.vocab_size, sail.config.width)
    for one in (model, sail):
        parameters = sum(parameter.numel() * parameter.element_size() for parameter in one.parameters())
        assert one.num_parameters() == sum(parameter.numel() for parameter in one.parameters())
        assert one.get_memory_footprint(return_buffers=False) == parameters < one.get_memory_footprint()


def test_checkpointing_is_switched_on_and_off_for_both_transformers(checkpoint: Path) -> None:
    model = UniPixel.from_pretrained(checkpoint)
    assert model.name_or_path == str(checkpoint)
    parts = (model.model.visual, model.model.language_model)
    for switch, is_on in ((model.gradient_checkpointing_enable, True), (model.gradient_checkpointing_disable, False)):
        switch()
        assert [any(getattr(one, "gradient_checkpointing", False) for one in part.modules()) for part in parts] == [
            is_on
        ] * 2


def test_peft_adds_saves_loads_and_merges_an_adapter(checkpoint: Path, processor: Processor, tmp_path: Path) -> None:
    inputs = processor.encode([Turn("What is there?", "A square.")]).inputs
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=r"model\.language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    adapted = get_peft_model(UniPixel.from_pretrained(checkpoint), config)
    adapted.save_pretrained(tmp_path)
    merged = PeftModel.from_pretrained(UniPixel.from_pretrained(checkpoint), tmp_path).merge_and_unload()
    assert isinstance(merged, UniPixel)
    with torch.inference_mode():
        expected = adapted.eval().base_model.model(inputs).logits
        plain = UniPixel.from_pretrained(checkpoint)(inputs).logits
        torch.testing.assert_close(merged(inputs).logits, expected, rtol=1e-4, atol=1e-4)
    assert float((plain - expected).abs().max()) > 1e-3
    assert adapted.base_model.model.num_parameters(only_trainable=True) == pytest.approx(
        sum(parameter.numel() for name, parameter in adapted.named_parameters() if "lora_" in name)
    )
