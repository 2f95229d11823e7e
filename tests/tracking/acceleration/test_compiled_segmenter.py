"""Compiled steps and padded batches give the masks of the plain segmenter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers.tracker_reference import foreground_fraction, min_iou, synthetic_video, tiny_segmenter
from torch import Tensor

from unipixel.tracking.acceleration.compiled_segmenter import BUCKETS, CompiledSegmenter, bucket_size, pad_rows
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import StreamingTracker

NUM_FRAMES = 19
CLICKS = ([[80, 60]], [[200, 100]], [[120, 120]])


@pytest.fixture(autouse=True)
def _no_compiled_code() -> Iterator[None]:
    """Compile anew in each test, because torch compiles one function for a few shapes only."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _track(segmenter: Segmenter, *, num_objects: int, is_batched: bool = True) -> Tensor:
    """Return the logits (T, B, H, W); the memory is full on the last frames."""
    tracker = StreamingTracker(segmenter, memory_dtype=torch.float32)
    # As on a GPU, where all objects are one batch.
    tracker._core.batch_size = num_objects if is_batched else None
    logits = []
    for index, frame in enumerate(synthetic_video(NUM_FRAMES)):
        tracked = tracker.step(frame)
        for object_id in range(num_objects if index == 0 else 0):
            tracked = tracker.add_points(object_id, CLICKS[object_id])
        logits.append(tracked.mask_logits())
    return torch.stack(logits)


@pytest.mark.parametrize("num_objects", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_compiled_steps_give_the_masks_of_the_plain_segmenter(num_objects: int) -> None:
    segmenter = tiny_segmenter()
    compiled = CompiledSegmenter(segmenter, backend="aot_eager")
    expected, given = (_track(each, num_objects=num_objects) for each in (segmenter, compiled))
    assert 0.01 < float(foreground_fraction(expected).mean()) < 0.95
    assert float((given - expected).abs().max()) < 1e-2
    assert min_iou(given, expected) >= 0.999
    # Each of the four steps was compiled for one shape.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 4


def test_padding_changes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    segmenter = tiny_segmenter()
    padded = CompiledSegmenter(segmenter)
    expected, given = (_track(each, num_objects=3) for each in (segmenter, padded))
    assert min_iou(given, expected) == 1
    assert float((given - expected).abs().max()) < 1e-2
    alone = _track(segmenter, num_objects=3, is_batched=False)
    assert min_iou(given, alone) >= 0.999


def test_parameters_are_shared() -> None:
    segmenter = tiny_segmenter()
    compiled = CompiledSegmenter(segmenter)
    ours, theirs = dict(compiled.named_parameters()), dict(segmenter.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is parameter for name, parameter in theirs.items())


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 2), (3, 4), (9, 16), (33, 64), (64, 64), (65, 128)])
def test_batches_are_padded_to_the_next_bucket(count: int, size: int) -> None:
    assert bucket_size(count) == size
    assert BUCKETS == (1, 2, 4, 8, 16, 32, 64)
    rows = torch.arange(count)[:, None]
    padded = pad_rows(rows, size)
    assert torch.equal(padded[:count], rows)
    assert padded[count:].eq(0).all()
    assert len(padded) == size
