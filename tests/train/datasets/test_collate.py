"""Batches: one task each, the same after a restart; tracks and their masks belong together."""

from __future__ import annotations

import random

import pytest
import torch
from helpers.byte_model import byte_config

from unipixel.processing.chat_template import load_tokenizer
from unipixel.processing.processor import Processor
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.collate import ExampleBatch, ExampleCollator, InvalidExample, MaskSampling
from unipixel.train.datasets.preprocessing import Example, ExampleBuilder
from unipixel.train.datasets.synthetic import generate
from unipixel.train.datasets.synthetic_vqa import SyntheticVqa
from unipixel.train.losses import IGNORED_LABEL


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(byte_config(), load_tokenizer())


def drawn(processor: Processor, group: str, number: int, *, max_turns: int = 1) -> Example:
    clips = SyntheticVqa(seed=3, num_frames=6, render_size=64, max_turns=max_turns)
    return ExampleBuilder(processor).build(clips.draw(group, number), seed=number)


def test_schedule_batches_hold_one_group_and_samples_come_once() -> None:
    schedule = TaskBatchSampler({"a": 1.0, "b": 2.0}, num_rounds=30, batch_size=4, seed=1)
    placed = [schedule.place(index) for index in range(len(schedule))]
    for start in range(0, len(placed), 4):
        assert len({group for group, _ in placed[start : start + 4]}) == 1
    assert len(set(placed)) == len(placed)
    assert {number for group, number in placed if group == "a"} == set(range(sum(group == "a" for group, _ in placed)))


def test_schedule_of_a_longer_run_is_the_same_at_each_call() -> None:
    one, other = (TaskBatchSampler({"a": 1.0, "b": 1.0}, num_rounds=9, batch_size=2, seed=5) for _ in range(2))
    assert [one.place(index) for index in range(18)] == [other.place(index) for index in range(18)]


def test_build_segmentation_sample_supervises_answers_and_holds_a_mask_per_seg(processor: Processor) -> None:
    examples = (drawn(processor, "segment/attribute", number, max_turns=4) for number in range(9))
    example = next(example for example in examples if len(example.masks) > 1)
    config = processor.config
    ids, labels = example.encoded.inputs.input_ids, example.encoded.labels
    assert int((ids == config.seg_token_id).sum()) == len(example.masks)
    kept = labels != IGNORED_LABEL
    assert torch.equal(labels[kept], ids[kept])
    assert bool((labels[ids == config.seg_token_id] == config.seg_token_id).all())
    side = config.segmenter.image_size
    assert example.sam_frames.shape == (6, 3, side, side)


@pytest.mark.parametrize("group", ["pixelqa/point", "pixelqa/mask", "caption", "plain", "conversation"])
def test_build_every_task_fills_its_placeholders(processor: Processor, group: str) -> None:
    for number in range(4):
        example = drawn(processor, group, number)
        text = example.encoded.texts[0]
        assert text.count("<|ref|>") == len(example.encoded.inputs.references)
        assert text.count("<|seg|>") == len(example.masks)


def test_build_conversation_injects_objects_after_they_were_found(processor: Processor) -> None:
    for number in range(6):
        sample = generate(number, split="train", task="conversation", render_size=64, num_frames=6)
        text = ExampleBuilder(processor).build(sample, seed=0).encoded.texts[0]
        assert text.index("<|seg|>") < text.index("<|mem|>")
        assert text.count("highlighted regions are updated") <= len(sample.turns) - 1


def test_build_too_long_sample_is_refused(processor: Processor) -> None:
    sample = generate(1, split="train", task="plain", render_size=64, num_frames=6)
    with pytest.raises(ValueError, match="allowed are 10"):
        ExampleBuilder(processor, max_tokens=10).build(sample)


def test_track_starts_where_a_session_would_and_runs_either_way() -> None:
    plan = MaskSampling(3, anchor="visible")
    tracks = [plan.track(8, anchor=5, is_single=False, generator=random.Random(seed)) for seed in range(10)]
    assert set(tracks) == {(5, 6, 7), (5, 4, 3)}
    assert plan.track(8, anchor=7, is_single=False, generator=random.Random(0)) == (7, 6, 5)
    assert plan.track(2, anchor=1, is_single=False, generator=random.Random(0)) == (1, 0, 0)
    assert plan.track(8, anchor=5, is_single=True, generator=random.Random(0)) == (5,)


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
        example = drawn(processor, "segment/motion", number)
        for masks, anchor in zip(example.masks, example.anchors, strict=True):
            assert masks[anchor].any()
            assert not masks[:anchor].any()


def test_collator_labels_are_the_masks_of_the_tracks_frames(processor: Processor) -> None:
    examples = [drawn(processor, "segment/motion", number, max_turns=3) for number in range(3)]
    batch: ExampleBatch = ExampleCollator(processor, MaskSampling(3, 2, "visible"))(examples)["batch"]
    masks = [mask for example in examples for mask in example.masks]
    clips = [example.sam_frames for example in examples for _ in example.masks]
    for owner, track, label in zip(batch.owners, batch.tracks, batch.labels, strict=True):
        for step, frame in enumerate(track):
            matches = [torch.equal(batch.frames[frame], own) for own in clips[owner]]
            assert any(torch.equal(label[step], masks[owner][place]) for place, hit in enumerate(matches) if hit)


def test_collator_broken_samples_are_left_out_and_named(processor: Processor) -> None:
    broken = InvalidExample("clips/3", "no mask")
    batch = ExampleCollator(processor, MaskSampling(3))([broken, drawn(processor, "plain", 0)])["batch"]
    assert batch.broken == (broken,)
    assert batch.encoded is not None
    assert len(batch.encoded.inputs.input_ids) == 1
