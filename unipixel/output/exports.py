"""Results in the import formats of annotation tools: CVAT, Label Studio and YOLO segmentation.

Each function returns the content of the files by their names in the result folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.rle import decode_rle
from unipixel.output.coco import category_names, category_of, timestamps_of, to_coco
from unipixel.output.polygons import join_polygons, outer_polygons

if TYPE_CHECKING:
    from unipixel.output.result import Result
    from unipixel.output.result_object import ResultFrame, ResultObject

IMAGE_NAME = "{:05d}.jpg"
"""File name of a frame, which the formats with one image per frame refer to."""

# Bits of the four run lengths of Label Studio's encoding, as its own converter writes them.
_RUN_BITS = (3, 4, 8, 16)


def coco_files(result: Result) -> dict[str, str]:
    """Return `coco.json`: COCO instances with the fields of YouTube-VIS."""
    return {"coco.json": _json(to_coco(result))}


def cvat_files(result: Result) -> dict[str, str]:
    """Return `cvat.xml` in the format "CVAT for images 1.1", the one of CVAT's formats that has masks.

    Upload it as annotations of a task with the video or its frames: frames are matched by their number.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    times = timestamps_of(result)
    for name, text in (("name", result.video.path), ("size", str(len(times))), ("mode", "annotation")):
        ElementTree.SubElement(task, name).text = _printable(text)
    labels = ElementTree.SubElement(task, "labels")
    for category in category_names(result):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = _printable(category)
        attribute = ElementTree.SubElement(ElementTree.SubElement(label, "attributes"), "attribute")
        for name, text in (("name", "object_id"), ("mutable", "False"), ("input_type", "text"), ("values", "")):
            ElementTree.SubElement(attribute, name).text = text
    for index in times:
        size = {"width": str(result.video.width), "height": str(result.video.height)}
        image = ElementTree.SubElement(root, "image", {"id": str(index), "name": f"frame_{index:06d}.png", **size})
        for item, frame in _shown(result, index):
            ElementTree.SubElement(ElementTree.SubElement(image, "mask", _cvat_mask(item, frame)), "attribute",
                                   {"name": "object_id"}).text = str(item.id)  # fmt: skip
    ElementTree.indent(root)
    return {"cvat.xml": ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"}


def label_studio_files(result: Result) -> dict[str, str]:
    """Return the pre-annotated tasks of Label Studio, and the labelling configuration that they belong to.

    `label_studio.json` has a task per frame with brush masks, whose images are named `00000.jpg` and so on.
    `label_studio_video.json` has one task with box tracks, because Label Studio has no masks in videos.
    `label_studio.xml` is the configuration of both.
    """
    names = "".join(f"<Label value={_quoted(name)}/>" for name in category_names(result))
    config = (
        f'<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">{names}</BrushLabels>'
        "</View>\n<!-- for label_studio_video.json:\n"
        f'<View><Labels name="label" toName="video">{names}</Labels><Video name="video" value="$video"/>'
        '<VideoRectangle name="box" toName="video"/></View> -->\n'
    )
    tasks = [
        {
            "data": {"image": IMAGE_NAME.format(index), "frame_index": index, "timestamp_seconds": seconds},
            "predictions": [
                _prediction(result, [_brush(result, item, frame) for item, frame in _shown(result, index)])
            ],
        }
        for index, seconds in timestamps_of(result).items()
    ]
    tracks = [_box_track(result, item) for item in result.objects.values()]
    video = [{"data": {"video": result.video.path}, "predictions": [_prediction(result, tracks)]}]
    return {
        "label_studio.json": _json(tasks),
        "label_studio_video.json": _json(video),
        "label_studio.xml": config,
    }


def yolo_files(result: Result) -> dict[str, str]:
    """Return a dataset of YOLO segmentation: `yolo/data.yaml` and `yolo/labels/00000.txt`, a line per object.

    A line is the class and the corners of a polygon, relative to the frame. Parts of an object are joined to one
    polygon and its holes are filled, because the format has neither.
    """
    names = category_names(result)
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
    files = {"yolo/data.yaml": f"path: .\ntrain: images\nval: images\nnames:\n{listed}"}
    size = np.array([result.video.width, result.video.height])
    for index in timestamps_of(result):
        lines = []
        for item, frame in _shown(result, index):
            polygon = join_polygons(outer_polygons(decode_rle(frame.rle or {})))
            corners = " ".join(f"{value:.6f}" for value in (polygon / size).ravel())
            lines.append(f"{names.index(category_of(item))} {corners}\n")
        files[f"yolo/labels/{index:05d}.txt"] = "".join(lines)
    return files


EXPORTS: Mapping[str, Callable[[Any], dict[str, str]]] = {
    "coco": coco_files,
    "cvat": cvat_files,
    "label-studio": label_studio_files,
    "yolo": yolo_files,
}
"""Functions by the name of the option that selects them."""


def brush_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask (H, W) as the run lengths of Label Studio's brushes: the bytes of packed RGBA runs.

    The layout is that of the rle-pack library: 32 bits for the number of values, 5 for the bits of a value, 4 for each
    of the four lengths of a count, then the runs. The bytes equal those of `mask2rle` of label-studio-sdk for masks of
    0 and 255.
    """
    values = np.asarray(mask, dtype=bool).ravel()
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    lengths = np.diff(np.append(starts, len(values))) * 4
    bits = [f"{4 * len(values):032b}", f"{8 - 1:05b}", *(f"{count - 1:04b}" for count in _RUN_BITS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = "1" * 8 if values[start] else "0" * 8
        remaining = length
        while remaining:
            run = min(remaining, 2 ** _RUN_BITS[-1])
            choice = next(i for i, count in enumerate(_RUN_BITS) if run <= 2**count)
            bits.append(f"1{choice:02b}{run - 1:0{_RUN_BITS[choice]}b}{value}")
            remaining -= run
    text = "".join(bits)
    text += "0" * (8 - len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _shown(result: Result, index: int) -> Iterator[tuple[ResultObject, ResultFrame]]:
    """Yield the objects that are visible on a frame."""
    for object_id in sorted(result.objects):
        frame = result.objects[object_id].frame(index)
        if frame is not None and frame.rle is not None:
            yield result.objects[object_id], frame


def _cvat_mask(item: ResultObject, frame: ResultFrame) -> dict[str, str]:
    """Return the attributes of a mask: run lengths, row by row within its box, from a run of background."""
    left, top, right, bottom = frame.box_xyxy or (0, 0, 0, 0)
    values = decode_rle(frame.rle or {})[top:bottom, left:right].ravel()
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    counts = np.diff([0, *changes.tolist(), len(values)]).tolist()
    counts = [0, *counts] if values[0] else counts
    return {
        "label": _printable(category_of(item)),
        "source": "auto",
        "occluded": "0",
        "rle": ", ".join(map(str, counts)),
        "left": str(left),
        "top": str(top),
        "width": str(right - left),
        "height": str(bottom - top),
        "z_order": "0",
    }


def _brush(result: Result, item: ResultObject, frame: ResultFrame) -> dict[str, Any]:
    return {
        "id": f"object-{item.id}-{frame.frame_index}",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": result.video.width,
        "original_height": result.video.height,
        "image_rotation": 0,
        "score": frame.score,
        "meta": {"object_id": [str(item.id)]},
        "value": {
            "format": "rle",
            "rle": brush_runs(decode_rle(frame.rle or {})),
            "brushlabels": [category_of(item)],
        },
    }


def _box_track(result: Result, item: ResultObject) -> dict[str, Any]:
    """Return the boxes of an object: a keyframe per frame, in percent; frames are numbered from 1."""
    width, height = result.video.width, result.video.height
    sequence: list[dict[str, Any]] = []
    last: dict[str, Any] = {"x": 0.0, "y": 0.0, "width": 0.0, "height": 0.0}
    for frame in item.frames:
        if frame.box_xyxy is not None:
            left, top, right, bottom = frame.box_xyxy
            last = {
                "x": 100 * left / width,
                "y": 100 * top / height,
                "width": 100 * (right - left) / width,
                "height": 100 * (bottom - top) / height,
            }
        is_shown = frame.box_xyxy is not None
        # A frame that is not enabled hides the box until the next keyframe.
        if is_shown or (sequence and sequence[-1]["enabled"]):
            sequence.append(
                {"frame": frame.frame_index + 1, "enabled": is_shown, "rotation": 0, "time": frame.timestamp_seconds}
                | last
            )
    return {
        "id": f"object-{item.id}",
        "type": "videorectangle",
        "from_name": "box",
        "to_name": "video",
        "meta": {"object_id": [str(item.id)]},
        "value": {
            "framesCount": result.video.num_frames,
            "duration": result.video.duration_seconds,
            "sequence": sequence,
            "labels": [category_of(item)],
        },
    }


def _prediction(result: Result, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model_version": result.model or "unipixel", "result": entries}


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _printable(text: str) -> str:
    """Return a text without the control characters that XML cannot contain."""
    return "".join(character for character in text if character.isprintable() or character in "\t\n")


def _quoted(text: str) -> str:
    return quoteattr(_printable(text))
