from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from unipixel.memory.rle import (
    decode_rle,
    encode_rle,
    mask_area,
    mask_box,
    mask_iou,
    rle_area,
    to_token_grid,
)

planes = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@settings(max_examples=80, deadline=None)
@given(planes)
def test_decode_rle_of_encoded_mask_is_the_mask(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    assert (decode_rle(rle) == mask).all()
    assert rle_area(rle) == mask.sum()


@settings(max_examples=80, deadline=None)
@given(planes)
def test_decode_rle_agrees_with_pycocotools(mask: np.ndarray) -> None:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert (decode_rle({"size": rle["size"], "counts": rle["counts"].decode()}) == mask).all()


def test_decode_rle_of_a_large_mask_agrees_with_pycocotools() -> None:
    rows, columns = np.mgrid[:1080, :1920]
    mask = (rows - 500) ** 2 + (columns - 900) ** 2 < 300**2
    assert (decode_rle(encode_rle(mask)) == mask).all()


def test_decode_rle_reads_uncompressed_counts_column_by_column() -> None:
    mask = decode_rle({"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


def test_encode_rle_counts_any_nonzero_value_as_inside() -> None:
    mask = np.array([[1, 255], [0, 7]], dtype=np.uint8)
    assert encode_rle(mask) == encode_rle(mask != 0)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [4, 5], "counts": ""},
        {"size": [4, 5], "counts": "~~~~"},
        {"size": [4, 5], "counts": "o" * 20},
        {"size": [4, 5], "counts": "0"},
        {"size": [4, 5], "counts": "é1"},
        {"size": [4, 5], "counts": [-1, 21]},
        {"size": [4, 5], "counts": [2**62, 2**62, 2**62, 2**62, 20]},
        {"size": [4, 5], "counts": [20.0]},
        {"size": [4, 5], "counts": None},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [0, 5], "counts": []},
        {"size": [True, 20], "counts": [20]},
        {"size": "45", "counts": [20]},
    ],
)
def test_decode_rle_of_damaged_run_lengths_is_refused(rle: dict) -> None:
    with pytest.raises(ValueError, match=r"run lengths|run-length|pixels|`counts`"):
        decode_rle(rle)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30))
def test_decode_rle_of_any_text_gives_a_mask_or_a_value_error(text: str) -> None:
    try:
        mask = decode_rle({"size": [6, 7], "counts": text})
    except ValueError:
        return
    assert mask.shape == (6, 7)


def test_mask_box_gives_edges() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[3:5, 7:11] = True
    assert mask_box(mask) == (7, 3, 11, 5)
    assert mask_area(mask) == 8


def test_mask_box_of_an_empty_mask_is_none() -> None:
    assert mask_box(np.zeros((4, 4), dtype=bool)) is None


def test_mask_iou_counts_shared_pixels() -> None:
    first, second = np.zeros((2, 4, 4), dtype=bool)
    first[:2], second[1:3] = True, True
    assert mask_iou(first, second) == pytest.approx(4 / 12)
    assert mask_iou(first & False, second & False) == 1.0
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(2, 4\)"):
        mask_iou(first, second[:2])


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 4)])
def test_functions_of_one_mask_refuse_other_shapes(shape: tuple[int, ...]) -> None:
    for function in (encode_rle, mask_area, mask_box):
        with pytest.raises(ValueError, match="shape"):
            function(np.zeros(shape, dtype=bool))


def test_to_token_grid_marks_the_tokens_under_a_rectangle() -> None:
    # 56 x 84 pixels at the size of the resized frame: 2 x 3 tokens of 28 pixels.
    masks = np.zeros((2, 1, 56, 84), dtype=bool)
    masks[0, 0, 30:40, 2:20] = True
    grid = to_token_grid(masks, (4, 6))
    assert grid.tolist() == [[[[False, False, False], [True, False, False]]]]


def test_to_token_grid_joins_pairs_and_repeats_the_last_frame() -> None:
    masks = np.zeros((3, 1, 28, 56), dtype=bool)
    masks[1, 0, :, 30:], masks[2, 0, :, :20] = True, True
    grid = to_token_grid(masks, (2, 4))
    assert grid.tolist() == [[[[False, True]]], [[[True, False]]]]


def test_to_token_grid_keeps_a_single_pixel_of_a_large_frame() -> None:
    masks = np.zeros((1, 1, 1080, 1920), dtype=bool)
    masks[0, 0, 777, 1234] = True
    assert to_token_grid(masks, (16, 24)).any()


def test_to_token_grid_does_not_mix_objects() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((5, 3, 60, 90)) > 0.97
    together = to_token_grid(masks, (4, 6))
    alone = torch.cat([to_token_grid(torch.from_numpy(masks[:, [index]]), (4, 6)) for index in range(3)], dim=1)
    assert together.shape == (3, 3, 2, 3)
    assert torch.equal(together, alone)


def test_to_token_grid_serves_other_patch_sizes() -> None:
    masks = np.zeros((2, 1, 64, 64), dtype=bool)
    masks[:, :, 40:50, 40:50] = True
    grid = to_token_grid(masks, (4, 4), patch_size=16, merge_size=4)
    assert grid.shape == (1, 1, 1, 1)
    assert grid.all()


@pytest.mark.parametrize("shape", [(2, 8, 8), (0, 1, 8, 8), (2, 1, 0, 8)])
def test_to_token_grid_refuses_masks_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="masks must be"):
        to_token_grid(np.zeros(shape, dtype=bool), (4, 4))


def test_to_token_grid_refuses_a_grid_of_half_tokens() -> None:
    with pytest.raises(ValueError, match=r"multiples of 2, got \(3, 4\)"):
        to_token_grid(np.zeros((1, 1, 8, 8), dtype=bool), (3, 4))


@pytest.mark.parametrize(("grid_hw", "rows", "columns"), [((22, 42), 4, 6), ((34, 60), 6, 8)])
def test_to_token_grid_of_a_rectangle_is_the_published_one(grid_hw: tuple[int, int], rows: int, columns: int) -> None:
    # Recorded from the published code: object 1 of case_preprocess_long and _short, a rectangle on 854 x 480 pixels.
    masks = np.zeros((5, 1, 480, 854), dtype=bool)
    masks[:, :, : 480 // 3, : 854 // 4] = True
    masks[1::3] = False
    expected = torch.zeros(3, 1, grid_hw[0] // 2, grid_hw[1] // 2, dtype=torch.bool)
    expected[:2, :, :rows, :columns] = True
    assert torch.equal(to_token_grid(masks, grid_hw), expected)
