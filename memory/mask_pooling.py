"""Object masks on the token grid of the language model, for masked pooling.

Shape letters: n frames, t frame pairs, O objects, N memory tokens, H, W frame size, gh, gw token grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unipixel.memory.representation import short_repr

_FRAMES_PER_PAIR = 2


@dataclass(frozen=True, eq=False)
class TokenMasks:
    """The masks of some objects, per frame pair of the vision transformer.

    An object has one `<|mem|>` token in each frame pair in which its mask touches a token of the grid. These N
    memory tokens are ordered object by object, and by time within an object.

    Attributes:
        coverage: (t, O, gh, gw) float32 in [0, 1], the share of each token's cell that the mask covers.
        boxes_xyxy: (t, O, 4) float32 in [0, 1], the tightest box (left, top, right, bottom) as shares of the frame's
            width and height; zeros where the mask is empty.
    """

    __repr__ = short_repr

    coverage: Tensor
    boxes_xyxy: Tensor

    def __post_init__(self) -> None:
        if self.coverage.ndim != 4 or not self.coverage.is_floating_point():
            raise ValueError(
                f"coverage must be a float tensor (t, O, gh, gw), got {self.coverage.dtype} "
                f"{tuple(self.coverage.shape)}"
            )
        if self.boxes_xyxy.shape != (*self.coverage.shape[:2], 4):
            raise ValueError(
                f"boxes_xyxy must be {(*self.coverage.shape[:2], 4)} for coverage {tuple(self.coverage.shape)}, "
                f"got {tuple(self.boxes_xyxy.shape)}"
            )

    @classmethod
    def from_cells(cls, cells: Tensor) -> TokenMasks:
        """Make token masks from the touched cells alone (t, O, gh, gw): each is covered fully."""
        cells = cells != 0
        return cls(cells.float(), mask_boxes(cells))

    @classmethod
    def cat(cls, masks: Sequence[TokenMasks]) -> TokenMasks:
        """Join the objects of several token masks of one clip."""
        return cls(torch.cat([m.coverage for m in masks], dim=1), torch.cat([m.boxes_xyxy for m in masks], dim=1))

    @property
    def touched(self) -> Tensor:
        """(t, O, gh, gw) bool, the tokens that each object touches; `refer_mask` of the published code."""
        return self.coverage > 0

    @property
    def is_visible(self) -> Tensor:
        """(O, t) bool, the frame pairs in which each object has a memory token."""
        return (self.coverage > 0).flatten(2).any(dim=2).T

    @property
    def num_tokens(self) -> int:
        """Number of memory tokens (N)."""
        return int(self.is_visible.sum())

    @property
    def token_boxes_xyxy(self) -> Tensor:
        """(N, 4) box of each memory token, in [0, 1]."""
        return self.boxes_xyxy.transpose(0, 1)[self.is_visible]

    @property
    def token_times(self) -> Tensor:
        """(N,) time of each memory token: the first frame of its pair over the clip's last frame, in [0, 1].

        This is the time that the prompt encoder reads of a `<|ref|>` on the same frame.
        """
        is_visible = self.is_visible
        num_pairs = is_visible.shape[1]
        times = torch.arange(num_pairs, device=is_visible.device) * _FRAMES_PER_PAIR
        times = times / max(num_pairs * _FRAMES_PER_PAIR - 1, 1)
        return times.expand_as(is_visible)[is_visible]

    def to(self, device: torch.device | str) -> TokenMasks:
        """Return the same masks on a device."""
        return TokenMasks(self.coverage.to(device), self.boxes_xyxy.to(device))


def to_token_grid(
    masks: NDArray[Any] | Tensor, grid_hw: tuple[int, int], *, patch_size: int = 14, merge_size: int = 2
) -> TokenMasks:
    """Compute how much of each of the language model's tokens an object covers (UniPixel, section 3.1).

    Frames are merged in pairs, as in the vision transformer, the last of an odd number with itself.
    The smallest overlap counts as touching a token, so that thin objects keep their tokens.

    Args:
        masks: (n, O, H, W), non-zero on the object, at any size.
        grid_hw: Rows and columns of patches, before merging.
        patch_size: Side of a patch in pixels of the resized frame.
        merge_size: Patches merged into one token along each side.

    Returns:
        Token masks on the CPU.

    Raises:
        ValueError: The masks are not four-dimensional or empty, or the grid is not a multiple of `merge_size`.
    """
    if masks.ndim != 4 or 0 in (masks.shape[0], *masks.shape[2:]):
        raise ValueError(f"masks must be (frames, objects, H, W) with at least one frame, got {tuple(masks.shape)}")
    rows, columns = grid_hw
    if rows < 1 or columns < 1 or rows % merge_size or columns % merge_size:
        raise ValueError(f"grid_hw must be positive multiples of {merge_size}, got {grid_hw}")
    inside = torch.as_tensor(masks).cpu() != 0
    if len(inside) % _FRAMES_PER_PAIR:
        inside = torch.cat([inside, inside[-1:]])
    pairs = inside.unflatten(0, (-1, _FRAMES_PER_PAIR)).any(dim=1)
    side = patch_size * merge_size
    coverage = torch.zeros(*pairs.shape[:2], rows // merge_size, columns // merge_size)
    # Object by object: float masks of eight objects at 720p would take a gigabyte.
    for index in range(pairs.shape[1]):
        resized = functional.interpolate(
            pairs[:, index, None].float(),
            size=(rows * patch_size, columns * patch_size),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        coverage[:, index] = functional.avg_pool2d(resized, side)[:, 0]
    return TokenMasks(coverage, mask_boxes(pairs))


def mask_boxes(masks: Tensor) -> Tensor:
    """Return the tightest boxes around bool masks (..., H, W) as (..., 4) shares of width and height.

    Left, top, right, bottom; right and bottom are one past the last pixel. Zeros where a mask is empty.
    """
    ends = []
    for line in (masks.any(dim=-2), masks.any(dim=-1)):
        length = line.shape[-1]
        first = line.int().argmax(dim=-1)
        last = length - line.flip(-1).int().argmax(dim=-1)
        is_empty = ~line.any(dim=-1)
        ends += [(end.float() / length).masked_fill(is_empty, 0.0) for end in (first, last)]
    left, right, top, bottom = ends
    return torch.stack([left, top, right, bottom], dim=-1)
