"""The result document: question, answer, and the run-length encoded masks of every object."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unipixel.memory.rle import decode_rle, encode_rle, mask_box
from unipixel.output.writers import visible_mask
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo

VERSION = 1
SOURCES = ("point", "box", "mask", "language")


@dataclass(frozen=True, slots=True)
class ResultFrame:
    """Result of one object on one frame.

    Attributes:
        frame_index: Index of the frame, from 0.
        timestamp_seconds: Presentation time of the frame.
        visible: Whether the object is in the frame.
        score: Confidence in 0..1.
        box_xyxy: Box of the mask, right and bottom exclusive; None without a mask.
        rle: COCO run lengths `{"size": [h, w], "counts": str}`; None without a mask.
    """

    frame_index: int
    timestamp_seconds: float
    visible: bool
    score: float
    box_xyxy: list[int] | None
    rle: dict[str, Any] | None

    @classmethod
    def of(cls, frame: Frame, object_id: int, item: ObjectMask) -> ResultFrame:
        """Encode a mask; an invisible or empty one has neither box nor run lengths.

        Raises:
            ValueError: The mask's size differs from the frame's, or the score is not finite.
        """
        if not math.isfinite(item.score):
            raise ValueError(f"object {object_id}, frame {frame.index}: the score is {item.score}")
        mask = visible_mask(frame, object_id, item)
        box = mask_box(mask)
        return cls(
            frame_index=frame.index,
            timestamp_seconds=frame.timestamp_seconds,
            visible=bool(item.visible),
            score=float(item.score),
            box_xyxy=None if box is None else list(box),
            rle=None if box is None else encode_rle(mask),
        )


@dataclass(slots=True)
class ResultObject:
    """Result of one object in a video.

    Attributes:
        id: Its id, as in `[1]`.
        source: Kind of its prompt: "point", "box", "mask" or "language".
        expression: Text that describes it; None for visual prompts.
        anchor_frame: Index of the frame on which it was segmented first.
        frames: One record per frame, ordered by index.
    """

    id: int
    source: str
    expression: str | None
    anchor_frame: int
    frames: list[ResultFrame] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """Content of `result.json`; masks are added frame by frame and stored as run lengths.

    Attributes:
        video: Properties of the video.
        model: Name or path of the model; None without a model.
        question: The question; None if nothing was asked.
        answer: The answer, with objects as `[id]`; None if nothing was asked.
        objects: Results by object id.
        timings_seconds: Seconds by stage.
    """

    video: VideoInfo
    model: str | None = None
    question: str | None = None
    answer: str | None = None
    objects: dict[int, ResultObject] = field(default_factory=dict)
    timings_seconds: dict[str, float] = field(default_factory=dict)

    def add_object(
        self, object_id: int, *, source: str, expression: str | None = None, anchor_frame: int = 0
    ) -> ResultObject:
        """Add an object, before its frames.

        Raises:
            ValueError: The id exists, or the source is unknown.
        """
        if object_id in self.objects:
            raise ValueError(f"object {object_id} exists already")
        if source not in SOURCES:
            raise ValueError(f"object {object_id}: source must be one of {', '.join(SOURCES)}, got {source!r}")
        self.objects[object_id] = ResultObject(object_id, source, expression, anchor_frame)
        return self.objects[object_id]

    def add_frame(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Add the masks of one frame; masks that were added before are replaced.

        Args:
            frame: The frame; frames may be added in any order, since tracking runs in both directions.
            objects: Masks by object id.

        Raises:
            ValueError: An id was not added, or a mask does not fit the frame.
        """
        for object_id, item in objects.items():
            if object_id not in self.objects:
                raise ValueError(f"object {object_id} was not added with add_object")
            records = self.objects[object_id].frames
            record = ResultFrame.of(frame, object_id, item)
            position = bisect.bisect_left(records, frame.index, key=lambda record: record.frame_index)
            is_known = position < len(records) and records[position].frame_index == frame.index
            records[position : position + is_known] = [record]

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `result.json`."""
        video = asdict(self.video)
        del video["is_image"]
        return {
            "version": VERSION,
            "video": video,
            "model": self.model,
            "question": self.question,
            "answer": self.answer,
            "objects": [asdict(self.objects[object_id]) for object_id in sorted(self.objects)],
            "timings_seconds": dict(self.timings_seconds),
        }

    def to_json(self) -> str:
        """Return the document as strict JSON, on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def save(self, path: Path) -> None:
        """Write the document.

        Raises:
            OSError: The file cannot be written.
        """
        path.write_text(self.to_json() + "\n", encoding="utf-8")

    def to_coco(self) -> dict[str, Any]:
        """Return the masks as COCO annotations with one image per frame, which `pycocotools` can load.

        `videos`, `video_id` and `instance_id` are those of YouTube-VIS. The category of an object is its
        expression, or "object".
        """
        names = sorted({record.expression or "object" for record in self.objects.values()})
        size = {"width": self.video.width, "height": self.video.height}
        times = {
            frame.frame_index: frame.timestamp_seconds for record in self.objects.values() for frame in record.frames
        }
        annotations = [
            _annotation(record.id, names.index(record.expression or "object") + 1, frame)
            for record in self.objects.values()
            for frame in record.frames
            if frame.rle is not None
        ]
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        return {
            "videos": [{"id": 1, "name": self.video.path, **size, "length": self.video.num_frames}],
            "images": [
                {
                    "id": index + 1,
                    "video_id": 1,
                    "frame_index": index,
                    "timestamp_seconds": times[index],
                    "file_name": f"{index:05d}.jpg",
                    **size,
                }
                for index in sorted(times)
            ],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        }

    def to_supervision(self) -> Iterator[tuple[int, Any]]:
        """Yield (frame index, `supervision.Detections`) for every frame.

        `tracker_id` is the object id, `confidence` the score; masks are bool (N, H, W).

        Raises:
            ImportError: `supervision` is not installed: install the extra `eval`.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ImportError("supervision is missing: pip install 'unipixel-agent[eval]'") from error
        return self._detections(Detections)

    def _detections(self, detections_type: Any) -> Iterator[tuple[int, Any]]:
        per_frame: dict[int, list[tuple[int, ResultFrame]]] = {}
        for object_id in sorted(self.objects):
            for frame in self.objects[object_id].frames:
                shown = per_frame.setdefault(frame.frame_index, [])
                if frame.rle is not None:
                    shown.append((object_id, frame))
        for index in sorted(per_frame):
            found = per_frame[index]
            if not found:
                yield index, detections_type.empty()
                continue
            yield (
                index,
                detections_type(
                    xyxy=np.array([frame.box_xyxy for _, frame in found], dtype=np.float32),
                    mask=np.stack([decode_rle(frame.rle or {}) for _, frame in found]),
                    confidence=np.array([frame.score for _, frame in found], dtype=np.float32),
                    class_id=np.zeros(len(found), dtype=int),
                    tracker_id=np.array([object_id for object_id, _ in found]),
                ),
            )


def _annotation(object_id: int, category_id: int, frame: ResultFrame) -> dict[str, Any]:
    left, top, right, bottom = frame.box_xyxy or (0, 0, 0, 0)
    return {
        "id": 0,
        "image_id": frame.frame_index + 1,
        "video_id": 1,
        "instance_id": object_id,
        "category_id": category_id,
        "segmentation": frame.rle,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(decode_rle(frame.rle or {}).sum()),
        "iscrowd": 0,
        "score": frame.score,
    }
