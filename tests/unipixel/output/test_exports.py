"""Exports to annotation tools, read again by the rules of each tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import binary_fill_holes
from skimage.measure import points_in_poly

from unipixel.output.exports import EXPORTS, brush_runs
from unipixel.output.polygons import join_polygons, outer_polygons
from unipixel.output.result import Result
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo

HEIGHT, WIDTH = 24, 32
MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def masks() -> dict[tuple[int, int], np.ndarray]:
    """Masks by object and frame: a rectangle that moves, and a shape of two parts with an inlet on the first frame."""
    parts = rectangle(2, 2, 8, 8) | rectangle(20, 12, 30, 20)
    parts[4:6, 6:8] = False
    return {(1, 0): rectangle(4, 6, 14, 12), (1, 1): rectangle(6, 6, 16, 12), (2, 0): parts}


@pytest.fixture
def result(masks: dict[tuple[int, int], np.ndarray]) -> Result:
    info = VideoInfo("clip & co.mp4", WIDTH, HEIGHT, 2, 10.0, 0.2)
    result = Result(info, model="tiny", question="Where is it?", answer="[1]")
    result.add_object(1, source="point")
    result.add_object(2, source="language", expression='the "cup" <left>\x00')
    for index in range(2):
        frame = Frame(index, index / 10, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        found = {key: mask for (key, at), mask in masks.items() if at == index}
        gone = ObjectMask(np.zeros((HEIGHT, WIDTH), bool), 0.1, False)
        result.add_frame(frame, {key: ObjectMask(found[key], 0.9, True) if key in found else gone for key in (1, 2)})
    return result


def test_cvat_masks_are_run_lengths_row_by_row_within_their_box(
    result: Result, masks: dict[tuple[int, int], np.ndarray]
) -> None:
    # CVAT for images 1.1: counts of background and object in turn, from the box's first row on.
    root = ElementTree.fromstring(EXPORTS["cvat"](result)["cvat.xml"])
    assert [label.text for label in root.iterfind("meta/task/labels/label/name")] == [
        "object",
        'the "cup" <left>',
    ]
    found = {}
    for image in root.iterfind("image"):
        assert (image.get("width"), image.get("height")) == (str(WIDTH), str(HEIGHT))
        for item in image.iterfind("mask"):
            left, top, width, height = (int(item.attrib[name]) for name in ("left", "top", "width", "height"))
            counts = [int(count) for count in item.attrib["rle"].split(",")]
            values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            mask[top : top + height, left : left + width] = values.reshape(height, width)
            attribute = item.find("attribute")
            assert attribute is not None
            found[int(attribute.text or ""), int(image.attrib["id"])] = mask
    assert found.keys() == masks.keys()
    assert all(np.array_equal(found[key], mask) for key, mask in masks.items())


def test_brush_runs_are_those_of_label_studios_own_converter() -> None:
    # Output of mask2rle of label-studio-sdk 2.1.2 for a rectangle in 6 x 8 pixels, and for a larger one.
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    recorded = [0, 0, 0, 192, 57, 27, 254, 39, 0, 194, 127, 246, 192, 48, 159, 253, 176, 12, 39, 255, 144, 192, 0]
    assert brush_runs(mask) == recorded


def decode_brush(values: list[int]) -> np.ndarray:
    """Decode by the description of the rle-pack library."""
    bits = "".join(f"{value:08b}" for value in values)
    position = 0

    def read(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        is_run, count = read(1), read(sizes[read(2)]) + 1
        out += [read(word)] * count if is_run else [read(word) for _ in range(count)]
    return np.array(out)


@given(MASKS)
def test_brush_runs_of_any_mask_decode_to_it(mask: np.ndarray) -> None:
    pixels = decode_brush(brush_runs(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(pixels, np.repeat(mask[..., None] * 255, 4, axis=-1))


def test_brush_runs_of_a_run_longer_than_its_count_are_split() -> None:
    mask = np.zeros((200, 300), dtype=bool)
    mask[50:] = True
    assert np.array_equal(decode_brush(brush_runs(mask)).reshape(200, 300, 4)[..., 3] == 255, mask)


def test_label_studio_tasks_have_masks_per_frame_and_box_tracks(
    result: Result, masks: dict[tuple[int, int], np.ndarray]
) -> None:
    files = EXPORTS["label-studio"](result)
    config = ElementTree.fromstring(files["label_studio.xml"].partition("\n")[0])
    assert {label.get("value") for label in config.iter("Label")} == {"object", 'the "cup" <left>'}
    tasks = json.loads(files["label_studio.json"])
    assert [task["data"]["image"] for task in tasks] == ["00000.jpg", "00001.jpg"]
    for task in tasks:
        for entry in task["predictions"][0]["result"]:
            key = int(entry["meta"]["object_id"][0]), task["data"]["frame_index"]
            size = entry["original_height"], entry["original_width"]
            decoded = decode_brush(entry["value"]["rle"]).reshape(*size, 4)
            assert np.array_equal(decoded[..., 3] == 255, masks[key])
    (video,) = json.loads(files["label_studio_video.json"])
    first, second = video["predictions"][0]["result"]
    assert [box["frame"] for box in first["value"]["sequence"]] == [1, 2]
    assert first["value"]["sequence"][1]["x"] == pytest.approx(100 * 6 / WIDTH)
    # The second object disappears: its last keyframe is not enabled.
    assert [box["enabled"] for box in second["value"]["sequence"]] == [True, False]


def test_yolo_lines_are_classes_and_relative_polygons_that_cover_the_mask(
    result: Result, masks: dict[tuple[int, int], np.ndarray]
) -> None:
    files = EXPORTS["yolo"](result)
    lines = [line.split() for line in files["yolo/labels/00000.txt"].splitlines()]
    assert [line[0] for line in lines] == ["0", "1"]
    assert files["yolo/data.yaml"].endswith('names:\n  0: "object"\n  1: "the \\"cup\\" <left>\\u0000"\n')
    centres = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), axis=-1).reshape(-1, 2)
    for line, key in zip(lines, ((1, 0), (2, 0)), strict=True):
        corners = np.array(line[1:], dtype=float).reshape(-1, 2)
        assert corners.min() >= 0
        assert corners.max() <= 1
        inside = points_in_poly(centres, corners * (WIDTH, HEIGHT)).reshape(HEIGHT, WIDTH)
        # The line between the parts has no area, but skimage counts centres that lie on it.
        assert (inside ^ masks[key]).sum() <= 2
    assert len(files["yolo/labels/00001.txt"].splitlines()) == 1


def test_yolo_dataset_is_read_by_supervision(
    result: Result, masks: dict[tuple[int, int], np.ndarray], tmp_path: Path
) -> None:
    import supervision

    for name, content in EXPORTS["yolo"](result).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "yolo/images").mkdir()
    for index in range(2):
        image = Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        image.save(tmp_path / f"yolo/images/{index:05d}.jpg")
    folder = tmp_path / "yolo"
    dataset = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), force_masks=True
    )
    found = {Path(path).stem: detections for path, _, detections in dataset}
    # supervision rounds the corners of polygons to pixels that it includes, so that masks are a pixel larger.
    iou = (found["00001"].mask[0] & masks[1, 1]).sum() / (found["00001"].mask[0] | masks[1, 1]).sum()
    assert iou > 0.7


@given(MASKS)
def test_outer_polygons_have_the_area_of_the_mask_without_holes(mask: np.ndarray) -> None:
    filled = binary_fill_holes(mask, structure=np.ones((3, 3)))
    polygons = outer_polygons(mask)
    assert sum(area_of(polygon) for polygon in polygons) == filled.sum()
    if polygons:
        assert area_of(join_polygons(polygons)) == filled.sum()


def area_of(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


def test_outer_polygons_of_a_rectangle_are_its_corners() -> None:
    (polygon,) = outer_polygons(rectangle(4, 6, 14, 12))
    assert sorted(map(tuple, polygon.tolist())) == [(4, 6), (4, 12), (14, 6), (14, 12)]


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_of_a_result_without_objects_are_valid(name: str) -> None:
    empty: dict[str, Any] = EXPORTS[name](Result(VideoInfo("clip.mp4", 8, 6, 2, 10.0, 0.2)))
    for file, content in empty.items():
        if file.endswith(".json"):
            json.loads(content)
        if file.endswith(".xml"):
            ElementTree.fromstring(content.partition("\n<!--")[0])
