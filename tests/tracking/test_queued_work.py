"""A step of tracking never waits for the device: no value of a tensor is read by Python."""

from __future__ import annotations

from typing import Any

from helpers.tracker_reference import synthetic_video, tiny_segmenter
from torch.utils._python_dispatch import TorchDispatchMode

from unipixel.tracking.tracker import StreamingTracker

# Operators whose result depends on values that only the device knows.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique2"}


class OperatorNames(TorchDispatchMode):
    """Records the names of all operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


def test_tracking_a_frame_reads_no_value_of_a_tensor() -> None:
    tracker, video = StreamingTracker(tiny_segmenter()), synthetic_video(20)
    for index, frame in enumerate(video[:-1]):
        tracker.step(frame)
        if index == 0:
            tracker.add_points(1, [(80, 60)])
            tracker.add_box(2, [20, 40, 150, 160])
    with OperatorNames() as record:
        tracker.step(video[-1]).mask_logits()
    assert "scaled_dot_product_attention" in " ".join(record.names) or "convolution" in record.names
    assert record.names & WAITING == set()
