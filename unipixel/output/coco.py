"""Masks as COCO annotations, with the fields of YouTube-VIS for videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipixel.output.result import Result
    from unipixel.output.result_object import ResultFrame, ResultObject

UNNAMED = "object"
"""Category of an object without an expression."""


def category_names(result: Result) -> list[str]:
    """Return the categories: the distinct expressions of the objects, in alphabetical order."""
    return sorted({category_of(item) for item in result.objects.values()})


def category_of(item: ResultObject) -> str:
    """Return the category of an object: its expression, or "object"."""
    return item.expression or UNNAMED


def timestamps_of(result: Result) -> dict[int, float]:
    """Return the presentation time of every frame that has a record, ordered by frame."""
    times = {frame.frame_index: frame.timestamp_seconds for item in result.objects.values() for frame in item.frames}
    return dict(sorted(times.items()))


def to_coco(result: Result) -> dict[str, Any]:
    """Return the masks as COCO annotations with one image per frame, which `pycocotools` can load.

    `videos`, `video_id` and `instance_id` are those of YouTube-VIS. The category of an object is its expression, or
    "object".
    """
    names = category_names(result)
    size = {"width": result.video.width, "height": result.video.height}
    annotations = [
        _annotation(item.id, names.index(category_of(item)) + 1, frame)
        for item in result.objects.values()
        for frame in item.frames
        if frame.rle is not None
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "videos": [{"id": 1, "name": result.video.path, **size, "length": result.video.num_frames}],
        "images": [
            {
                "id": index + 1,
                "video_id": 1,
                "frame_index": index,
                "timestamp_seconds": seconds,
                "file_name": f"{index:05d}.jpg",
                **size,
            }
            for index, seconds in timestamps_of(result).items()
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }


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
        "area": frame.area,
        "iscrowd": 0,
        "score": frame.score,
    }
