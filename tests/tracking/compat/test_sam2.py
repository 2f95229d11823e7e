"""The parts of the compatible `SAM2VideoPredictor` that are not compared with the package's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tracker_reference import synthetic_video
from PIL import Image

from unipixel.tracking.compat.sam2 import SAM2VideoPredictor
from unipixel.tracking.segmenter import Segmenter

CLICK: dict[str, Any] = {"points": [[80, 60]], "labels": [1]}


@pytest.fixture
def predictor(segmenter: Segmenter) -> SAM2VideoPredictor:
    return SAM2VideoPredictor(segmenter)


def test_folder_of_images_equals_its_frames_in_the_order_of_numbers(
    predictor: SAM2VideoPredictor, tmp_path: Path
) -> None:
    video = synthetic_video(3)
    for number, frame in zip((2, 9, 10), video, strict=True):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    results = []
    for source in (tmp_path, video):
        state = predictor.init_state(source)
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        results.append(torch.cat([logits for _, _, logits in predictor.propagate_in_video(state)]))
    assert torch.equal(*results)


def test_remove_object_returns_the_remaining_ids(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(synthetic_video(2))
    for object_id in (1, 2):
        predictor.add_new_points_or_box(state, 0, object_id, **CLICK)
    assert predictor.remove_object(state, 1) == [2]
    with pytest.raises(RuntimeError, match=r"object 1 does not exist: ids are \[2\]"):
        predictor.remove_object(state, 1, strict=True)


def test_reset_state_removes_all_objects(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(synthetic_video(2))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.reset_state(state)
    with pytest.raises(RuntimeError, match="no object was prompted"):
        next(predictor.propagate_in_video(state))


def test_invalid_folders_are_refused(predictor: SAM2VideoPredictor, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is not a folder of images"):
        predictor.init_state(tmp_path / "clip.mp4")
    with pytest.raises(OSError, match=r"contains no images: allowed are \.jpg"):
        predictor.init_state(tmp_path)
