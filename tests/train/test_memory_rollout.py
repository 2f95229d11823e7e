"""Training roll-outs compute the masks of inference, with gradients through the memory."""

from __future__ import annotations

import pytest
import torch
from helpers.byte_model import byte_config
from helpers.tracker_reference import HEIGHT, WIDTH, OfficialPredictor, synthetic_video, tiny_segmenter

from unipixel.tracking.clip_features import normalise_frame
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import StreamingTracker
from unipixel.tracking.types import SegmentPrompt
from unipixel.train.memory_rollout import FirstFramePrompts, memory_rollout


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    segmenter = Segmenter(byte_config().segmenter).eval()
    # An absent object would hide the masks.
    torch.nn.init.constant_(segmenter.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 9.0)
    return segmenter


@torch.no_grad()
def test_rollout_masks_equal_those_of_the_streaming_tracker(segmenter: Segmenter) -> None:
    frames, tokens = torch.randn(4, 3, 64, 64), torch.randn(1, 2, 32)
    anchors = [FirstFramePrompts(torch.tensor([0]), SegmentPrompt(tokens=tokens))]
    steps = memory_rollout(segmenter, segmenter.encode(frames), torch.arange(4)[None], anchors, num_frames=4)
    tracker = StreamingTracker(segmenter, memory_dtype=torch.float32, num_frames=4)
    for step, frame in zip(steps, frames, strict=True):
        tracked = tracker.step(frame)
        if step.step == 0:
            tracked = tracker.add_tokens(1, tokens[0])
        torch.testing.assert_close(step.segmentation.mask_logits, tracked.masks.mask_logits, rtol=1e-4, atol=1e-3)


@torch.no_grad()
@pytest.mark.usefixtures("float32_memories")
def test_rollout_masks_agree_with_the_official_predictor() -> None:
    segmenter, video = tiny_segmenter(), synthetic_video(6)
    side, points = segmenter.config.image_size, [[80.0, 60.0], [60.0, 120.0]]
    official = OfficialPredictor(segmenter, video)
    for object_id, point in enumerate(points):
        official.click(0, object_id, [point], [1])
    expected = torch.stack(list(official.propagate().values()))
    features = segmenter.encode(torch.stack([normalise_frame(frame, image_size=side) for frame in video]))
    coords = torch.tensor(points)[:, None] / torch.tensor([WIDTH, HEIGHT]) * side
    prompt = SegmentPrompt(coords=coords, labels=torch.ones(2, 1, dtype=torch.int))
    anchors = [FirstFramePrompts(torch.arange(2), prompt)]
    steps = list(memory_rollout(segmenter, features, torch.arange(6).expand(2, -1), anchors, num_frames=6))
    logits = torch.stack([step.segmentation.mask_logits for step in steps])
    resized = torch.nn.functional.interpolate(logits, size=(HEIGHT, WIDTH), mode="bilinear")
    assert bool((expected > 0).any())
    torch.testing.assert_close(resized, expected, rtol=0, atol=1e-2)


def test_rollout_objects_of_different_clips_are_independent(segmenter: Segmenter) -> None:
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


def test_rollout_gradients_of_the_last_frame_reach_the_prompt_of_the_first(segmenter: Segmenter) -> None:
    tokens = torch.randn(1, 2, 32, requires_grad=True)
    features = segmenter.encode(torch.randn(3, 3, 64, 64))
    anchors = [FirstFramePrompts(torch.tensor([0]), SegmentPrompt(tokens=tokens))]
    *_, last = memory_rollout(segmenter, features, torch.arange(3)[None], anchors)
    last.segmentation.candidate_logits.square().mean().backward()
    assert tokens.grad is not None
    assert float(tokens.grad.abs().sum()) > 0


def test_rollout_given_masks_are_not_decoded(segmenter: Segmenter) -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 8:40, 8:40] = True
    features = segmenter.encode(torch.randn(2, 3, 64, 64))
    first, second = memory_rollout(
        segmenter, features, torch.tensor([[0, 1]]), [FirstFramePrompts(torch.tensor([0]), masks=mask)]
    )
    assert first.is_given
    assert not second.is_given
    assert int((first.segmentation.mask_logits > 0).sum()) == 8 * 8


def test_first_frame_prompts_without_prompt_and_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        FirstFramePrompts(torch.tensor([0]))


def test_rollout_steps_before_first_step_have_no_gradients(segmenter: Segmenter) -> None:
    tokens = torch.randn(1, 2, 32, requires_grad=True)
    frames, tracks = torch.randn(4, 3, 64, 64), torch.arange(4)[None]
    anchors = [FirstFramePrompts(torch.tensor([0]), SegmentPrompt(tokens=tokens))]
    whole = list(memory_rollout(segmenter, segmenter.encode(frames), tracks, anchors))
    partial = list(memory_rollout(segmenter, segmenter.encode(frames), tracks, anchors, first_step=2))
    for one, other in zip(whole, partial, strict=True):
        torch.testing.assert_close(one.segmentation.mask_logits, other.segmentation.mask_logits)
    assert [step.segmentation.mask_logits.requires_grad for step in partial] == [False, False, True, True]
    partial[-1].segmentation.candidate_logits.square().mean().backward()
    assert tokens.grad is None
    # The last memory with gradients is written one step earlier.
    assert float(segmenter.memory_encoder.out_proj.weight.grad.abs().sum()) > 0
