"""The dense pass against the model's own forward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.dense_training import dense_config, dense_model

from unipixel.model.inputs import VideoInput
from unipixel.model.unipixel import UniPixel
from unipixel.processing.image_processing import to_patches
from unipixel.processing.processor import Processor
from unipixel.train.datasets.preprocessing import Example, ExampleBuilder
from unipixel.train.nano.clip_pool import ClipGroup, ClipPool
from unipixel.train.nano.dense_batch import DenseBatch, DeviceClips, pack
from unipixel.train.nano.dense_model import DenseModel

TASKS = ("segment/attribute", "pixelqa/mask", "pixelqa/mixed", "pixelqa/point", "conversation", "plain")
Conversations = list[tuple[int, Example]]


def draw(processor: Processor, group: ClipGroup) -> tuple[Conversations, DenseBatch, dict[int, torch.Tensor]]:
    """Two conversations of each task about two clips of a group, as a batch, and the clips' frames."""
    builder = ExampleBuilder(processor, has_masks=False, has_dense_targets=True)
    pool = ClipPool(processor, builder, (group,), seed=5, worker=0)
    clips, frames = DeviceClips(torch.device("cpu")), {}
    conversations: Conversations = []
    rng = np.random.default_rng(3)
    for number in range(2):
        pooled, arrays = pool.clip(0, number)
        assert arrays is not None
        clips.add(arrays)
        frames[pooled.clip_id] = torch.from_numpy(arrays.frames)
        for task in TASKS:
            sample = pooled.scene.ask(rng, task=task)
            if sample is not None:
                example = builder.build(sample, seed=len(conversations), prepared=(pooled.clip, pooled.targets))
                conversations.append((pooled.clip_id, example))
    return conversations, clips.join(clips.send(pack(conversations, processor))), frames


def product_states(
    model: UniPixel, processor: Processor, example: Example, frames: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and pooled vision features of a conversation by `UniPixel.forward`."""
    patches, grid = to_patches([frame for frame in frames.numpy() for _ in range(2)], processor.sizes)
    inputs = replace(example.encoded.inputs, videos=(VideoInput(patches, grid),))
    output = model(inputs)
    return output.hidden_states[0], output.video_features[0].pooling_rows


@pytest.mark.parametrize("group", [ClipGroup((48, 96), 4, 0.5), ClipGroup((64, 64), 1, 0.5)], ids=["clip", "image"])
@pytest.mark.parametrize(
    "memory",
    [{}, {"memory_pool_weighting": "coverage", "memory_position_embedding": True}],
    ids=["published", "positions"],
)
def test_dense_states_equal_those_of_the_models_forward(group: ClipGroup, memory: dict[str, object]) -> None:
    model, processor = dense_model(**memory)
    if memory:
        torch.nn.init.normal_(model.get_parameter("prompt_encoder.mem_pos_proj.1.weight"), std=0.1)
    conversations, batch, frames = draw(processor, group)
    config = model.config
    for token_id in (config.mem_token_id, config.ref_token_id, config.seg_token_id):
        assert (batch.input_ids == token_id).any()
    with torch.no_grad():
        states = DenseModel(model)(batch)
        for row, (clip_id, example) in enumerate(conversations):
            hidden, rows = product_states(model, processor, example, frames[clip_id])
            torch.testing.assert_close(states.pooling_rows[row], rows, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(states.hidden[row, : len(hidden)], hidden, rtol=1e-5, atol=1e-5)
            labels = example.encoded.labels[0, 1:]
            own = batch.is_supervised[row, 1 : len(hidden)]
            assert torch.equal(batch.input_ids[row, 1 : len(hidden)][own], labels[labels >= 0])
            losses = [
                F.cross_entropy(model.logits(given[: len(hidden) - 1][own]), labels[own])
                for given in (states.hidden[row], hidden)
            ]
            torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)


def test_targets_stand_in_the_order_of_their_tokens() -> None:
    model, processor = dense_model()
    _, batch, _ = draw(processor, ClipGroup((48, 96), 4, 1.0))
    ids, config = batch.input_ids, model.config
    is_reference = (ids == config.mem_token_id) | (ids == config.ref_token_id)
    assert len(batch.reference_attributes) == len(batch.reference_positions) == int(is_reference.sum())
    is_mask = ids == config.seg_token_id
    assert batch.mask_rows.tolist() == is_mask.nonzero()[:, 0].tolist()
    assert len(batch.mask_boxes) == len(batch.mask_attributes) == len(batch.mask_coverage) == int(is_mask.sum())
    assert batch.attributes.shape[:2] == batch.positions.shape[:2] == batch.mask_coverage.new_zeros(
        len(ids), batch.mask_coverage.shape[1]
    ).shape  # fmt: skip


def test_models_with_windows_are_refused() -> None:
    config = dense_config()
    config.qwen.vision_config.fullatt_block_indexes = [1]
    with pytest.raises(ValueError, match=r"full attention in all vision layers.*\[0, 1\]"):
        DenseModel(UniPixel(config))
    with pytest.raises(ValueError, match="raster order"):
        DenseModel(dense_model(memory_pool_order="window")[0])
