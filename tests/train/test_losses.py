"""Mask and text losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from unipixel.train.losses import (
    IGNORED_LABEL,
    dice_loss,
    focal_loss,
    label_masks,
    mask_loss,
    text_losses,
)
from unipixel.train.recipe import LossWeights


@pytest.fixture
def square() -> torch.Tensor:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:6, 2:6] = True
    return mask


def test_focal_loss_uncertain_pixels_have_closed_form(square: torch.Tensor) -> None:
    # p = 1/2 everywhere: (1/2)^2 * ln 2, a quarter of the pixels with weight 1/4 and the others with 3/4.
    expected = 0.25 * math.log(2) * (0.25 * 0.25 + 0.75 * 0.75)
    assert focal_loss(torch.zeros(1, 8, 8), square).item() == pytest.approx(expected, rel=1e-5)


def test_dice_loss_uncertain_pixels_have_closed_form(square: torch.Tensor) -> None:
    # Overlap 16 * 1/2, areas 64 * 1/2 + 16.
    assert dice_loss(torch.zeros(1, 8, 8), square).item() == pytest.approx(1 - 17 / 49, rel=1e-5)


def test_mask_loss_perfect_candidate_leaves_only_the_iou_errors_of_others(square: torch.Tensor) -> None:
    sharp = (square.float() * 2 - 1) * 50
    candidates = torch.stack([-sharp, sharp, -sharp], dim=1)
    loss = mask_loss(candidates, torch.tensor([[0.0, 1.0, 0.3]]), torch.tensor([50.0]), square)
    assert loss.focal.item() == pytest.approx(0, abs=1e-6)
    assert loss.dice.item() == pytest.approx(0, abs=1e-5)
    assert loss.iou.item() == pytest.approx(0.1, rel=1e-5)
    assert loss.total.item() == pytest.approx(0.5, rel=1e-3)


def test_mask_loss_worse_candidates_get_no_mask_gradient(square: torch.Tensor) -> None:
    sharp = (square.float() * 2 - 1) * 2
    candidates = torch.stack([-sharp, sharp, 0 * sharp], dim=1).requires_grad_()
    loss = mask_loss(candidates, torch.zeros(1, 3), torch.zeros(1), square)
    (gradient,) = torch.autograd.grad(loss.total.sum(), candidates)
    assert [bool(candidate.any()) for candidate in gradient[0]] == [False, True, False]


def test_mask_loss_absent_object_trains_only_its_score() -> None:
    absent = torch.zeros(1, 8, 8, dtype=torch.bool)
    loss = mask_loss(torch.randn(1, 3, 2, 2), torch.rand(1, 3), torch.zeros(1), absent)
    assert loss.total.item() == pytest.approx(5 * math.log(2), rel=1e-5)


def test_mask_loss_weights_choose_the_best_candidate(square: torch.Tensor) -> None:
    confident = torch.full((8, 8), 8.0)
    uncertain = torch.zeros(8, 8)
    candidates = torch.stack([confident, uncertain])[None]
    focal_only = mask_loss(candidates, torch.zeros(1, 2), torch.zeros(1), square, weights=LossWeights(dice=0))
    dice_only = mask_loss(candidates, torch.zeros(1, 2), torch.zeros(1), square, weights=LossWeights(focal=0))
    assert focal_only.focal.item() == pytest.approx(focal_loss(uncertain, square[0]).item())
    assert dice_only.dice.item() == pytest.approx(dice_loss(confident, square[0]).item())


def test_mask_loss_different_counts_are_refused(square: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="got 2 predictions and 1 target masks"):
        mask_loss(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3), torch.zeros(2), square)


def test_mask_loss_weights_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="dice must not be negative"):
        LossWeights(dice=-1)


def test_label_masks_large_frame_keeps_the_area() -> None:
    rows, columns = torch.meshgrid(torch.arange(1080) - 540, torch.arange(1080) - 540, indexing="ij")
    disc = (rows**2 + columns**2 <= 20**2)[None]
    small = label_masks(disc, (768, 768))
    expected = int(disc.sum()) * (768 / 1080) ** 2
    assert int(small.sum()) == pytest.approx(expected, rel=0.02)


def test_text_losses_are_means_over_the_supervised_tokens_of_each_sample() -> None:
    logits = torch.zeros(2, 4, 7)
    logits[0, 1, 3] = 100.0
    ignored = [IGNORED_LABEL] * 2
    labels = torch.tensor([[*ignored, 3, IGNORED_LABEL], [*ignored, 3, 2]])
    losses = text_losses(logits, labels, logits_of=torch.clone).tolist()
    assert losses == pytest.approx([0, math.log(7)], abs=1e-6)


def test_text_losses_nothing_supervised_is_zero_with_a_graph() -> None:
    logits = torch.zeros(1, 4, 7, requires_grad=True)
    losses = text_losses(logits, torch.full((1, 4), IGNORED_LABEL), logits_of=torch.clone)
    losses.sum().backward()
    assert losses.tolist() == [0]


def test_mask_loss_multimask_weight_averages_all_candidates(square: torch.Tensor) -> None:
    candidates = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loss = mask_loss(candidates, torch.zeros(1, 3), torch.zeros(1), square, weights=LossWeights(multimask_weight=1.0))
    assert loss.dice.item() == pytest.approx(dice_loss(candidates, square[:, None]).mean().item(), rel=1e-5)


def test_mask_loss_weights_multimask_weight_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match="multimask_weight must be in"):
        LossWeights(multimask_weight=1.5)
