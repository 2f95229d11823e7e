"""Synthetic clips for the segmenter: prompts, long clips and tokens."""

from __future__ import annotations

import pytest
import torch

from unipixel.train.build import prepare
from unipixel.train.datasets.batch_sampler import TaskBatchSampler
from unipixel.train.datasets.first_frame_prompts import NUM_BOXES
from unipixel.train.datasets.synthetic_vos import (
    SyntheticVosDataset,
    SyntheticVosSettings,
    collate_tracks,
    generate_clip,
)
from unipixel.train.memory_rollout import memory_rollout
from unipixel.train.recipe_files import load_recipe
from unipixel.train.segmenter_objective import MaskLossMeter, SegmenterObjective, object_tokens

SETTINGS = SyntheticVosSettings(image_size=64, num_frames=2, render_size=64)


@pytest.fixture(scope="module")
def objective() -> SegmenterObjective:
    objective = prepare(load_recipe("nano/segmenter", ["output=unused", "model.image_size=64"])).objective
    assert isinstance(objective, SegmenterObjective)
    return objective


def test_long_clips_train_their_last_frames(objective: SegmenterObjective) -> None:
    batch = collate_tracks([generate_clip("long_clip", number, SETTINGS) for number in range(2)])["batch"]
    assert batch.tracks.shape[1] == 8
    assert batch.first_step == 6
    loss = objective(batch)["loss"]
    # The same loss without the split into frames with and without gradients.
    meter = MaskLossMeter(objective.weights)
    segmenter = objective.segmenter
    features = segmenter.encode(batch.frames)
    for step in memory_rollout(segmenter, features, batch.tracks, batch.prompts, num_frames=batch.num_frames):
        if step.step >= 6:
            meter.add(step.segmentation, batch.labels[step.rows, step.step], samples=batch.samples[step.rows])
    torch.testing.assert_close(loss, meter.means(num_samples=2)["loss"])


def test_object_tokens_of_a_box_equal_the_prompt_encoder(objective: SegmenterObjective) -> None:
    segmenter = objective.segmenter
    corners = torch.tensor([[[10.0, 20.0], [50.0, 90.0]], [[0.0, 0.0], [128.0, 128.0]]])
    unknown = torch.zeros(2, 3, dtype=torch.long)
    tokens, _ = segmenter.sam_prompt_encoder(points=None, boxes=corners.flatten(1), masks=None)
    torch.testing.assert_close(object_tokens(segmenter, corners[:, None], unknown), tokens)
    # Several candidate boxes give the mean of their tokens.
    either = object_tokens(segmenter, corners[None], unknown[:1])
    torch.testing.assert_close(either[0], tokens.mean(dim=0))


def test_attribute_codes_do_not_depend_on_the_box(objective: SegmenterObjective) -> None:
    segmenter = objective.segmenter
    boxes = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 100
    unknown = object_tokens(segmenter, boxes, torch.zeros(2, 3, dtype=torch.long))
    added = [object_tokens(segmenter, boxes, torch.tensor([[0, colour, 0]] * 2)) - unknown for colour in range(1, 11)]
    for code in added:
        torch.testing.assert_close(code[0], code[1])
    together = torch.stack(added)[:, 0].flatten(1)
    assert torch.cdist(together, together).add(torch.eye(10) * 99).min() > 3
    torch.testing.assert_close(together.sum(dim=0), torch.zeros_like(together[0]), atol=1e-4, rtol=0)


def test_task_boxes_has_boxes_around_the_objects_alone() -> None:
    clip = generate_clip("boxes", 3, SETTINGS)
    assert {prompt.kind for prompt in clip.prompts} == {"box"}
    for prompt, labels in zip(clip.prompts, clip.labels, strict=True):
        rows, columns = labels[0].any(dim=1).nonzero(), labels[0].any(dim=0).nonzero()
        centre = torch.stack([columns.float().mean(), rows.float().mean()])
        assert (prompt.coords[0] <= centre).all()
        assert (centre <= prompt.coords[1]).all()


def test_task_image_also_has_boxes_without_an_object() -> None:
    clips = [generate_clip("image", number, SETTINGS) for number in range(30)]
    empty = [
        prompt.coords
        for clip in clips
        for prompt, labels in zip(clip.prompts, clip.labels, strict=True)
        if not labels.any()
    ]
    assert empty
    assert all((boxes[:, 0] < boxes[:, 1]).all() for boxes in empty)


def test_token_prompts_have_candidate_boxes_with_small_and_large_errors() -> None:
    distances, spreads = [], []
    for number in range(40):
        clip = generate_clip("image", number, SETTINGS)
        for prompt, labels in zip(clip.prompts, clip.labels, strict=True):
            if prompt.kind == "token" and labels.any():
                boxes = prompt.coords
                assert boxes.shape == (NUM_BOXES, 2, 2)
                assert boxes.min() >= 0
                assert boxes.max() <= 64
                pixels = labels[0].nonzero().flip(1).float()
                centre = (pixels.amin(dim=0) + pixels.amax(dim=0) + 1) / 2
                distances.append(float((boxes.mean(dim=(0, 1)) - centre).norm()) / 64)
                spreads.append(float(boxes.mean(dim=1).std(dim=0).mean()) / 64)
    exact = [distance for distance, spread in zip(distances, spreads, strict=True) if spread < 0.01]
    uncertain = [distance for distance, spread in zip(distances, spreads, strict=True) if spread > 0.1]
    assert len(exact) > 5
    assert max(exact) < 0.05
    assert len(uncertain) > 5
    assert max(uncertain) > 0.15


def test_clips_are_tracked_as_streams_and_as_finite_clips() -> None:
    dataset = SyntheticVosDataset(TaskBatchSampler({"clip": 1.0}, num_batches=12, batch_size=2, seed=0), SETTINGS)
    clips = [dataset[index] for index in range(24)]
    assert [clip.is_stream for clip in clips[::2]] == [clip.is_stream for clip in clips[1::2]]
    assert {collate_tracks([clip])["batch"].num_frames for clip in clips} == {None, 2}
    assert torch.equal(dataset[5].frames, clips[5].frames)


def test_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'clips'"):
        generate_clip("clips", 0, SETTINGS)
