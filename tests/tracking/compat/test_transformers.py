"""The compatible video model agrees with transformers' own model with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tracker_reference import HEIGHT, WIDTH, foreground_fraction, min_iou, synthetic_video
from helpers.transformers_reference import transformers_model, transformers_processor, wider_segmenter
from torch import Tensor

from unipixel.tracking.compat.transformers import Sam2VideoModel
from unipixel.tracking.compat.transformers_session import Sam2VideoInferenceSession, Sam2VideoSegmentationOutput
from unipixel.tracking.segmenter import Segmenter

NUM_FRAMES = 10
SIZE = (HEIGHT, WIDTH)
POINTS: dict[str, Any] = {"input_points": [[[[80.0, 60.0]], [[200.0, 100.0]]]], "input_labels": [[[1], [1]]]}
BOXES: dict[str, Any] = {"input_boxes": [[[20.0, 40.0, 150.0, 160.0], [120.0, 20.0, 250.0, 180.0]]]}
REFINED = BOXES | {"input_points": [[[[80.0, 60.0]], [[200.0, 100.0]]]], "input_labels": [[[1], [0]]]}


def _masks() -> list[np.ndarray]:
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, 40:120, 64:170] = masks[1, 10:90, 10:90] = True
    return list(masks)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return wider_segmenter()


@pytest.fixture(scope="module")
def model(segmenter: Segmenter) -> Any:
    return transformers_model(segmenter)


@pytest.fixture(scope="module")
def processor(segmenter: Segmenter) -> Any:
    return transformers_processor(segmenter)


@pytest.fixture(scope="module")
def frames(processor: Any) -> Tensor:
    """The clip as transformers' processor prepares it; it rounds resized frames and ours does not."""
    session = processor.init_video_session(video=list(synthetic_video(NUM_FRAMES)))
    return torch.stack([session.processed_frames[index] for index in range(NUM_FRAMES)])


def _logits(predictor: Any, outputs: list[Any]) -> Tensor:
    """Return the logits (T, B, H, W) of all frames."""
    masks = predictor.post_process_masks([output.pred_masks for output in outputs], [SIZE] * len(outputs), 0.0, False)
    return torch.stack(masks)[:, :, 0]


def _theirs(model: Any, processor: Any, inputs: dict[str, Any], *, start: int, **options: Any) -> Tensor:
    session = processor.init_video_session(video=list(synthetic_video(NUM_FRAMES)))
    processor.add_inputs_to_inference_session(session, start, [1, 2], **inputs)
    model(session, frame_idx=start)
    outputs = list(model.propagate_in_video_iterator(session, **options))
    return _logits(processor, outputs).clone()


def _check(ours: Tensor, theirs: Tensor) -> None:
    assert 0.01 < float(foreground_fraction(theirs).mean()) < 0.95
    assert min_iou(ours, theirs) >= 0.999


@pytest.mark.parametrize("inputs", [POINTS, BOXES, REFINED, {"input_masks": _masks()}])
def test_clip_agrees_with_transformers(
    segmenter: Segmenter, model: Any, processor: Any, frames: Tensor, inputs: dict[str, Any]
) -> None:
    predictor = Sam2VideoModel(segmenter)
    session = predictor.init_video_session(frames, original_size=SIZE)
    predictor.add_inputs_to_inference_session(session, 0, [1, 2], **inputs)
    first = predictor(session, frame_idx=0)
    outputs = list(predictor.propagate_in_video_iterator(session))
    assert [output.frame_idx for output in outputs] == list(range(NUM_FRAMES))
    assert torch.equal(first.pred_masks, outputs[0].pred_masks)
    assert outputs[-1].object_ids == [1, 2]
    assert outputs[-1].object_score_logits.shape == (2, 1)
    _check(_logits(predictor, outputs), _theirs(model, processor, inputs, start=0))


@pytest.mark.parametrize("options", [{"reverse": True}, {"start_frame_idx": 5, "max_frame_num_to_track": 2}])
def test_clip_agrees_backwards_and_in_part(
    segmenter: Segmenter, model: Any, processor: Any, frames: Tensor, options: dict[str, Any]
) -> None:
    predictor = Sam2VideoModel(segmenter)
    session = predictor.init_video_session(frames, original_size=SIZE)
    predictor.add_inputs_to_inference_session(session, 5, [1, 2], **POINTS)
    outputs = list(predictor.propagate_in_video_iterator(session, **options))
    assert len(outputs) == (6 if "reverse" in options else 3)
    _check(_logits(predictor, outputs), _theirs(model, processor, POINTS, start=5, **options))


@torch.no_grad()
def test_stream_agrees_with_transformers(segmenter: Segmenter, model: Any, processor: Any, frames: Tensor) -> None:
    predictor = Sam2VideoModel(segmenter)
    theirs, ours = processor.init_video_session(), predictor.init_video_session()
    sides = ((processor, theirs), (predictor, ours))
    outputs: list[tuple[Any, Sam2VideoSegmentationOutput]] = []
    for index, frame in enumerate(frames):
        for owner, session in sides:
            if index == 0:
                owner.add_inputs_to_inference_session(session, 0, [1, 2], **POINTS, original_size=SIZE)
        outputs.append((model(theirs, frame=frame), predictor(ours, frame=frame)))
    assert ours.num_frames is None
    _check(_logits(predictor, [own for _, own in outputs]), _logits(processor, [other for other, _ in outputs]))


@pytest.fixture
def stream(segmenter: Segmenter) -> tuple[Sam2VideoModel, Sam2VideoInferenceSession]:
    predictor = Sam2VideoModel(segmenter)
    return predictor, predictor.init_video_session()


def test_stream_of_raw_frames_accepts_objects_on_later_frames(
    stream: tuple[Sam2VideoModel, Sam2VideoInferenceSession],
) -> None:
    predictor, session = stream
    video = synthetic_video(6)
    sizes = []
    for index, frame in enumerate([*video, *video, *video, *video, *video]):
        if index == 2:
            predictor.add_inputs_to_inference_session(session, 3, 7, [[[[80, 60]]]], [[[1]]])
        output = predictor(session, frame=frame)
        assert output.object_ids == ([7] if index >= 3 else [])
        sizes.append(sum(state.num_bytes for state in session.objects.values()))
    assert len(set(sizes[-6:])) == 1, "the memories of a stream must not grow"
    session.reset_inference_session()
    assert predictor(session, frame=video[0]).frame_idx == 0
    assert session.obj_ids == []


def test_clicks_extend_earlier_ones_unless_these_are_cleared(segmenter: Segmenter, frames: Tensor) -> None:
    predictor = Sam2VideoModel(segmenter)

    def masks(*clicks: tuple[float, float], is_clearing: bool) -> Tensor:
        session = predictor.init_video_session()
        for x, y in clicks:
            predictor.add_inputs_to_inference_session(
                session, 0, 1, [[[[x, y]]]], [[[1]]], original_size=SIZE, clear_old_inputs=is_clearing
            )
        return predictor(session, frame=frames[0]).pred_masks

    both, last = masks((80, 60), (200, 100), is_clearing=False), masks((80, 60), (200, 100), is_clearing=True)
    assert torch.equal(last, masks((200, 100), is_clearing=True))
    assert not torch.equal(both, last)


def test_padding_points_are_ignored(segmenter: Segmenter, frames: Tensor) -> None:
    predictor = Sam2VideoModel(segmenter)
    results = []
    for points, labels in (([[[80.0, 60.0]]], [[1]]), ([[[80.0, 60.0], [-10.0, -10.0]]], [[1, -10]])):
        session = predictor.init_video_session(frames, original_size=SIZE)
        predictor.add_inputs_to_inference_session(session, 0, 1, torch.tensor([points]), torch.tensor([labels]))
        results.append(predictor(session, frame_idx=0).pred_masks)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("object_ids", "inputs", "message"),
    [
        (1, {}, "at least one of"),
        ([], BOXES, "obj_ids must name each object once"),
        ([1, 1], POINTS, r"once, got \[1, 1\]"),
        (1, POINTS, "2 objects for 1 object ids"),
        (1, {"input_points": [[[[1, 1]]]]}, "given together"),
        (1, {"input_points": [[[1, 1]]], "input_labels": [[[1]]]}, "points must be"),
        ([1, 2], {"input_points": [[1, 1]], "input_labels": [[1, 1]]}, "instead of an object"),
        (1, {"input_points": [1, 1], "input_labels": [1, 1]}, "nested"),
        (1, {"input_points": [[[[300, 1]]]], "input_labels": [[[1]]]}, r"point \(300, 1\) is outside the frame"),
        (1, {"input_points": [[[[3, 1]]]], "input_labels": [[[4]]]}, "label 4 is not allowed"),
        (1, {"input_boxes": [[[50, 10, 20, 40]]]}, "inverted or empty"),
        (1, {"input_boxes": [[[0, 0, 20, 40]]], "clear_old_inputs": False}, "before any point"),
        (1, {"input_masks": _masks()}, "2 masks for 1 object ids"),
        (1, {"input_masks": np.zeros((2, 4, 4))}, r"must be \(h, w\)"),
        ([1, 2], {"input_masks": _masks(), **BOXES}, "cannot be given together"),
    ],
)
def test_invalid_inputs_are_refused_and_add_nothing(
    segmenter: Segmenter, frames: Tensor, object_ids: Any, inputs: dict[str, Any], message: str
) -> None:
    predictor = Sam2VideoModel(segmenter)
    session = predictor.init_video_session(frames, original_size=SIZE)
    with pytest.raises((ValueError, TypeError), match=message):
        predictor.add_inputs_to_inference_session(session, 0, object_ids, **inputs)
    assert session.obj_ids == []


def test_invalid_calls_for_a_clip_are_refused(segmenter: Segmenter, frames: Tensor) -> None:
    predictor = Sam2VideoModel(segmenter)
    session = predictor.init_video_session(frames, original_size=SIZE)
    with pytest.raises(RuntimeError, match="call add_inputs_to_inference_session"):
        predictor(session, frame_idx=0)
    with pytest.raises(IndexError, match="frame 99 is outside the clip"):
        predictor.add_inputs_to_inference_session(session, 99, [1, 2], **BOXES)
    with pytest.raises(ValueError, match="give frame_idx"):
        predictor(session, frame=frames[0])


def test_invalid_calls_for_a_stream_are_refused(
    stream: tuple[Sam2VideoModel, Sam2VideoInferenceSession], frames: Tensor
) -> None:
    predictor, session = stream
    with pytest.raises(ValueError, match="original_size"):
        predictor.add_inputs_to_inference_session(session, 0, [1, 2], **BOXES)
    with pytest.raises(ValueError, match="give frame 0 as frame="):
        predictor(session, frame_idx=0)
    with pytest.raises(RuntimeError, match="one frame at a time"):
        next(predictor.propagate_in_video_iterator(session))
    predictor(session, frame=frames[0])
    with pytest.raises(ValueError, match="frame 1 or later"):
        predictor.add_inputs_to_inference_session(session, 0, [1, 2], **BOXES, original_size=SIZE)
    predictor(session, frame=synthetic_video(1)[0])
    with pytest.raises(ValueError, match="the stream has"):
        predictor(session, frame=np.zeros((8, 8, 3), np.uint8))
