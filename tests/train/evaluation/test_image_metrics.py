"""cIoU, gIoU, boxes and gRefCOCO against figures of published code and masks whose overlap is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.golden_evaluation import GOLDEN, golden_case
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unipixel.memory.rle import decode_rle
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.running.predictions import PredictionFile
from unipixel.train.evaluation.scoring.generalized_referring import (
    failed_score,
    score_generalized,
    summarize_generalized,
)
from unipixel.train.evaluation.scoring.mask_overlap import (
    box_iou,
    cumulative_iou,
    is_box_hit,
    match_masks,
    mean_iou,
    measure_overlap,
    published_box,
)
from unipixel.train.evaluation.scoring.volume_overlap import volume_iou, volume_scores

SAIL = json.loads((GOLDEN / "sail-metrics.json").read_text(encoding="utf-8"))
SIZE = tuple(SAIL["image_size"])


def decoded(rle: dict[str, Any] | None) -> NDArray[np.bool_]:
    return np.zeros(SIZE, bool) if rle is None else decode_rle(rle)


def annotated(ids: int | list[int]) -> NDArray[np.bool_]:
    """Return the union of the annotations that are not crowds."""
    mask = np.zeros(SIZE, bool)
    for key in [ids] if isinstance(ids, int) else ids:
        annotation = SAIL["annotations"].get(str(key), {"segmentation": [], "iscrowd": 0})
        if annotation["segmentation"] and not annotation["iscrowd"]:
            polygons = coco_mask.frPyObjects(annotation["segmentation"], *SIZE)
            mask |= coco_mask.decode(coco_mask.merge(polygons)).astype(bool)
    return mask


def square(top: int, left: int, height: int, width: int, *, size: tuple[int, int] = (40, 40)) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize("name", ["refcoco", "refcoco_overlapping_polygons", "grefcoco"])
@pytest.mark.parametrize("protocol", ["published", "strict"])
def test_image_overlaps_equal_the_recorded_figures(name: str, protocol: str) -> None:
    overlaps = [
        measure_overlap(decoded(predicted and predicted[0]), annotated(ids) if protocol == "strict" else decoded(truth))
        for image in SAIL[name]["images"]
        for ids, predicted, truth in zip(image["ann_ids"], image["predictions"], image["published_truth"], strict=True)
    ]
    expected = SAIL[name][protocol]
    assert cumulative_iou(overlaps) == pytest.approx(expected["cIoU"], abs=1e-6)
    assert mean_iou([overlap.iou for overlap in overlaps]) == pytest.approx(expected["gIoU"], abs=1e-6)


def test_no_target_accuracies_equal_the_recorded_figures() -> None:
    scores = [
        score_generalized(decoded(predicted and predicted[0]), annotated(ids), has_target=ids != [-1])
        for image in SAIL["grefcoco"]["images"]
        for ids, predicted in zip(image["ann_ids"], image["predictions"], strict=True)
    ]
    figures = summarize_generalized(scores)
    expected = SAIL["grefcoco"]["strict"]
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_visual_text_segmentation_matches_all_targets_one_to_one() -> None:
    overlaps = [
        overlap
        for case in SAIL["vres"]["cases"]
        for overlap in match_masks([decoded(rle) for rle in case["prediction"] or []], map_decoded(case["targets"]))
    ]
    expected = SAIL["vres"]["strict"]
    assert cumulative_iou(overlaps) == pytest.approx(expected["cIoU"], abs=1e-6)
    assert mean_iou([overlap.iou for overlap in overlaps]) == pytest.approx(expected["gIoU"], abs=1e-6)


def map_decoded(rles: list[dict[str, Any]]) -> list[NDArray[np.bool_]]:
    return [decoded(rle) for rle in rles]


def test_ignored_pixels_leave_intersection_and_union() -> None:
    predicted, truth = square(0, 0, 10, 10), square(0, 5, 10, 10)
    ignored = square(0, 0, 10, 6)
    overlap = measure_overlap(predicted, truth, ignored=ignored)
    assert (overlap.intersection, overlap.union) == (40, 90)


def test_overlap_of_different_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        measure_overlap(np.zeros((2, 3)), np.zeros((3, 2)))


def test_mean_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        cumulative_iou([])


def test_published_box_drops_small_parts_and_ends_at_the_last_pixel() -> None:
    mask = square(10, 10, 5, 4) | square(30, 30, 3, 3)
    mask[0, 0] = mask[1, 1] = True
    assert published_box(mask) == (10, 10, 13, 14)
    assert published_box(square(30, 30, 3, 3)) is None


def test_box_of_a_small_object_hits_only_without_the_published_rule() -> None:
    mask = square(10, 10, 3, 3)
    assert is_box_hit(mask, (10, 10, 13, 13))
    assert not is_box_hit(mask, (10, 10, 13, 13), is_published=True)
    assert not is_box_hit(np.zeros((4, 4), bool), (0, 0, 4, 4))


def test_boxes_without_area_have_no_overlap() -> None:
    assert box_iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0
    assert box_iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)


def test_failed_generalized_samples_count_zero_everywhere() -> None:
    truth = square(0, 0, 4, 4)
    figures = summarize_generalized(
        [failed_score(truth, has_target=True), failed_score(np.zeros_like(truth), has_target=False)]
    )
    assert set(figures.values()) == {0.0}
    assert failed_score(truth, has_target=True).overlap.union == 16


def test_generalized_figures_without_samples_of_a_kind_are_left_out() -> None:
    figures = summarize_generalized([score_generalized(square(0, 0, 2, 2), square(0, 0, 2, 2), has_target=True)])
    assert "N_acc" not in figures
    assert figures["T_acc"] == 1


def test_volume_scores_of_half_an_object_are_jaccard_and_dice() -> None:
    truth = np.stack([square(0, 0, 4, 4), square(0, 0, 4, 4)])
    predicted = np.stack([square(0, 0, 4, 4), square(0, 0, 0, 0)])
    assert volume_scores(predicted, truth) == pytest.approx((0.5, 2 / 3), abs=1e-6)
    assert volume_scores(np.zeros_like(truth), np.zeros_like(truth)) == (0, 0)
    assert volume_iou(predicted, truth) == 0.5
    assert volume_iou(np.zeros_like(truth), np.zeros_like(truth)) == 1
    with pytest.raises(ValueError, match="one size"):
        volume_scores(truth, truth[:1])


def test_a_prediction_of_grefcoco_without_masks_may_declare_that_nothing_matches(tmp_path: Path) -> None:
    benchmark, folder = BENCHMARKS["grefcoco"], golden_case("grefcoco")
    samples = benchmark.read(folder / "data", split="val", variant="")
    rows: list[dict[str, Any]] = [{"sample": sample.name, "no_target": True} for sample in samples]
    del rows[0]["no_target"]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = benchmark.score(samples, PredictionFile(tmp_path), protocol="honest")
    assert scores.figures["N_acc"] == 1
    assert scores.figures["T_acc"] == 0
    assert list(scores.failed) == [samples[0].name]


@pytest.mark.parametrize("name", ["refcoco", "reasonseg"])
def test_samples_without_prediction_count_zero_and_keep_their_truth_in_the_union(name: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name]
    samples = benchmark.read(golden_case(name) / "data", split="val", variant="")
    (tmp_path / "predictions.jsonl").write_text("")
    scores = benchmark.score(samples, PredictionFile(tmp_path), protocol="honest")
    assert set(scores.figures.values()) == {0.0}
    assert len(scores.failed) == len(samples)
    for sample in samples:
        assert sample.truth is not None
        masks = sample.truth().masks
        assert masks is not None
        assert scores.samples[sample.name]["union"] == masks.sum()
