"""Per-token targets against the masks and the scene they are made from."""

from __future__ import annotations

import numpy as np
import torch
from helpers.byte_model import byte_config

from unipixel.memory.injection import visible_ids
from unipixel.processing.chat_template import load_tokenizer
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.processor import Processor
from unipixel.train.datasets.preprocessing import ExampleBuilder
from unipixel.train.datasets.synthetic import generate
from unipixel.train.datasets.synthetic.attributes import COLOURS, SHAPES, TEXTURES
from unipixel.train.nano.dense_targets import clip_targets, conversation_targets


def test_covered_cells_name_their_object_and_its_middle(processor: Processor) -> None:
    num_checked = 0
    for seed in range(6):
        sample = generate(seed, split="train", task="track", render_size=224, num_frames=4)
        layout = processor.clip(list(sample.clip.frames)).layout
        targets = conversation_targets(clip_targets(sample, layout), sample.clip.object_ids)
        t, rows, columns = layout.grid_thw[0], layout.grid_thw[1] // 2, layout.grid_thw[2] // 2
        looks, places = targets.attributes.view(t, rows, columns, 3), targets.positions.view(t, rows, columns, -1)
        assert sample.scene is not None
        height, width = sample.clip.frames.shape[1:3]
        for obj, masks in zip(sample.scene.objects, sample.clip.masks, strict=True):
            words = [SHAPES.index(obj.shape) + 1, COLOURS.index(obj.colour) + 1, TEXTURES.index(obj.texture) + 1]
            for pair in range(t):
                both = masks[2 * pair] & masks[2 * pair + 1]
                seen = np.argwhere(masks[2 * pair] | masks[2 * pair + 1])
                for row in range(rows):
                    for column in range(columns):
                        top, bottom = row * height / rows, (row + 1) * height / rows
                        left, right = column * width / columns, (column + 1) * width / columns
                        cell = both[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
                        if cell.mean() > 0.7:
                            num_checked += 1
                            assert looks[pair, row, column].tolist() == words
                            middle = [seen[:, 1].mean() * 2 / width - 1, seen[:, 0].mean() * 2 / height - 1]
                            np.testing.assert_allclose(places[pair, row, column, 2:4], middle, atol=1e-4)
        empty = ~np.asarray(sample.clip.masks.any(axis=(0, 1)))
        if empty[: int(height / rows), : int(width / columns)].all():
            assert looks[:, 0, 0].eq(0).all()
            assert places[:, 0, 0, 2:10].isnan().all()
    assert num_checked > 10


def test_every_memory_token_has_the_targets_of_its_object(processor: Processor) -> None:
    sample = generate(4, split="train", task="track", render_size=224, num_frames=4)
    layout = processor.clip(list(sample.clip.frames)).layout
    ids = visible_ids(sample.clip.object_ids, np.moveaxis(sample.clip.masks, 0, 1))
    masks = np.stack([sample.clip.masks_of(object_id) for object_id in ids], axis=1)
    memory = processor.memory(ids, masks, layout)
    targets = conversation_targets(clip_targets(sample, layout), sample.clip.object_ids, memories=[memory])
    references = targets.references
    assert len(references.coverage) == len(references.attributes) == len(references.positions) == memory.num_tokens
    assert sample.scene is not None
    height, width = sample.clip.frames.shape[1:3]
    row = 0
    for place, object_id in enumerate(ids):
        number = sample.clip.object_ids.index(object_id)
        obj = sample.scene.objects[number]
        for pair in memory.frame_pairs(place):
            assert references.attributes[row, 1] == COLOURS.index(obj.colour) + 1
            cover = references.coverage[row].view(memory.refer_mask.shape[0], -1)
            assert [bool(own.any()) for own in cover] == [other == pair for other in range(len(cover))]
            seen = np.argwhere(sample.clip.masks[number, 2 * pair : 2 * pair + 2].any(axis=0))
            middle = [seen[:, 1].mean() * 2 / width - 1, seen[:, 0].mean() * 2 / height - 1]
            np.testing.assert_allclose(references.positions[row, 2:4], middle, atol=1e-4)
            row += 1
    assert row > 2


def test_a_mask_is_pointed_at_on_its_own_frame(processor: Processor) -> None:
    sample = generate(4, split="train", task="track", render_size=224, num_frames=6)
    layout = processor.clip(list(sample.clip.frames)).layout
    named = [(object_id, 3) for object_id in sample.clip.object_ids if sample.clip.masks_of(object_id)[3].any()]
    targets = conversation_targets(clip_targets(sample, layout), sample.clip.object_ids, named=named)
    everywhere, there = (covers.view(len(named), 3, -1) for covers in (targets.coverage, targets.anchor_coverage))
    assert len(named) > 1
    assert (everywhere.sum(dim=-1) > 0).sum() > len(named)
    assert torch.equal(there[:, 1], everywhere[:, 1])
    assert there[:, [0, 2]].count_nonzero() == 0
    shares = [sample.clip.masks_of(object_id)[2:4].mean() for object_id, _ in named]
    np.testing.assert_allclose(there[:, 1].mean(dim=-1), shares, rtol=0.05)


def test_a_still_frame_shows_its_own_masks_alone() -> None:
    processor = Processor(byte_config(), load_tokenizer(), budget=FrameBudget(6, 64, 64, is_still=True))
    sample = generate(4, split="train", task="track", render_size=224, num_frames=6)
    layout = processor.clip(list(sample.clip.frames)).layout
    named = [(name, layout.frame_position(3)) for name in sample.clip.object_ids if sample.clip.masks_of(name)[3].any()]
    targets = conversation_targets(clip_targets(sample, layout), sample.clip.object_ids, named=named)
    there = targets.anchor_coverage.view(len(named), 6, -1)
    assert len(named) > 1
    assert there[:, [0, 1, 2, 4, 5]].count_nonzero() == 0
    shares = [sample.clip.masks_of(name)[3].mean() for name, _ in named]
    np.testing.assert_allclose(there[:, 3].mean(dim=-1), shares, rtol=0.05)


def test_every_reference_has_the_targets_of_the_object_it_points_at(processor: Processor) -> None:
    num_checked = 0
    for seed in range(12):
        sample = generate(seed, split="train", task="pixelqa/mixed", render_size=224, num_frames=4)
        example = ExampleBuilder(processor, has_dense_targets=True).build(sample, seed=seed)
        references = example.encoded.inputs.references
        if not references or sample.scene is None or example.targets is None:
            continue
        own = example.targets.references
        assert len(own.coverage) == len(own.attributes) == len(own.positions) == len(references)
        height, width = sample.clip.frames.shape[1:3]
        side = processor.config.segmenter.image_size
        for reference, looks, cover in zip(references, own.attributes, own.coverage, strict=True):
            x, y = reference.coords.mean(dim=0) / side * torch.tensor([width, height])
            pointed = [row for row, masks in enumerate(sample.clip.masks) if masks[reference.frame, int(y), int(x)]]
            if reference.is_box or len(pointed) != 1:
                continue
            num_checked += 1
            obj = sample.scene.objects[pointed[0]]
            assert looks[:2].tolist() == [SHAPES.index(obj.shape) + 1, COLOURS.index(obj.colour) + 1]
            seen = cover.view(2, -1).any(dim=1)
            assert seen.tolist() == [pair == reference.frame // 2 for pair in range(2)]
    assert num_checked > 3
