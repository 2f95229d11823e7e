from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from helpers.tracker_reference import HEIGHT, WIDTH, min_iou, synthetic_video, tiny_segmenter
from PIL import Image
from safetensors.torch import save_file

from unipixel.tracking.clip_features import EncodedClip
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.prompts import click_prompt
from unipixel.tracking.propagation import ClipPrompt, propagate_in_video, sample_candidate_frames, select_anchor_frames
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import FrameMemory, ObjectState
from unipixel.tracking.tracker import StreamingTracker, TrackerState
from unipixel.tracking.tracker_core import TrackerCore
from unipixel.tracking.types import SegmentPrompt

POINT, BOX = [[80, 60]], [20, 40, 150, 160]


def _tracker(segmenter: Segmenter, video: np.ndarray, **options: Any) -> StreamingTracker:
    tracker = StreamingTracker(segmenter, **options)
    tracker.step(video[0])
    tracker.add_points(1, POINT)
    return tracker


def test_stream_and_whole_clip_are_identical(segmenter: Segmenter) -> None:
    video = synthetic_video(17)
    tracker = _tracker(segmenter, video)
    streamed = [tracker.step(frame).masks.mask_logits for frame in video[1:]]
    prompt = click_prompt(POINT, size=(HEIGHT, WIDTH), image_size=segmenter.config.image_size)
    core = TrackerCore(segmenter, num_frames=len(video))
    whole = [
        frame.masks.mask_logits
        for frame in propagate_in_video(core, EncodedClip(segmenter, video), [ClipPrompt(1, 0, prompt)])
    ]
    assert torch.equal(torch.stack(streamed), torch.stack(whole[1:]))


def test_added_and_removed_objects_do_not_change_the_others(segmenter: Segmenter) -> None:
    video = synthetic_video(12)
    alone, together = _tracker(segmenter, video), _tracker(segmenter, video)
    for index, frame in enumerate(video[1:], start=1):
        expected, result = alone.step(frame), together.step(frame)
        assert torch.equal(expected.masks.mask_logits[0], result.masks.mask_logits[0])
        if index == 3:
            together.add_box(2, BOX)
            together.add_points(3, [[200, 150]])
        if index == 8:
            together.remove(2)
    assert together.object_ids == (1, 3)


def test_state_has_constant_size_after_the_first_frames(segmenter: Segmenter) -> None:
    video = synthetic_video(4)
    tracker = _tracker(segmenter, video)
    sizes = [(tracker.step(video[index % 4]), tracker.state.num_bytes)[1] for index in range(40)]
    assert len(set(sizes[30:])) == 1


@pytest.mark.slow
def test_memory_use_is_constant_over_10000_frames(segmenter: Segmenter) -> None:
    features = [EncodedClip(segmenter, synthetic_video(4))[index] for index in range(4)]
    tracker, process = StreamingTracker(segmenter), psutil.Process()
    tracker.step(features[0])
    tracker.add_points(1, [[40, 40]])
    sizes, resident = [], []
    for index in range(10_000):
        tracker.step(features[index % 4])
        sizes.append(tracker.state.num_bytes)
        resident.append(process.memory_info().rss)
    assert len(set(sizes[30:])) == 1
    # One byte per mask pixel of every frame would be ten times as much.
    assert max(resident) - max(resident[:1000]) < 4 * 2**20


def test_corrections_are_bounded_and_the_first_prompt_is_permanent(segmenter: Segmenter) -> None:
    video = synthetic_video(14)
    tracker = _tracker(segmenter, video)
    for frame in video[1:]:
        tracker.step(frame)
        tracker.add_points(1, [[100, 90]])
    tracker.step(video[0])
    assert list(tracker.state.objects[1].prompted) == [0, *range(6, 14)]


def test_state_of_the_base_plus_model_at_1024_is_below_5_megabytes() -> None:
    config = SegmenterConfig.preset("base_plus", image_size=1024)
    area, state = config.feature_size**2, ObjectState()

    def memory() -> FrameMemory:
        features = torch.empty(area, config.memory_dim, dtype=torch.bfloat16, device="meta")
        logits = torch.empty(config.mask_size, config.mask_size, device="meta")
        pointer, scores = torch.empty(config.embed_dim, device="meta"), torch.empty(2, device="meta")
        return FrameMemory(features, pointer, logits, scores)

    state.write_prompted(0, memory())
    for index in range(1, 60):
        state.write_tracked(index, memory(), num_maskmem=config.num_maskmem, max_pointers=config.max_pointers)
        state.drop_correction_data(index)
    assert 3.5e6 < state.num_bytes < 5e6


def test_copied_and_saved_states_continue_identically(segmenter: Segmenter, tmp_path: Path) -> None:
    video = synthetic_video(6)
    tracker = _tracker(segmenter, video)
    tracker.step(video[1])
    tracker.add_points(1, [[100, 90]], [0])
    branch = tracker.state.copy()
    tracker.state.save(tmp_path / "state.safetensors")
    expected = [tracker.step(frame).masks.mask_logits for frame in video[2:]]
    for state in (branch, TrackerState.load(tmp_path / "state.safetensors")):
        tracker.state = state
        assert all(
            torch.equal(tracker.step(frame).masks.mask_logits, e) for frame, e in zip(video[2:], expected, strict=True)
        )


def test_language_tokens_on_selected_anchor_frames_are_propagated(segmenter: Segmenter) -> None:
    tokens = torch.randn(2, 2, segmenter.config.embed_dim, generator=torch.Generator().manual_seed(0))
    clip = EncodedClip(segmenter, synthetic_video(9))
    anchors = select_anchor_frames(
        segmenter, clip, SegmentPrompt(tokens=tokens), candidates=sample_candidate_frames(9, count=3)
    )
    assert all(anchor in (0, 4, 8) for anchor in anchors)
    prompts = [
        ClipPrompt(row, anchor, SegmentPrompt(tokens=tokens[row : row + 1])) for row, anchor in enumerate(anchors)
    ]
    frames = list(propagate_in_video(TrackerCore(segmenter, num_frames=9), clip, prompts))
    assert {(frame.frame_index, object_id) for frame in frames for object_id in frame.object_ids} == {
        (index, row) for index in range(9) for row in range(2)
    }


def test_selected_anchor_frame_has_the_highest_score(segmenter: Segmenter) -> None:
    tokens = torch.randn(1, 2, segmenter.config.embed_dim, generator=torch.Generator().manual_seed(0))
    clip, scores = EncodedClip(segmenter, synthetic_video(3)), []
    for index in range(3):
        tracker = StreamingTracker(segmenter)
        tracker.step(clip[index])
        scores.append(float(tracker.add_tokens(1, tokens[0]).confidence[0]))
    (anchor,) = select_anchor_frames(segmenter, clip, SegmentPrompt(tokens=tokens), candidates=[0, 1, 2])
    assert anchor == int(np.argmax(scores))


def test_absent_objects_have_empty_masks() -> None:
    video = synthetic_video(3)
    tracker = _tracker(tiny_segmenter(score_shift=-100.0), video)
    result = tracker.step(video[1])
    assert not bool(result.is_present[0])
    assert float(result.confidence[0]) < 1e-3
    assert not bool(result.mask_of(1).any())


def test_redetection_reads_the_prompted_frames_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    video, lost = synthetic_video(6), tiny_segmenter(score_shift=-100.0)
    tracker = _tracker(lost, video, redetect_after=2)
    tracker.step(video[1])
    assert list(tracker.state.objects[1].tracked) == [1]
    found = tiny_segmenter()
    monkeypatch.setattr(lost.sam_mask_decoder, "pred_obj_score_head", found.sam_mask_decoder.pred_obj_score_head)
    tracker.step(video[2])
    assert tracker.state.objects[1].num_absent == 0


def test_step_without_objects_returns_an_empty_result(segmenter: Segmenter) -> None:
    result = StreamingTracker(segmenter).step(synthetic_video(1)[0])
    assert result.mask_logits().shape == (0, HEIGHT, WIDTH)


def test_batched_mixed_prompts_equal_single_ones(segmenter: Segmenter) -> None:
    video = synthetic_video(4)
    both, single = _tracker(segmenter, video), StreamingTracker(segmenter)
    both.add_box(2, BOX)
    single.step(video[0])
    single.add_box(2, BOX)
    for frame in video[1:]:
        pair, one = both.step(frame), single.step(frame)
        assert min_iou(pair.mask_logits()[1], one.mask_logits()[0]) == 1.0


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("add_points", ([[300, 10]],), r"point \(300, 10\) is outside the frame"),
        ("add_points", ([[-1, 10]],), "outside the frame"),
        ("add_points", ([[1, 1]], [4]), "label 4 is not allowed"),
        ("add_points", ([[1, 1]], [1, 0]), "1 points but 2 labels"),
        ("add_points", ([[float("nan"), 1]],), "outside the frame"),
        ("add_box", ([50, 10, 20, 40],), "inverted or empty"),
        ("add_box", ([900, 0, 950, 40],), "outside the frame"),
        ("add_mask", (np.zeros((HEIGHT, WIDTH)),), "mask is empty"),
        ("add_mask", (np.ones((5, 5)),), "size of the video, 192x256"),
        ("add_tokens", (torch.zeros(2, 3),), r"must be \(n, 64\)"),
    ],
)
def test_invalid_prompts_are_refused_and_add_nothing(
    segmenter: Segmenter, method: str, arguments: tuple, message: str
) -> None:
    tracker = StreamingTracker(segmenter)
    tracker.step(synthetic_video(1)[0])
    with pytest.raises(ValueError, match=message):
        getattr(tracker, method)(7, *arguments)
    assert tracker.object_ids == ()


def test_box_over_the_edge_is_clipped_with_a_warning(segmenter: Segmenter) -> None:
    clipped, exact = StreamingTracker(segmenter), StreamingTracker(segmenter)
    for tracker in (clipped, exact):
        tracker.step(synthetic_video(1)[0])
    with pytest.warns(UserWarning, match="reaches over the edge"):
        tracked = clipped.add_box(1, [100, -20, 900, 100])
    assert torch.equal(tracked.mask_logits(), exact.add_box(1, [100, 0, WIDTH, 100]).mask_logits())


def test_frame_that_is_an_image_is_tracked_as_its_pixels(segmenter: Segmenter) -> None:
    frame = synthetic_video(1)[0]
    from_image, from_pixels = StreamingTracker(segmenter), StreamingTracker(segmenter)
    from_image.step(Image.fromarray(frame))
    from_pixels.step(frame)
    assert torch.equal(from_image.add_box(1, BOX).mask_logits(), from_pixels.add_box(1, BOX).mask_logits())


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8, 3)), r"\(frame \* 255\).astype"),
        ("frame.png", "uint8 array .* got str"),
        (None, "got NoneType"),
    ],
)
def test_frame_of_another_type_is_refused_with_what_to_do(segmenter: Segmenter, frame: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        StreamingTracker(segmenter).step(frame)


def test_wrong_order_and_unknown_ids_are_refused(segmenter: Segmenter) -> None:
    tracker = StreamingTracker(segmenter, max_objects=1)
    with pytest.raises(RuntimeError, match="call step"):
        tracker.add_points(1, POINT)
    tracker.step(synthetic_video(1)[0])
    with pytest.raises(KeyError, match="object 4 is not tracked"):
        tracker.remove(4)
    tracker.add_points(1, POINT)
    with pytest.raises(ValueError, match="at most 1"):
        tracker.add_points(2, POINT)


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_frames_of_another_shape_are_refused(segmenter: Segmenter, frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match="raw frame must be"):
        StreamingTracker(segmenter).step(frame)


def test_frames_of_another_type_are_refused(segmenter: Segmenter) -> None:
    with pytest.raises(TypeError, match="uint8"):
        StreamingTracker(segmenter).step(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


def test_prompts_beyond_the_clip_are_refused(segmenter: Segmenter) -> None:
    clip = EncodedClip(segmenter, synthetic_video(2))
    prompt = click_prompt(POINT, size=(HEIGHT, WIDTH), image_size=128)
    with pytest.raises(IndexError, match="frame 9 is outside the clip: allowed are 0 to 1"):
        list(propagate_in_video(TrackerCore(segmenter), clip, [ClipPrompt(1, 9, prompt)]))


class TestSavedState:
    def test_pickle_is_refused(self, tmp_path: Path) -> None:
        torch.save({"frame_index": 0}, tmp_path / "state.pt")
        with pytest.raises(OSError, match="is not a saved state, or is damaged"):
            TrackerState.load(tmp_path / "state.pt")

    def test_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="is missing"):
            TrackerState.load(tmp_path / "state.safetensors")

    @pytest.mark.parametrize("metadata", [None, {"format": "unipixel-tracker-state-0", "tree": "{}"}])
    def test_state_of_another_version_is_refused(self, tmp_path: Path, metadata: dict[str, str] | None) -> None:
        save_file({"t0": torch.zeros(1)}, tmp_path / "state.safetensors", metadata=metadata)
        with pytest.raises(OSError, match=r"was written by another version: this version reads 'unipixel-tracker-.*"):
            TrackerState.load(tmp_path / "state.safetensors")


class TestEncodedClip:
    def test_cache_is_limited_to_its_size(self) -> None:
        segmenter = tiny_segmenter()
        frames = synthetic_video(6)
        one = EncodedClip(segmenter, frames)[0].num_bytes
        clip = EncodedClip(segmenter, frames, max_cache_bytes=2 * one)
        with torch.no_grad():
            for index in (0, 1, 0, 1, 2, 1, 0):
                clip[index]
        assert clip.num_encoded == 4  # frames 0, 1, 2, which evicts 0, and 0 again
