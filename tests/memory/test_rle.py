from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from unipixel.memory.rle import decode_rle, encode_rle, mask_box

planes = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@settings(max_examples=80, deadline=None)
@given(planes)
def test_decode_rle_of_encoded_mask_is_the_mask(mask: np.ndarray) -> None:
    assert (decode_rle(encode_rle(mask)) == mask).all()


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


def test_mask_box_of_an_empty_mask_is_none() -> None:
    assert mask_box(np.zeros((4, 4), dtype=bool)) is None


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 4)])
def test_functions_of_one_mask_refuse_other_shapes(shape: tuple[int, ...]) -> None:
    for function in (encode_rle, mask_box):
        with pytest.raises(ValueError, match="shape"):
            function(np.zeros(shape, dtype=bool))
