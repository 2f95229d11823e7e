"""The tracker agrees with the predictor of the sam2 package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tracker_reference import (
    HEIGHT,
    WIDTH,
    OfficialPredictor,
    foreground_fraction,
    min_iou,
    synthetic_video,
    tiny_segmenter,
)
from torch import Tensor

from unipixel.tracking.clip_features import EncodedClip
from unipixel.tracking.compat.sam2 import SAM2VideoPredictor
from unipixel.tracking.prompts import click_prompt
from unipixel.tracking.propagation import ClipPrompt, Direction, propagate_in_video
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import StreamingTracker
from unipixel.tracking.tracker_core import TrackerCore

CLICK, BOX = [80.0, 60.0], [20.0, 40.0, 150.0, 160.0]
SECOND = [60, 120]


def _largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def _mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:120, 64:170] = True
    return mask


def _prompt_official(official: OfficialPredictor, kinds: list[str]) -> None:
    for object_id, kind in enumerate(kinds, start=1):
        if kind == "point":
            official.click(0, object_id, [CLICK], [1])
        elif kind == "box":
            official.box(0, object_id, BOX)
        else:
            official.mask(0, object_id, _mask())


def _stream(tracker: StreamingTracker, video: np.ndarray, kinds: list[str]) -> Tensor:
    logits = []
    for index, frame in enumerate(video):
        result = tracker.step(frame)
        if index == 0:
            for object_id, kind in enumerate(kinds, start=1):
                if kind == "point":
                    result = tracker.add_points(object_id, [CLICK])
                elif kind == "box":
                    result = tracker.add_box(object_id, BOX)
                else:
                    result = tracker.add_mask(object_id, _mask())
        logits.append(result.mask_logits())
    return torch.stack(logits)


@pytest.mark.parametrize("kinds", [["point"], ["box"], ["mask"], ["point", "box", "mask"]], ids="-".join)
def test_stream_of_30_frames_agrees_with_the_official_predictor(segmenter: Segmenter, kinds: list[str]) -> None:
    video = synthetic_video(30)
    official = OfficialPredictor(segmenter, video)
    _prompt_official(official, kinds)
    theirs = torch.stack(list(official.propagate().values()))
    fraction = foreground_fraction(theirs)
    assert float(fraction.min()) > 0.01
    assert float(fraction.max()) < 0.9
    assert min_iou(_stream(StreamingTracker(segmenter), video, kinds), theirs) >= 0.999


def test_stream_agrees_where_objects_are_absent_on_some_frames() -> None:
    segmenter, video = tiny_segmenter(score_shift=-0.65), synthetic_video(30)
    official = OfficialPredictor(segmenter, video)
    _prompt_official(official, ["point", "box", "mask"])
    theirs = torch.stack(list(official.propagate().values()))
    is_absent = foreground_fraction(theirs) == 0
    assert bool(is_absent.any())
    assert not bool(is_absent.all())
    ours = _stream(StreamingTracker(segmenter), video, ["point", "box", "mask"])
    assert min_iou(ours, theirs) >= 0.999


@pytest.mark.usefixtures("float32_memories")
def test_corrections_on_tracked_frames_agree(segmenter: Segmenter) -> None:
    video = synthetic_video(16, seed=1)
    official = OfficialPredictor(segmenter, video, add_all_frames_to_correct_as_cond=True)
    tracker = StreamingTracker(segmenter, num_frames=16, memory_dtype=torch.float32)
    official.click(0, 1, [CLICK], [1])
    theirs = official.propagate(max_frame_num_to_track=6)
    ours = {}
    for index, frame in enumerate(video):
        ours[index] = tracker.step(frame).mask_logits()
        if index == 0:
            ours[0] = tracker.add_points(1, [CLICK]).mask_logits()
        if index == 6:
            tracker.add_points(1, [SECOND], [0])
            ours[6] = tracker.add_points(1, [[200, 90]], [1], is_extending=True).mask_logits()
            official.click(6, 1, [SECOND], [0])
            theirs[6] = official.click(6, 1, [[200, 90]], [1], clear_old_points=False).clone()
            theirs |= official.propagate(start_frame_idx=6)
    assert _largest_difference([ours[i] for i in range(16)], [theirs[i] for i in range(16)]) < 1e-2


@pytest.mark.usefixtures("float32_memories")
@pytest.mark.parametrize("is_permanent", [True, False])
def test_compatible_predictor_agrees_after_corrections_in_both_directions(
    segmenter: Segmenter, is_permanent: bool
) -> None:
    video = synthetic_video(12, seed=2)
    official = OfficialPredictor(segmenter, video, add_all_frames_to_correct_as_cond=is_permanent)
    predictor = SAM2VideoPredictor(
        segmenter, memory_dtype=torch.float32, add_all_frames_to_correct_as_cond=is_permanent
    )
    state = predictor.init_state(video)
    theirs: list[Tensor] = []
    ours: list[Tensor] = []

    def propagate(**options: Any) -> None:
        theirs.extend(official.propagate(**options).values())
        ours.extend(logits[:, 0] for _, _, logits in predictor.propagate_in_video(state, **options))

    official.click(4, 1, [CLICK], [1])
    predictor.add_new_points_or_box(state, 4, 1, points=[CLICK], labels=[1])
    official.box(4, 2, BOX)
    predictor.add_new_points_or_box(state, 4, 2, box=BOX)
    propagate()
    propagate(reverse=True)
    theirs.append(official.click(8, 1, [SECOND, [200, 90]], [0, 1]).clone())
    ours.append(predictor.add_new_points_or_box(state, 8, 1, points=[SECOND, [200, 90]], labels=[0, 1])[2][:, 0])
    propagate(start_frame_idx=8)
    propagate(start_frame_idx=8, reverse=True, max_frame_num_to_track=5)
    theirs.append(official.mask(2, 2, _mask()).clone())
    ours.append(predictor.add_new_mask(state, 2, 2, _mask())[2][:, 0])
    propagate(start_frame_idx=2)
    assert _largest_difference(ours, theirs) < 1e-2


@pytest.mark.parametrize("direction", ["both", "backward"])
def test_backwards_from_an_anchor_agrees(segmenter: Segmenter, direction: Direction) -> None:
    video = synthetic_video(24, seed=3)
    official = OfficialPredictor(segmenter, video)
    official.click(17, 1, [CLICK], [1])
    theirs = official.propagate() if direction == "both" else {}
    theirs |= official.propagate(reverse=True)
    clip = EncodedClip(segmenter, video)
    prompt = click_prompt([CLICK], size=(HEIGHT, WIDTH), image_size=segmenter.config.image_size)
    prompts = [ClipPrompt(1, 17, prompt)]
    core = TrackerCore(segmenter, num_frames=24)
    ours = {
        frame.frame_index: frame.mask_logits() for frame in propagate_in_video(core, clip, prompts, direction=direction)
    }
    del theirs[17]  # part of both of their passes
    ours.pop(17, None)
    assert ours.keys() == theirs.keys()
    assert min(min_iou(ours[index], theirs[index]) for index in theirs) >= 0.999
    assert clip.num_encoded <= 24


def test_post_processing_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import ndimage

    def components(masks: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.stack([torch.from_numpy(ndimage.label(m[0].numpy(), np.ones((3, 3)))[0]) for m in masks])
        areas = torch.stack([torch.bincount(label.flatten())[label] for label in labels])
        return labels[:, None], areas[:, None]

    # The implementation of the package requires CUDA.
    monkeypatch.setattr("sam2.utils.misc.get_connected_components", components)
    segmenter, video = tiny_segmenter(), synthetic_video(8)
    stability = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    official = OfficialPredictor(
        segmenter, video, binarize_mask_from_pts_for_mem_enc=True, fill_hole_area=8,
        sam_mask_decoder_extra_args=stability,
    )  # fmt: skip
    _prompt_official(official, ["box", "mask"])
    theirs = torch.stack(list(official.propagate().values()))
    tracker = StreamingTracker(segmenter, num_frames=8, is_postprocessed=True)
    unprocessed = _stream(StreamingTracker(segmenter, num_frames=8), video, ["box", "mask"])
    assert min_iou(_stream(tracker, video, ["box", "mask"]), theirs) >= 0.999
    assert min_iou(unprocessed, theirs) < 0.999
