"""Masks on the token grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unipixel.memory.mask_pooling import TokenMasks, mask_boxes, to_token_grid


def test_to_token_grid_marks_the_tokens_under_a_rectangle() -> None:
    # 56 x 84 pixels at the size of the resized frame: 2 x 3 tokens of 28 pixels.
    masks = np.zeros((2, 1, 56, 84), dtype=bool)
    masks[0, 0, 30:40, 2:20] = True
    grid = to_token_grid(masks, (4, 6))
    assert grid.touched.tolist() == [[[[False, False, False], [True, False, False]]]]


def test_to_token_grid_joins_pairs_and_repeats_the_last_frame() -> None:
    masks = np.zeros((3, 1, 28, 56), dtype=bool)
    masks[1, 0, :, 30:], masks[2, 0, :, :20] = True, True
    grid = to_token_grid(masks, (2, 4))
    assert grid.touched.tolist() == [[[[False, True]]], [[[True, False]]]]


def test_to_token_grid_keeps_a_single_pixel_of_a_large_frame() -> None:
    masks = np.zeros((1, 1, 1080, 1920), dtype=bool)
    masks[0, 0, 777, 1234] = True
    assert to_token_grid(masks, (16, 24)).touched.any()


def test_to_token_grid_does_not_mix_objects() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((5, 3, 60, 90)) > 0.97
    together = to_token_grid(masks, (4, 6))
    alone = TokenMasks.cat([to_token_grid(torch.from_numpy(masks[:, [index]]), (4, 6)) for index in range(3)])
    assert together.coverage.shape == (3, 3, 2, 3)
    assert torch.equal(together.coverage, alone.coverage)
    assert torch.equal(together.boxes_xyxy, alone.boxes_xyxy)


def test_coverage_is_the_share_of_each_cell() -> None:
    masks = np.zeros((2, 1, 56, 56), dtype=bool)
    masks[:, 0, :28, :42] = True
    assert to_token_grid(masks, (4, 4)).coverage.squeeze().tolist() == [[1.0, 0.5], [0.0, 0.0]]


def test_boxes_are_shares_of_the_frame_and_join_the_frames_of_a_pair() -> None:
    masks = np.zeros((4, 2, 100, 200), dtype=bool)
    masks[0, 0, 10:20, 20:40], masks[1, 0, 15:50, 30:60] = True, True
    masks[2:, 1] = True
    boxes = to_token_grid(masks, (4, 8)).boxes_xyxy
    expected = [[[0.1, 0.1, 0.3, 0.5], [0.0] * 4], [[0.0] * 4, [0.0, 0.0, 1.0, 1.0]]]
    torch.testing.assert_close(boxes, torch.tensor(expected))


def test_mask_boxes_of_one_pixel_has_its_edges() -> None:
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[3, 7] = True
    assert mask_boxes(mask).tolist() == [0.875, 0.75, 1.0, 1.0]


def test_boxes_and_times_follow_the_order_of_the_memory_tokens() -> None:
    cells = torch.zeros(3, 2, 2, 2)
    cells[0, 0, 0, 0] = cells[2, 0, 1, 1] = cells[1, 1] = 1
    masks = TokenMasks.from_cells(cells)
    assert masks.num_tokens == 3
    assert masks.token_boxes_xyxy.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]]
    torch.testing.assert_close(masks.token_times, torch.tensor([0, 4 / 5, 2 / 5]))


def test_token_masks_refuse_shapes_that_do_not_agree() -> None:
    with pytest.raises(ValueError, match="coverage must be a float tensor"):
        TokenMasks(torch.ones(1, 1, 2, 2, dtype=torch.bool), torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match=r"boxes_xyxy must be \(1, 2, 4\)"):
        TokenMasks(torch.ones(1, 2, 2, 2), torch.zeros(1, 1, 4))


def test_to_token_grid_serves_other_patch_sizes() -> None:
    masks = np.zeros((2, 1, 64, 64), dtype=bool)
    masks[:, :, 40:50, 40:50] = True
    grid = to_token_grid(masks, (4, 4), patch_size=16, merge_size=4)
    assert grid.coverage.shape == (1, 1, 1, 1)
    assert grid.touched.all()


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
    assert torch.equal(to_token_grid(masks, grid_hw).touched, expected)
