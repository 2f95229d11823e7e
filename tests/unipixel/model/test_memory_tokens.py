"""Memory tokens: coverage-weighted pooling and position embeddings, which published checkpoints do not have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.byte_model import byte_config
from parity.weights import tiny_config, tiny_model

from unipixel.memory.mask_pooling import TokenMasks
from unipixel.model.config import UniPixelConfig
from unipixel.model.connector import pool_memory
from unipixel.model.inputs import ModelInputs, ReferencePrompt, VideoFeatures
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import Turn, load_tokenizer
from unipixel.processing.processor import Processor

CONFIG = replace(byte_config(), memory_pool_order="raster")


def memory_inputs(config: UniPixelConfig) -> ModelInputs:
    """A question about two objects of a clip of four frames."""
    processor = Processor(config, load_tokenizer())
    clip = processor.clip([np.full((60, 80, 3), 40 * index, np.uint8) for index in range(4)])
    masks = np.zeros((4, 2, 60, 80), dtype=bool)
    masks[:, 0, 5:20, 5:30] = masks[2:, 1, 30:50, 40:70] = True
    turn = Turn("What is it?", memory=processor.memory([1, 2], masks, clip.layout))
    return processor.encode([turn], clip=clip).inputs


def memory_embeds(model: UniPixel, inputs: ModelInputs) -> torch.Tensor:
    with torch.no_grad():
        embeds = model(inputs).inputs_embeds
    return embeds[inputs.input_ids == model.config.mem_token_id]


def test_coverage_weights_each_cell_by_its_share() -> None:
    rows = torch.randn(4, 6)
    coverage = torch.tensor([1.0, 0.25, 0.0, 0.5]).view(1, 1, 2, 2)
    masks = TokenMasks(coverage, torch.zeros(1, 1, 4))
    features = VideoFeatures(rows, rows, (1, 4, 4))
    expected = (rows[0] + 0.25 * rows[1] + 0.5 * rows[3]) / 1.75
    torch.testing.assert_close(pool_memory(features, masks, weighting="coverage"), expected[None])
    torch.testing.assert_close(pool_memory(features, masks), rows[[0, 1, 3]].mean(dim=0)[None])


def test_coverage_weighting_changes_only_the_memory_tokens() -> None:
    inputs = memory_inputs(CONFIG)
    uniform, weighted = (
        tiny_model(replace(CONFIG, memory_pool_weighting=weighting)) for weighting in ("uniform", "coverage")
    )
    assert not torch.allclose(memory_embeds(uniform, inputs), memory_embeds(weighted, inputs))
    is_memory = inputs.input_ids == CONFIG.mem_token_id
    with torch.no_grad():
        first, second = (model(inputs).inputs_embeds[~is_memory] for model in (uniform, weighted))
    assert torch.equal(first, second)


def test_added_positions_leave_outputs_as_they_were_until_they_are_trained() -> None:
    model, inputs = tiny_model(CONFIG), memory_inputs(CONFIG)
    with torch.no_grad():
        before = model(inputs).logits
        model.add_memory_positions()
        assert model.config.memory_position_embedding
        assert torch.equal(model(inputs).logits, before)
    assert model.prompt_encoder.mem_pos_proj is not None
    model(inputs).logits.sum().backward()
    gradients = [parameter.grad for parameter in model.prompt_encoder.mem_pos_proj.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_position_embedding_is_that_of_the_reference_to_the_same_box() -> None:
    model = tiny_model(replace(CONFIG, memory_position_embedding=True))
    encoder = model.prompt_encoder
    assert encoder.mem_pos_proj is not None
    encoder.mem_pos_proj.load_state_dict(encoder.ref_proj.state_dict())
    cells = torch.zeros(2, 1, 2, 4)
    cells[1, 0, 0, 1] = 1
    masks = TokenMasks.from_cells(cells)
    size = CONFIG.segmenter.image_size
    corners = torch.tensor([[0.25, 0.0], [0.5, 0.5]]) * size
    with torch.no_grad():
        embedded = encoder.memory_positions(masks.token_boxes_xyxy, masks.token_times)
        expected = encoder([ReferencePrompt(corners, frame=2, num_frames=4)])
    torch.testing.assert_close(embedded, expected)


def test_position_embedding_differs_between_positions_of_equal_features() -> None:
    model, pooled = tiny_model(replace(CONFIG, memory_position_embedding=True)), torch.randn(1, CONFIG.pooled_width)
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    with torch.no_grad():
        first, second = model.embed_memory(pooled.expand(2, -1), boxes, torch.zeros(2))
    assert not torch.allclose(first, second)


def test_positions_without_their_weights_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"add_memory_positions"):
        tiny_model(CONFIG).prompt_encoder.memory_positions(torch.zeros(1, 4), torch.zeros(1))


def test_a_checkpoint_keeps_the_settings_and_their_weights(tmp_path: Path) -> None:
    config = replace(CONFIG, memory_pool_weighting="coverage", memory_position_embedding=True)
    model = tiny_model(config)
    model.save_pretrained(tmp_path)
    loaded = UniPixel.from_pretrained(tmp_path)
    assert loaded.config.memory_pool_weighting == "coverage"
    assert loaded.config.memory_position_embedding
    inputs = memory_inputs(config)
    torch.testing.assert_close(memory_embeds(loaded, inputs), memory_embeds(model, inputs))


def test_a_published_configuration_has_none_of_the_settings() -> None:
    config = tiny_config()
    assert (config.memory_pool_weighting, config.memory_position_embedding) == ("uniform", False)
    assert not {"memory_pool_weighting", "memory_position_embedding"} & set(config.to_dict())


@pytest.mark.parametrize("field", [{"memory_pool_weighting": "area"}, {"memory_position_embedding": "yes"}])
def test_an_unknown_value_of_a_setting_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(field))} must be"):
        replace(CONFIG, **field)
