"""Masks of published sets: every kind of reference, against drawn masks and pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from unipixel.memory.rle import encode_rle
from unipixel.train.datasets.published.json_members import JsonMembers
from unipixel.train.datasets.published.mask_decoding import decode_masks, fit_mask

SIZE = (20, 30)


def box(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


FIRST, SECOND = box(3, 4, 10, 12), box(8, 2, 20, 9)


def decode(reference: dict[str, Any], root: Path, **options: Any) -> NDArray[np.bool_]:
    given: dict[str, Any] = {"positions": [0], "num_frames": 1, "frame_size": SIZE, **options}
    return decode_masks(reference, root, **given)


def uncompressed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0, append=len(flat)).tolist()}


def test_track_of_run_lengths_in_both_forms_and_nulls_is_decoded(tmp_path: Path) -> None:
    track = [encode_rle(FIRST), None, uncompressed(SECOND)]
    masks = decode({"track": track}, tmp_path, positions=[0, 1, 2], num_frames=3)
    assert (masks == [FIRST, np.zeros(SIZE, bool), SECOND]).all()
    assert (decode({"track": track}, tmp_path, positions=[2], num_frames=3)[0] == SECOND).all()


def test_segments_of_a_frame_are_united(tmp_path: Path) -> None:
    segments = [encode_rle(FIRST), None, [uncompressed(SECOND)]]
    assert (decode({"track": [segments]}, tmp_path)[0] == (FIRST | SECOND)).all()


def test_polygons_are_filled_as_by_pycocotools(tmp_path: Path) -> None:
    polygons = [[3.0, 4.0, 12.5, 5.0, 10.0, 15.0], [18.0, 3.0, 25.0, 3.0, 25.0, 9.0, 18.0, 9.0]]
    rles = coco_mask.frPyObjects(polygons, *SIZE)
    expected = np.asarray(coco_mask.decode(rles)).any(axis=2)
    assert (decode({"track": [polygons]}, tmp_path)[0] == expected).all()
    assert (decode({"track": [[[polygons[0]], [polygons[1]]]]}, tmp_path)[0] == expected).all()


def test_spans_and_members_of_a_file_are_united(tmp_path: Path) -> None:
    tracks = {"0": [encode_rle(FIRST)], "1": [encode_rle(SECOND)], "2": {"segmentation": uncompressed(FIRST)}}
    (tmp_path / "masks.json").write_text(json.dumps(tracks))
    found = JsonMembers.read(tmp_path / "masks.json").value_spans()
    spans = [found["0"], found["1"]]
    masks = decode({"file": "masks.json", "spans": spans}, tmp_path)
    assert (masks[0] == (FIRST | SECOND)).all()
    masks = decode({"file": "masks.json", "members": [found["2"]], "key": "segmentation"}, tmp_path)
    assert (masks[0] == FIRST).all()


def test_files_of_one_object_of_several_and_of_sav_are_decoded(tmp_path: Path) -> None:
    first, second = encode_rle(FIRST), encode_rle(SECOND)
    (tmp_path / "one.json").write_text(json.dumps([[first, None], [second]]))
    (tmp_path / "objects.json").write_text(json.dumps([[[first], [None]], [[None], [second]]]))
    (tmp_path / "sav.json").write_text(json.dumps({"masklet": [[first, second], [second, first]]}))
    both: dict[str, Any] = {"positions": [0, 1], "num_frames": 2}
    assert (decode({"file": "one.json"}, tmp_path, **both) == [FIRST, SECOND]).all()
    assert (decode({"file": "objects.json", "object": 1}, tmp_path, **both) == [np.zeros(SIZE), SECOND]).all()
    assert (decode({"file": "sav.json", "key": "masklet", "column": 1}, tmp_path, **both) == [SECOND, FIRST]).all()


def test_label_images_are_united_over_ids_whatever_their_palette(tmp_path: Path) -> None:
    labels = np.where(FIRST, 1, 0) + np.where(SECOND & ~FIRST, 7, 0)
    image = Image.fromarray(labels.astype(np.uint8), mode="P")
    image.putpalette([255 - value // 3 for value in range(768)])
    image.save(tmp_path / "a.png")
    assert (decode({"labels": ["a.png"], "ids": [1]}, tmp_path)[0] == FIRST).all()
    assert (decode({"labels": ["a.png"], "ids": [1, 7]}, tmp_path)[0] == (FIRST | SECOND)).all()


def test_shapes_mark_the_target_without_ignored_pixels(tmp_path: Path) -> None:
    square = [[2, 2], [12, 2], [12, 12], [2, 12]]
    inner = [[5, 5], [7, 5], [7, 7], [5, 7]]
    shapes = [{"label": "target", "points": square}, {"label": "ignore", "points": inner}]
    assert (decode({"shapes": shapes}, tmp_path)[0] == (box(2, 2, 13, 13) & ~box(5, 5, 8, 8))).all()


def test_masks_of_another_size_cover_half_a_pixel(tmp_path: Path) -> None:
    large = box(10, 10, 30, 20, (40, 60))
    assert (decode({"track": [encode_rle(large)]}, tmp_path)[0] == box(5, 5, 15, 10)).all()
    assert fit_mask(FIRST, SIZE) is FIRST


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"track": [None, None]}, "has 2 masks for 1 frames"),
        ({"track": {"a": 1}}, "has no list of masks for 1 frames"),
        ({"track": [7]}, "must be run lengths, polygons or null, got int"),
        ({"track": [{"size": [4, 4], "counts": [3]}]}, "do not fill a mask"),
        ({"track": [[[1.0, 2.0, 3.0, 4.0]]]}, "a polygon must be at least three points"),
        ({"track": [[[1.0, 2.0, 3.0, 4.0, 1e9, 5.0]]]}, "of at most 100000 pixels"),
        ({"file": "../secret.json"}, "which is not below"),
        ({"file": "a.json", "object": 3}, "has no masks of object 3"),
        ({"file": "a.json", "key": "masklet", "column": 0}, "has no masks of 'masklet'"),
    ],
)
def test_damaged_masks_are_refused(tmp_path: Path, reference: dict[str, Any], message: str) -> None:
    (tmp_path / "a.json").write_text("[[null]]")
    with pytest.raises(ValueError, match=message):
        decode(reference, tmp_path)
