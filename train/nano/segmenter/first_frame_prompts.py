"""Sampling of prompts for the objects on the first frame of a synthetic track.

Shape letters: H, W frame size, K candidate boxes, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt
from unipixel.train.nano.dense_targets import ATTRIBUTE_SIZES

NUM_BOXES = 12
"""Candidate boxes K of a token prompt."""

UNKNOWN_ATTRIBUTES = torch.zeros(len(ATTRIBUTE_SIZES), dtype=torch.long)
# Standard deviations of the candidate boxes' centres, as fractions of the frame's side.
_BOX_STDS = (0.0, 0.03, 0.06, 0.12, 0.25, 0.5)
_ATTRIBUTE_PROBABILITY = 0.6
_MAX_ATTEMPTS = 8


@dataclass(frozen=True)
class ObjectPrompt:
    """Prompt of one object.

    Attributes:
        kind: `point`, `box`, `mask`, or `token` for a mask token as the language model writes it.
        row: Row of the object's masks; None for a box without an object.
        coords: (P, 2) in pixels of the square frame, (K, 2, 2) candidate boxes for a token; empty for a mask.
        attributes: (A,) attribute numbers that a token contains, 0 where unknown.
    """

    kind: str
    row: int | None
    coords: Tensor
    attributes: Tensor = UNKNOWN_ATTRIBUTES


def sample_object_prompt(
    masks: np.ndarray,
    row: int,
    kind: str,
    *,
    visible: Sequence[int],
    attributes: Tensor | None,
    side: int,
    rng: np.random.Generator,
) -> ObjectPrompt:
    """Sample a prompt of an object.

    Args:
        masks: (O, H, W) masks on the first frame.
        row: Row of the object.
        kind: `point`, `box`, `mask`, `token`, or `empty` for a token whose box contains no object. Where the frame has
            no place for such a box, the token shows the object.
        visible: Rows of the objects that are visible.
        attributes: (O, A) numbers of their attributes; None where they are unknown.
        side: Side of the square frame in pixels.
        rng: Source of randomness.
    """
    if kind == "mask":
        return ObjectPrompt(kind, row, torch.empty(0, 2))
    if kind == "empty":
        box = _box_without_object(np.asarray(masks.any(axis=0)), side, rng)
        if box is not None:
            return ObjectPrompt("token", None, box.expand(NUM_BOXES, 2, 2))
    coords = _point_or_box(masks[row], "box" if kind in ("token", "empty") else kind, side, rng)
    if kind in ("point", "box"):
        return ObjectPrompt(kind, row, coords)
    known, is_unique = UNKNOWN_ATTRIBUTES, False
    if attributes is not None:
        known, is_unique = _sample_attributes(attributes, visible, row, rng)
    boxes = _jitter_box(coords, side, rng, stds=_BOX_STDS if is_unique else _BOX_STDS[:2])
    return ObjectPrompt("token", row, boxes, known)


def _point_or_box(mask: np.ndarray, kind: str, side: int, rng: np.random.Generator) -> Tensor:
    """Sample a point (1, 2), or the corners (2, 2) of a box, in pixels of the square frame."""
    prompt = sample_prompt(rng, mask[None], kind=kind, is_fixed=False, frame=0)
    values = prompt.point if prompt.point is not None else prompt.box_xyxy
    return _to_square(values, mask.shape, side)


def _sample_attributes(
    attributes: Tensor, visible: Sequence[int], row: int, rng: np.random.Generator
) -> tuple[Tensor, bool]:
    """Choose which attributes (A,) of an object are known, and tell whether no other visible object has them."""
    known = torch.where(torch.from_numpy(rng.random(attributes.shape[1]) < _ATTRIBUTE_PROBABILITY), attributes[row], 0)
    others = attributes[[other for other in visible if other != row]]
    return known, not bool(((others == known) | (known == 0)).all(dim=1).any())


def _jitter_box(box: Tensor, side: int, rng: np.random.Generator, *, stds: Sequence[float]) -> Tensor:
    """Sample candidate boxes (K, 2, 2) around a box (2, 2), with one of several standard deviations."""
    std = float(rng.choice(stds)) * side
    centre, half = box.mean(dim=0), (box[1] - box[0]) / 2
    estimate = centre + torch.from_numpy(rng.normal(0, std, 2)).float()
    centres = estimate + torch.from_numpy(rng.normal(0, std, (NUM_BOXES, 2))).float()
    size_std = min(2 * std / side, 0.4)
    log_scales = rng.normal(0, size_std, (1, 2)) + rng.normal(0, size_std, (NUM_BOXES, 2))
    halves = half * torch.from_numpy(np.exp(log_scales)).float()
    return torch.stack([centres - halves, centres + halves], dim=1).clamp(0, side)


def _box_without_object(covered: np.ndarray, side: int, rng: np.random.Generator) -> Tensor | None:
    """Sample a box (2, 2) on the background, or None where none was found."""
    for _ in range(_MAX_ATTEMPTS):
        sides = [max(4, int(length * rng.uniform(0.1, 0.4))) for length in covered.shape]
        top, left = (int(rng.integers(max(1, length - own))) for length, own in zip(covered.shape, sides, strict=True))
        if not covered[top : top + sides[0], left : left + sides[1]].any():
            return _to_square((left, top, left + sides[1], top + sides[0]), covered.shape, side)
    return None


def _to_square(values: Sequence[float] | None, size: tuple[int, ...], side: int) -> Tensor:
    """Scale points (P, 2) from a frame of the given height and width to the square frame."""
    coords = torch.tensor(values, dtype=torch.float32).view(-1, 2)
    return coords * torch.tensor([side / size[1], side / size[0]])
