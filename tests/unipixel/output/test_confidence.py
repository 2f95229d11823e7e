"""Where masks are uncertain, and how it is reported."""

from __future__ import annotations

import numpy as np
import pytest

from unipixel.output.confidence import describe_ranges, is_uncertain, low_confidence_ranges
from unipixel.output.result import Result
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo


@pytest.mark.parametrize(
    ("visible", "score", "area", "expected"),
    [
        (True, 0.39, 50, True),
        (True, 0.4, 50, False),
        (True, 0.99, 91, True),
        (True, 0.99, 90, False),
        (False, 0.0, 0, False),
    ],
)
def test_mask_is_uncertain_if_its_score_is_low_or_it_floods_the_frame(
    visible: bool, score: float, area: int, expected: bool
) -> None:
    assert is_uncertain(visible=visible, score=score, area=area, num_pixels=100) is expected


@pytest.mark.parametrize(
    ("low", "expected"),
    [
        ([], []),
        (range(10), [(0, 9)]),
        (range(5, 10), [(5, 9)]),
        (range(6, 10), []),
        ([0, 1, 2, 3, 4, 6, 7], [(0, 4)]),
    ],
)
def test_low_confidence_is_reported_from_five_frames_on(low: list[int], expected: list[tuple[int, int]]) -> None:
    assert low_confidence_ranges((index, index in low) for index in range(10)) == expected


def test_low_confidence_of_a_short_video_is_reported_if_no_frame_is_certain() -> None:
    assert low_confidence_ranges([(0, True), (1, True)]) == [(0, 1)]
    assert low_confidence_ranges([(0, True), (1, False)]) == []


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ([], ""),
        ([(0, 79)], "low confidence in the whole video"),
        ([(41, 79)], "low confidence after frame 40"),
        ([(3, 9), (41, 79)], "low confidence in frames 3 to 9, after frame 40"),
        ([(0, 5), (10, 15), (20, 25), (30, 35)], "low confidence in frames 0 to 5, in frames 10 to 15, in frames 20 to "
         "25 and 1 more"),
    ],
)  # fmt: skip
def test_describe_ranges_names_the_frames(ranges: list[tuple[int, int]], text: str) -> None:
    assert describe_ranges(ranges, num_frames=80) == text


def test_result_names_the_frames_after_which_scores_stay_low() -> None:
    result = Result(VideoInfo("clip.mp4", 8, 6, 20, 10.0, 2.0))
    result.add_object(1, source="point")
    mask = np.zeros((6, 8), bool)
    mask[1:3, 1:3] = True
    for index in range(20):
        frame = Frame(index, index / 10, np.zeros((6, 8, 3), np.uint8))
        result.add_frame(frame, {1: ObjectMask(mask, 0.9 if index <= 12 else 0.2, True)})
    assert result.to_dict()["objects"][0]["low_confidence"] == [[13, 19]]
    assert result.objects[1].describe() == "[1] point: visible in 20 of 20 frames, low confidence after frame 12"
