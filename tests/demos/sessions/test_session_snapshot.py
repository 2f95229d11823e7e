"""What a snapshot of a session says of its objects."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.moving_square import clip_frames
from helpers.tracker_reference import tiny_segmenter

from unipixel.demos.sessions.session_snapshot import SessionSnapshot
from unipixel.session.video_objects import VideoObjects


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([0.9] * 6, ""),
        ([0.9, *[0.1] * 5], "low confidence after frame 0"),
        ([0.1] * 6, "low confidence in the whole video"),
    ],
)
def test_objects_say_where_their_scores_stay_low(scores: list[float], text: str) -> None:
    objects = VideoObjects(tiny_segmenter(), clip_frames())
    objects.bank.add(1, source="point")
    mask = np.zeros((40, 56), bool)
    mask[8:24, 4:20] = True
    for index, score in enumerate(scores):
        objects.bank.update(1, index, mask, score=score)
    snapshot = SessionSnapshot()
    snapshot.update(objects, {})
    (item,) = snapshot.objects({})
    assert item.low_confidence == text
