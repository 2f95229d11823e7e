"""Masks as `supervision.Detections`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from unipixel.memory.rle import decode_rle
from unipixel.output.coco import timestamps_of

if TYPE_CHECKING:
    from unipixel.output.result import Result


def iterate_detections(result: Result) -> Iterator[tuple[int, Any]]:
    """Return an iterator of (frame index, `supervision.Detections`) over every frame that has a record.

    Raises:
        ImportError: `supervision` is not installed.
    """
    detections_type = _detections_type()
    return ((index, _detections(result, index, detections_type)) for index in timestamps_of(result))


def detections_of_frame(result: Result, frame_index: int) -> Any:
    """Return the `supervision.Detections` of one frame.

    Raises:
        ImportError: `supervision` is not installed.
        ValueError: No object has a record of this frame.
    """
    detections_type = _detections_type()
    known = timestamps_of(result)
    if frame_index not in known:
        allowed = f"{min(known)} to {max(known)}" if known else "none, there is no object"
        raise ValueError(f"frame {frame_index} has no masks: allowed are {allowed}")
    return _detections(result, frame_index, detections_type)


def _detections_type() -> Any:
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError("supervision is missing: pip install 'unipixel-agent[eval]'") from error
    return Detections


def _detections(result: Result, frame_index: int, detections_type: Any) -> Any:
    records = ((object_id, result.objects[object_id].frame(frame_index)) for object_id in sorted(result.objects))
    found = [(object_id, frame) for object_id, frame in records if frame is not None and frame.rle is not None]
    if not found:
        return detections_type.empty()
    return detections_type(
        xyxy=np.array([frame.box_xyxy for _, frame in found], dtype=np.float32),
        mask=np.stack([decode_rle(frame.rle or {}) for _, frame in found]),
        confidence=np.array([frame.score for _, frame in found], dtype=np.float32),
        class_id=np.zeros(len(found), dtype=int),
        tracker_id=np.array([object_id for object_id, _ in found]),
    )
