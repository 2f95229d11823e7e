"""Tracking through a range of frames: which frames, which objects, and what an interruption keeps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frames

from unipixel.model.unipixel import UniPixel
from unipixel.processing.visual_prompts import PointPrompt
from unipixel.session.range_tracking import FrameRange, track_range
from unipixel.session.video_objects import VideoObjects


@pytest.fixture
def objects(model: UniPixel) -> VideoObjects:
    return VideoObjects(model.sam2, clip_frames())


def counts(objects: VideoObjects, object_id: int = 1) -> dict[int, str | None]:
    return {index: record.counts for index, record in objects.bank.mask_records(object_id)}


class TestSelection:
    @pytest.mark.parametrize(
        ("values", "prompted", "expected"),
        [
            ({}, {2}, list(range(10))),
            ({"stride": 3}, {4}, [1, 4, 7]),
            ({"stride": 4}, {1, 2}, [1, 2, 5, 9]),
            ({"start_frame": 5, "direction": "forward"}, {5}, [5, 6, 7, 8, 9]),
            ({"start_frame": 5, "direction": "backward", "stride": 2}, {5}, [1, 3, 5]),
            ({"start_frame": 5, "first_frame": 3, "last_frame": 7, "stride": 2}, {5, 9}, [3, 5, 7]),
        ],
    )
    def test_frames_are_those_of_range_stride_and_prompts(
        self, values: dict[str, Any], prompted: set[int], expected: list[int]
    ) -> None:
        assert FrameRange(**values).select(10, prompted) == expected

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"first_frame": 4, "last_frame": 3}, "its first frame is after its last"),
            ({"last_frame": 10}, "range 0 to 10 is not in the video"),
            ({"first_frame": -1}, "range -1 to 9 is not in the video"),
            ({"start_frame": 2, "first_frame": 3}, "frame 2 is not in the range 3 to 9"),
            ({"stride": 0}, "the stride must be 1 to 10, got 0"),
        ],
    )
    def test_a_wrong_range_is_refused(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            FrameRange(**values).select(10, set())


class TestTracking:
    def test_the_whole_range_equals_tracking_of_the_video(self, model: UniPixel, objects: VideoObjects) -> None:
        reference = VideoObjects(model.sam2, clip_frames())
        for each in (objects, reference):
            each.prompt(1, PointPrompt(12, 12, 2))
        order = [tracked.frame.index for tracked in track_range(objects, FrameRange()).frames]
        assert order == [2, 3, 4, 5, 1, 0]
        reference.track()
        assert counts(objects) == counts(reference)

    def test_the_mask_of_a_click_is_that_with_which_tracking_starts(self, objects: VideoObjects) -> None:
        objects.prompt(1, PointPrompt(12, 12, 2), PointPrompt(40, 30, 2, is_positive=False))
        segmented = objects.segment_pending(1, 2)
        assert objects.bank.ids == ()
        objects.track()
        record = objects.bank.mask_record(1, 2)
        assert record is not None
        np.testing.assert_array_equal(segmented.mask & segmented.visible, record.mask(objects.bank.frame_size))

    def test_the_mask_of_a_correction_is_that_with_which_tracking_starts(self, objects: VideoObjects) -> None:
        objects.prompt(1, PointPrompt(12, 12, 2))
        objects.track()
        for frame_index in (2, 4):  # a prompted and a tracked frame
            objects.prompt(1, PointPrompt(30, 20, frame_index))
            segmented = objects.segment_pending(1, frame_index)
            list(track_range(objects, FrameRange()).frames)
            record = objects.bank.mask_record(1, frame_index)
            assert record is not None
            np.testing.assert_array_equal(segmented.mask & segmented.visible, record.mask(objects.bank.frame_size))

    def test_an_interruption_keeps_finished_and_earlier_masks(self, objects: VideoObjects) -> None:
        objects.prompt(1, PointPrompt(12, 12, 2))
        list(track_range(objects, FrameRange()).frames)
        before = counts(objects)
        objects.prompt(1, PointPrompt(45, 35, 2))
        changed = [tracked.frame.index for tracked in itertools.islice(track_range(objects, FrameRange()).frames, 2)]
        assert changed == [2, 3]
        after = counts(objects)
        assert {index: after[index] for index in (0, 1, 4, 5)} == {index: before[index] for index in (0, 1, 4, 5)}
        assert objects.pending_prompts == {}

    def test_tracking_from_a_frame_changes_the_masks_of_its_range_only(self, objects: VideoObjects) -> None:
        objects.prompt(1, PointPrompt(12, 12, 0))
        list(track_range(objects, FrameRange(last_frame=2)).frames)
        assert sorted(counts(objects)) == [0, 1, 2]
        # Random weights may lose the object.
        objects.bank.update(1, 2, np.tri(HEIGHT, WIDTH))
        before = counts(objects)
        order = [tracked.frame.index for tracked in track_range(objects, FrameRange(2, "forward", last_frame=4)).frames]
        assert order == [2, 3, 4]
        assert {index: counts(objects)[index] for index in (0, 1)} == {index: before[index] for index in (0, 1)}
        objects.bank.update(1, 4, np.tri(HEIGHT, WIDTH))
        backward = [tracked.frame.index for tracked in track_range(objects, FrameRange(4, "backward", stride=2)).frames]
        assert backward == [2, 0]

    def test_prompts_outside_the_range_stay_pending(self, objects: VideoObjects) -> None:
        objects.prompt(1, PointPrompt(12, 12, 0), PointPrompt(30, 12, 5))
        list(track_range(objects, FrameRange(last_frame=3)).frames)
        assert [prompt.frame_index for prompt in objects.pending_prompts[1]] == [5]
        assert len(objects.bank[1].prompts) == 1

    def test_only_chosen_objects_are_tracked(self, objects: VideoObjects) -> None:
        objects.prompt(1, PointPrompt(12, 12, 0))
        objects.prompt(2, PointPrompt(40, 30, 0))
        tracking = track_range(objects, FrameRange(), object_ids=[2])
        assert (tracking.object_ids, tracking.num_frames) == ((2,), NUM_FRAMES)
        list(tracking.frames)
        assert objects.bank.ids == (2,)
        assert list(objects.pending_prompts) == [1]

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            (FrameRange(), "no object to track in frames 0 to 5"),
            (FrameRange(3), "no object is visible on frame 3: click one there first"),
        ],
    )
    def test_without_an_object_it_is_refused(self, objects: VideoObjects, frames: FrameRange, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            track_range(objects, frames)

    def test_a_frame_without_prompts_has_no_mask_to_show(self, objects: VideoObjects) -> None:
        with pytest.raises(ValueError, match="object 1 has no pending prompts on frame 0"):
            objects.segment_pending(1, 0)

    def test_a_selection_needs_the_prompted_frames(self, objects: VideoObjects) -> None:
        objects.prompt(1, PointPrompt(12, 12, 1))
        prompts = objects.accept_pending(1, within=range(NUM_FRAMES))
        with pytest.raises(ValueError, match="a prompt is on frame 1, which is not tracked"):
            next(objects.tracker.track_selection(prompts, [0, 2]))
