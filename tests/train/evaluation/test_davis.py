"""J and F: closed forms, recorded figures of the official code, and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from unipixel.memory.rle import decode_rle
from unipixel.train.evaluation.scoring.davis_measures import boundary_map, contour_accuracy, region_similarity
from unipixel.train.evaluation.scoring.label_folders import score_folders, score_sequence

TESTS = Path(__file__).parents[2]
GOLDEN = json.loads((TESTS / "golden_davis.json").read_text())


def square(top: int, left: int, size: int, *, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['sequence']}-{case['frame_index']}")
def test_scores_equal_the_official_figures(case: Any) -> None:
    predicted, truth = (decode_rle({"size": case["size"], "counts": case[key]}) for key in ("predicted", "truth"))
    assert region_similarity(predicted, truth) == pytest.approx(case["J"], abs=1e-9)
    assert contour_accuracy(predicted, truth) == pytest.approx(case["F"], abs=1e-9)


def test_region_similarity_of_shifted_squares_is_the_closed_form() -> None:
    assert region_similarity(square(5, 5, 10), square(5, 10, 10)) == pytest.approx(50 / 150)
    assert region_similarity(np.zeros((4, 4)), np.zeros((4, 4))) == 1.0
    assert region_similarity(np.zeros((4, 4)), np.ones((4, 4))) == 0.0


def test_contour_accuracy_special_cases() -> None:
    empty, full = np.zeros((40, 50)), square(5, 5, 10)
    assert contour_accuracy(empty, empty) == 1.0
    assert contour_accuracy(full, empty) == 0.0
    assert contour_accuracy(empty, full) == 0.0
    assert contour_accuracy(full, full) == 1.0
    assert contour_accuracy(square(0, 0, 8), square(30, 40, 8)) == 0.0


def test_contour_accuracy_within_the_tolerance_is_full() -> None:
    # The diagonal of 300 x 400 is 500, so the radius is 4.
    truth = square(100, 100, 80, shape=(300, 400))
    assert contour_accuracy(square(100, 104, 80, shape=(300, 400)), truth) == 1.0
    # One pixel further the left and right edges miss; the upper and lower ones still match.
    assert 0.4 < contour_accuracy(square(100, 105, 80, shape=(300, 400)), truth) < 0.7


def test_boundary_map_marks_the_pixel_left_above_and_diagonal_of_a_change() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 1:3] = True
    expected = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(boundary_map(mask), expected)


def test_boundary_map_at_the_last_row_and_column_compares_along_them() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[2, 2] = mask[1, 3] = mask[2, 3] = True
    boundary = boundary_map(mask)
    assert boundary[2].tolist() == [False, True, False, False]
    assert boundary[:, 3].tolist() == [True, False, False]


def plain_f(predicted: np.ndarray, truth: np.ndarray, radius: int) -> float:
    """F by counting pairs of pixels, straight from the definition."""

    def contour(mask: np.ndarray) -> np.ndarray:
        height, width = mask.shape
        found = np.zeros_like(mask)
        for y in range(height):
            for x in range(width):
                others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                found[y, x] = any(
                    mask[y, x] != mask[other] for other in others if other[0] < height and other[1] < width
                )
        return np.argwhere(found)

    def matched(ours: np.ndarray, theirs: np.ndarray) -> float:
        distances = ((ours[:, None] - theirs[None]) ** 2).sum(axis=2).min(axis=1)
        return float((distances <= radius**2).mean())

    ours, theirs = contour(predicted), contour(truth)
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    precision, recall = matched(ours, theirs), matched(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_contour_accuracy_equals_the_plain_definition(data: Any) -> None:
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    predicted, truth = (data.draw(hnp.arrays(bool, shape)) for _ in range(2))
    assert contour_accuracy(predicted, truth) == pytest.approx(plain_f(predicted, truth, radius=1), abs=1e-12)
    assert contour_accuracy(predicted, truth, tolerance=3) == pytest.approx(
        plain_f(predicted, truth, radius=3), abs=1e-12
    )


def write(folder: Path, name: str, values: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(folder / name)


def test_score_folders_averages_objects_within_a_sequence(tmp_path: Path) -> None:
    truth = square(0, 0, 10) * 1 + square(20, 20, 10) * 2
    for index in range(2):
        write(tmp_path / "truth/two", f"{index:05d}.png", truth)
        write(tmp_path / "predicted/two", f"{index:05d}.png", square(0, 0, 10) * 1)
        write(tmp_path / "truth/one", f"{index:05d}.png", truth == 1)
        write(tmp_path / "predicted/one", f"{index:05d}.png", truth == 1)
    scores = score_folders(tmp_path / "predicted", tmp_path / "truth")
    assert scores["sequences"]["two"] == {"J": 0.5, "F": 0.5, "J&F": 0.5}
    assert scores["sequences"]["one"]["J"] == 1.0
    # Three objects in all: the benchmark's mean counts each once.
    assert scores["mean"]["J"] == pytest.approx(2 / 3)
    assert scores["missing"] == {}


def test_score_folders_binary_takes_every_value_as_the_object(tmp_path: Path) -> None:
    write(tmp_path / "truth/dog", "00000.png", square(0, 0, 10) * 255)
    write(tmp_path / "predicted/dog", "00000.png", square(0, 0, 10) * 7)
    assert score_folders(tmp_path / "predicted", tmp_path / "truth", binary=True)["mean"]["J&F"] == 1.0
    with pytest.raises(ValueError, match=r"\[255\], .* has \[7\], .* give --binary"):
        score_folders(tmp_path / "predicted", tmp_path / "truth")


def test_score_sequence_void_pixels_do_not_count(tmp_path: Path) -> None:
    write(tmp_path / "truth", "00000.png", square(0, 0, 10) * 1 + square(20, 20, 10) * 255)
    write(tmp_path / "predicted", "00000.png", square(0, 0, 10) * 1 + square(20, 20, 10) * 1)
    score = score_sequence(tmp_path / "predicted", tmp_path / "truth")
    assert score.j_per_object == {1: 1.0}


def test_score_folders_missing_frames_count_zero_and_are_listed(tmp_path: Path) -> None:
    for index in range(4):
        write(tmp_path / "truth/dog", f"{index:05d}.png", square(0, 0, 10))
    write(tmp_path / "predicted/dog", "00002.png", square(0, 0, 10))
    scores = score_folders(tmp_path / "predicted", tmp_path / "truth")
    assert scores["sequences"]["dog"]["J"] == 0.25
    assert scores["missing"] == {"dog": ["00000.png", "00001.png", "00003.png"]}


def test_score_folders_bad_input_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "truth/dog", "00000.png", square(0, 0, 10))
    write(tmp_path / "small/dog", "00000.png", square(0, 0, 10, shape=(20, 20)))
    write(tmp_path / "colour/dog", "00000.png", np.zeros((40, 50, 3)))
    write(tmp_path / "empty/dog", "00000.png", np.zeros((40, 50)))
    with pytest.raises(ValueError, match="20x20 pixels, its ground truth 50x40"):
        score_folders(tmp_path / "small", tmp_path / "truth")
    with pytest.raises(OSError, match="one channel"):
        score_folders(tmp_path / "colour", tmp_path / "truth")
    with pytest.raises(ValueError, match="no object"):
        score_folders(tmp_path / "truth", tmp_path / "empty")
    with pytest.raises(OSError, match="not a folder"):
        score_folders(tmp_path / "nowhere", tmp_path / "truth")
    with pytest.raises(OSError, match="no sequence"):
        score_folders(tmp_path / "truth", tmp_path / "truth/dog")


SHARED = TESTS.parents[1] / "shared"


@pytest.mark.skipif(not (SHARED / "clips/davis").is_dir(), reason="the DAVIS clips are not beside the checkout")
def test_score_folders_equals_the_official_means_of_whole_sequences() -> None:
    golden = json.loads((SHARED / "golden/davis_official.json").read_text())
    for name, figures in golden.items():
        folder = SHARED / "clips/davis" / name
        score = score_sequence(folder / "osvos", folder / "masks", is_binary=True)
        assert score.j == pytest.approx(figures["J_mean"], abs=1e-6)
        assert score.f == pytest.approx(figures["F_mean"], abs=1e-6)
