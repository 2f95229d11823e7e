"""Batches: one task each, the same after a restart; tracks match their masks."""

from __future__ import annotations

import random

import pytest
import torch

from unipixel.processing.processor import Processor
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.collate import ExampleBatch, ExampleCollator, InvalidExample, MaskSampling
from unipixel.train.datasets.preprocessing import Example, ExampleBuilder
from unipixel.train.datasets.synthetic import generate
from unipixel.train.datasets.synthetic_vqa import SyntheticVqa
from unipixel.train.losses import IGNORED_LABEL


def build_example(processor: Processor, task: str, number: int, *, max_turns: int = 1) -> Example:
    clips = SyntheticVqa(seed=3, num_frames=6, render_size=64, max_turns=max_turns)
    return ExampleBuilder(processor).build(clips.draw(task, number), seed=number)


def test_sampler_batches_have_one_task_and_samples_occur_once() -> None:
    sampler = TaskBatchSampler({"a": 1.0, "b": 2.0}, num_batches=30, batch_size=4, seed=1)
    located = [sampler.locate(index) for index in range(len(sampler))]
    for start in range(0, len(located), 4):
        assert len({task for task, _ in located[start : start + 4]}) == 1
    assert len(set(located)) == len(located)
    assert {number for task, number in located if task == "a"} == set(range(sum(task == "a" for task, _ in located)))


def test_sampler_with_the_same_seed_has_the_same_order() -> None:
    one, other = (TaskBatchSampler({"a": 1.0, "b": 1.0}, num_batches=9, batch_size=2, seed=5) for _ in range(2))
    assert [one.locate(index) for index in range(18)] == [other.locate(index) for index in range(18)]


def test_build_segmentation_sample_supervises_answers_and_has_a_mask_per_seg(processor: Processor) -> None:
    examples = (build_example(processor, "segment/attribute", number, max_turns=4) for number in range(9))
    example = next(example for example in examples if len(example.masks) > 1)
    config = processor.config
    ids, labels = example.encoded.inputs.input_ids, example.encoded.labels
    assert int((ids == config.seg_token_id).sum()) == len(example.masks)
    is_supervised = labels != IGNORED_LABEL
    assert torch.equal(labels[is_supervised], ids[is_supervised])
    assert bool((labels[ids == config.seg_token_id] == config.seg_token_id).all())
    side = config.segmenter.image_size
    assert example.sam_frames.shape == (6, 3, side, side)


@pytest.mark.parametrize("task", ["pixelqa/point", "pixelqa/mask", "caption", "plain", "conversation"])
def test_build_every_task_fills_its_placeholders(processor: Processor, task: str) -> None:
    for number in range(4):
        example = build_example(processor, task, number)
        text = example.encoded.texts[0]
        assert text.count("<|ref|>") == len(example.encoded.inputs.references)
        assert text.count("<|seg|>") == len(example.masks)


def test_build_conversation_injects_objects_after_their_segmentation(processor: Processor) -> None:
    for number in range(6):
        sample = generate(number, split="train", task="conversation", render_size=64, num_frames=6)
        text = ExampleBuilder(processor).build(sample, seed=0).encoded.texts[0]
        assert text.index("<|seg|>") < text.index("<|mem|>")
        assert text.count("highlighted regions are updated") <= len(sample.turns) - 1


def test_build_too_long_sample_is_refused(processor: Processor) -> None:
    sample = generate(1, split="train", task="plain", render_size=64, num_frames=6)
    with pytest.raises(ValueError, match="allowed are 10"):
        ExampleBuilder(processor, max_tokens=10).build(sample)


def test_track_starts_on_the_anchor_frame_and_runs_in_either_direction() -> None:
    sampling = MaskSampling(3, anchor_frame="visible")
    tracks = [sampling.track(8, anchor=5, is_single=False, generator=random.Random(seed)) for seed in range(10)]
    assert set(tracks) == {(5, 6, 7), (5, 4, 3)}
    assert sampling.track(8, anchor=7, is_single=False, generator=random.Random(0)) == (7, 6, 5)
    assert sampling.track(2, anchor=1, is_single=False, generator=random.Random(0)) == (1, 0, 0)
    assert sampling.track(8, anchor=5, is_single=True, generator=random.Random(0)) == (5,)


def test_track_first_anchor_is_frame_0_of_the_whole_clip() -> None:
    assert MaskSampling(8).track(8, anchor=4, is_single=False, generator=random.Random(0)) == tuple(range(8))
    assert MaskSampling(3).track(8, anchor=4, is_single=False, generator=random.Random(0)) == (0, 4, 7)


def test_anchors_are_the_prompted_frame_or_the_first_that_shows_the_object(processor: Processor) -> None:
    clips = SyntheticVqa(seed=3, num_frames=6, render_size=64)
    for number in range(12):
        sample = clips.draw("pixelqa/point", number)
        example = ExampleBuilder(processor).build(sample, seed=number)
        if example.masks:
            assert set(example.anchors) <= {prompt.frame for prompt in sample.prompts.values()}
        example = build_example(processor, "segment/motion", number)
        for masks, anchor in zip(example.masks, example.anchors, strict=True):
            assert masks[anchor].any()
            assert not masks[:anchor].any()


def test_collator_labels_are_the_masks_of_the_tracks_frames(processor: Processor) -> None:
    examples = [build_example(processor, "segment/motion", number, max_turns=3) for number in range(3)]
    batch: ExampleBatch = ExampleCollator(processor, MaskSampling(3, 2, "visible"))(examples)["batch"]
    masks = [mask for example in examples for mask in example.masks]
    clips = [example.sam_frames for example in examples for _ in example.masks]
    for index, track, label in zip(batch.seg_indices, batch.tracks, batch.labels, strict=True):
        for step, frame in enumerate(track):
            matches = [torch.equal(batch.frames[frame], own) for own in clips[index]]
            assert any(torch.equal(label[step], masks[index][position]) for position, hit in enumerate(matches) if hit)


def test_collator_invalid_samples_are_left_out_and_listed(processor: Processor) -> None:
    invalid = InvalidExample("clips/3", "no mask")
    batch = ExampleCollator(processor, MaskSampling(3))([invalid, build_example(processor, "plain", 0)])["batch"]
    assert batch.invalid == (invalid,)
    assert batch.encoded is not None
    assert len(batch.encoded.inputs.input_ids) == 1
