"""The segmenter's objective: frames with and without gradients, mask tokens from boxes and attributes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.segmenter_training import draw_tracks, segmenter_recipe

from unipixel.train.initialization import load_segmenter
from unipixel.train.memory_rollout import memory_rollout
from unipixel.train.segmenter_objective import MaskLossMeter, SegmenterObjective, object_tokens


@pytest.fixture(scope="module")
def objective() -> SegmenterObjective:
    return load_segmenter(segmenter_recipe(Path("unused")))


def test_long_clips_have_the_loss_of_a_pass_with_all_gradients(objective: SegmenterObjective) -> None:
    batch = draw_tracks(segmenter_recipe(Path("unused")), "vos_long_clip")[2]
    loss, _ = objective(batch)
    # The same loss without the split into frames with and without gradients.
    meter = MaskLossMeter(objective.weights)
    segmenter = objective.segmenter
    features = segmenter.encode(batch.frames)
    for step in memory_rollout(segmenter, features, batch.tracks, batch.prompts, num_frames=batch.num_frames):
        if step.step >= batch.first_step:
            meter.add(step.segmentation, batch.labels[step.rows, step.step], samples=batch.samples[step.rows])
    torch.testing.assert_close(loss, meter.means(num_samples=batch.num_samples)["loss"])


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
