"""Roll-outs train what inference runs, with gradients through the memory."""

from __future__ import annotations

import pytest
import torch
from helpers.byte_model import byte_config

from unipixel.tracking.propagation import propagate
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import SegmentPrompt
from unipixel.train.memory_rollout import FirstFramePrompts, memory_rollout


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    segmenter = Segmenter(byte_config().segmenter).eval()
    # An absent object would hide the masks.
    torch.nn.init.constant_(segmenter.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 9.0)
    return segmenter


def test_roll_out_masks_equal_those_of_propagation(segmenter: Segmenter) -> None:
    frames, tokens = torch.randn(4, 3, 64, 64), torch.randn(1, 2, 32)
    features = segmenter.encode(frames)
    tracks = torch.arange(4)[None]
    anchors = [FirstFramePrompts(torch.tensor([0]), SegmentPrompt(tokens=tokens))]
    with torch.no_grad():
        steps = list(memory_rollout(segmenter, features, tracks, anchors, num_frames=4))
        start = segmenter.start(features[0], num_objects=1)
        anchor = segmenter.decode(features[0], start, SegmentPrompt(tokens=tokens))
        each = (features[index] for index in range(4))
        masks = list(propagate(segmenter, each, anchor, memory_dtype=torch.float32, num_frames=4))
    for step, mask in zip(steps, masks, strict=True):
        torch.testing.assert_close(step.segmentation.mask_logits, mask.mask_logits, rtol=1e-4, atol=1e-3)


def test_roll_out_objects_of_different_clips_do_not_see_each_other(segmenter: Segmenter) -> None:
    frames, tokens = torch.randn(4, 3, 64, 64), torch.randn(2, 2, 32)
    with torch.no_grad():
        features = segmenter.encode(frames)
        together = list(
            memory_rollout(
                segmenter, features, torch.tensor([[0, 1], [3, 2]]),
                [FirstFramePrompts(torch.tensor([0, 1]), SegmentPrompt(tokens=tokens))],
            )
        )  # fmt: skip
        alone = list(
            memory_rollout(
                segmenter, features, torch.tensor([[3, 2]]),
                [FirstFramePrompts(torch.tensor([0]), SegmentPrompt(tokens=tokens[1:]))],
            )
        )  # fmt: skip
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(
            both.segmentation.candidate_logits[1], one.segmentation.candidate_logits[0], rtol=1e-3, atol=1e-3
        )


def test_roll_out_last_frame_sends_gradients_to_the_prompt_of_the_first(segmenter: Segmenter) -> None:
    tokens = torch.randn(1, 2, 32, requires_grad=True)
    features = segmenter.encode(torch.randn(3, 3, 64, 64))
    anchors = [FirstFramePrompts(torch.tensor([0]), SegmentPrompt(tokens=tokens))]
    *_, last = memory_rollout(segmenter, features, torch.arange(3)[None], anchors)
    last.segmentation.candidate_logits.square().mean().backward()
    assert tokens.grad is not None
    assert float(tokens.grad.abs().sum()) > 0


def test_roll_out_given_masks_are_taken_as_they_are(segmenter: Segmenter) -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 8:40, 8:40] = True
    features = segmenter.encode(torch.randn(2, 3, 64, 64))
    first, second = memory_rollout(
        segmenter, features, torch.tensor([[0, 1]]), [FirstFramePrompts(torch.tensor([0]), masks=mask)]
    )
    assert first.is_given
    assert not second.is_given
    assert int((first.segmentation.mask_logits > 0).sum()) == 8 * 8


def test_anchor_prompts_prompt_and_masks_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        FirstFramePrompts(torch.tensor([0]))


def test_steps_before_the_first_are_followed_and_not_learned_from(segmenter: Segmenter) -> None:
    tokens = torch.randn(1, 2, 32, requires_grad=True)
    frames, tracks = torch.randn(4, 3, 64, 64), torch.arange(4)[None]
    anchors = [FirstFramePrompts(torch.tensor([0]), SegmentPrompt(tokens=tokens))]
    whole = list(memory_rollout(segmenter, segmenter.encode(frames), tracks, anchors))
    parted = list(memory_rollout(segmenter, segmenter.encode(frames), tracks, anchors, first_step=2))
    for one, other in zip(whole, parted, strict=True):
        torch.testing.assert_close(one.segmentation.mask_logits, other.segmentation.mask_logits)
    assert [step.segmentation.mask_logits.requires_grad for step in parted] == [False, False, True, True]
    parted[-1].segmentation.candidate_logits.square().mean().backward()
    assert tokens.grad is None
    # The last memory that was learned from is written on the step before.
    assert float(segmenter.memory_encoder.out_proj.weight.grad.abs().sum()) > 0
