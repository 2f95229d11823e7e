from __future__ import annotations

import numpy as np
import pytest
import torch

from unipixel.memory.records import PromptRecord
from unipixel.processing.clip_layout import ClipLayout, recall_prompt, record_prompt, to_references
from unipixel.processing.prompt_checks import check_prompt
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt

LAYOUT = ClipLayout((0, 4, 8, 11, 15), frame_size=(480, 854), num_video_frames=20, grid_thw=(3, 22, 42))


def test_references_of_points_and_boxes_are_in_sam_pixels() -> None:
    # Recorded from the published code: case_preprocess_long and _short of the golden figures.
    prompts: list[VisualPrompt] = [
        PointPrompt(400.0, 250.0, 8),
        BoxPrompt((300.5, 120.0, 560.0, 400.0), 15),
        PointPrompt(12.0, 470.0),
    ]
    point, box, corner = to_references(prompts, LAYOUT, image_size=768)
    assert torch.equal(point.coords, torch.tensor([[359.71896, 400.0]]))
    assert torch.equal(box.coords, torch.tensor([[270.23886, 192.0], [503.60657, 640.0]]))
    assert torch.equal(corner.coords, torch.tensor([[10.791569, 752.0]]))
    assert [reference.frame for reference in (point, box, corner)] == [2, 4, 0]
    assert {reference.num_frames for reference in (point, box, corner)} == {6}


def test_layout_counts_merged_tokens() -> None:
    assert LAYOUT.num_tokens == 3 * 11 * 21
    assert LAYOUT.num_frames == 5


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (PointPrompt(854, 10), r"point \(854, 10\) is outside the frame of 854 x 480 pixels"),
        (PointPrompt(-0.5, 10), "outside the frame"),
        (PointPrompt(3, float("nan")), "outside the frame"),
        (PointPrompt(3, 3, frame_index=20), "frame 20 is outside the clip of 20 frames: allowed are 0 to 19"),
        (PointPrompt(3, 3, frame_index=-1), "frame -1 is outside"),
        (BoxPrompt((30, 10, 20, 40)), r"box \(30, 10, 20, 40\) is inverted"),
        (BoxPrompt((10, 10, 10, 40)), "inverted or empty"),
        (BoxPrompt((860, 10, 900, 40)), "outside the frame of 854 x 480"),
        (BoxPrompt((float("nan"), 10, 20, 40)), "inverted|outside"),
        (MaskPrompt(np.ones((480, 640), dtype=bool)), r"shape \(480, 640\), the frames have \(H, W\) = \(480, 854\)"),
        (MaskPrompt(np.zeros((480, 854), dtype=bool), 3), "mask on frame 3 is empty"),
    ],
)
def test_prompts_outside_the_video_are_refused(prompt: VisualPrompt, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_prompt(prompt, frame_size=(480, 854), num_video_frames=20)


@pytest.mark.parametrize(
    "prompt",
    [PointPrompt(0, 0), PointPrompt(853.9, 479.9, 19), BoxPrompt((0, 0, 854, 480)), MaskPrompt(np.ones((480, 854)))],
)
def test_prompts_on_the_edge_are_accepted(prompt: VisualPrompt) -> None:
    check_prompt(prompt, frame_size=(480, 854), num_video_frames=20)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (PointPrompt(3, 3, frame_index=5), r"frame 5 has a prompt, but .* kept=\[5\]"),
        (PointPrompt(3, 3, is_positive=False), "negative point .* give it to the tracker"),
        (MaskPrompt(np.ones((480, 854), dtype=bool)), "a mask is no <|ref|>"),
    ],
)
def test_prompts_that_cannot_be_references_are_refused(prompt: VisualPrompt, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_references([prompt], LAYOUT, image_size=768)


@pytest.mark.parametrize("prompt", [PointPrompt(1.5, 2, 7, is_positive=False), BoxPrompt((1, 2.5, 3, 4), 5)])
def test_recorded_prompts_are_recalled(prompt: VisualPrompt) -> None:
    record = PromptRecord.from_json(record_prompt(prompt).to_json(), (6, 8))
    assert recall_prompt(record, frame_size=(6, 8)) == prompt


def test_a_recorded_mask_is_recalled() -> None:
    mask = np.eye(6, 8, dtype=bool)
    recalled = recall_prompt(record_prompt(MaskPrompt(mask, 3)), frame_size=(6, 8))
    assert isinstance(recalled, MaskPrompt)
    assert (recalled.mask == mask).all()
    assert recalled.frame_index == 3
    with pytest.raises(ValueError, match="a point has no mask"):
        record_prompt(PointPrompt(1, 2)).mask((6, 8))
