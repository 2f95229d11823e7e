"""Inputs and outputs of Pixel-SAIL.

Shape letters: B samples, L tokens, D width of the transformer, h, w rows and columns of patches, p patch side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImagePatches:
    """An image with its visual prompts, as input of the model.

    Attributes:
        patches: (h * w, 3 * p * p) normalised pixels in raster order.
        grid: Rows and columns of patches (h, w).
        prompt_ids: (h * w,) int64 prompt of each cell, -1 where there is none.
        image_size: (H, W) of the image before resizing.
    """

    patches: Tensor
    grid: tuple[int, int]
    prompt_ids: Tensor
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if self.patches.ndim != 2 or len(self.patches) != rows * columns:
            raise ValueError(f"a grid of {rows} x {columns} needs {rows * columns} patches, "
                             f"patches is {tuple(self.patches.shape)}")  # fmt: skip
        if tuple(self.prompt_ids.shape) != (rows * columns,):
            raise ValueError(f"prompt_ids must be ({rows * columns},), got {tuple(self.prompt_ids.shape)}")

    def to(self, device: torch.device | str) -> ImagePatches:
        """Return the same image on a device."""
        return ImagePatches(self.patches.to(device), self.grid, self.prompt_ids.to(device), self.image_size)

    @property
    def prompts(self) -> list[int]:
        """The prompts that have a cell, from the smallest id to the largest."""
        return [number for number in self.prompt_ids.unique().tolist() if number >= 0]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors."""
        tensors = (self.patches, self.prompt_ids)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class PatchStates:
    """States of the patches of an image, from which masks are computed.

    Attributes:
        states: (h * w, D) after the last layer and the final norm.
        grid: Rows and columns of patches (h, w).
        image_size: (H, W) of the image before resizing.
    """

    states: Tensor
    grid: tuple[int, int]
    image_size: tuple[int, int]

    @property
    def num_bytes(self) -> int:
        """Bytes of the states."""
        return self.states.numel() * self.states.element_size()


@dataclass(frozen=True)
class SailOutput:
    """Result of a forward pass over whole samples.

    Attributes:
        logits: (B, L, vocabulary).
        hidden_states: (B, L, D) after the final norm; the state at a `[SEG]` describes its mask.
        inputs_embeds: (B, L, D).
        position_ids: (3, B, L).
        patch_states: One per image, in the order of the batch.
        seg_states: Per sample (K, D), the states at its `[SEG]` tokens.
    """

    logits: Tensor
    hidden_states: Tensor
    inputs_embeds: Tensor
    position_ids: Tensor
    patch_states: tuple[PatchStates, ...]
    seg_states: tuple[Tensor, ...]
