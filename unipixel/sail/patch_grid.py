"""The grid of patches of an image: its size, its pixels, and the cells that prompts cover.

Shape letters: H, W image in pixels, h, w rows and columns of patches, p patch side, n prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

PromptOrder = Literal["area", "given"]
NO_PROMPT = -1
"""Entry of an index map for a cell that no prompt covers."""


def fit_long_side(height: int, width: int, *, patch: int, max_side: int) -> tuple[int, int]:
    """Compute the size to which an image is resized: whole patches, the longer side up to a maximum.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        patch: Side of a patch.
        max_side: Maximum of the longer side.

    Returns:
        Height and width, multiples of `patch`.

    Raises:
        ValueError: The image is so narrow that its shorter side has no patch.
    """
    longer, shorter = max(height, width), min(height, width)
    long_side = min(math.ceil(longer / patch) * patch, max_side)
    # In integers: the published code multiplies first and truncates.
    short_side = math.ceil(int(long_side * shorter / longer) / patch) * patch
    if short_side == 0:
        raise ValueError(
            f"an image of {width} x {height} pixels is too narrow: resized to {long_side} pixels, its shorter side has "
            "none left; crop it"
        )
    return (long_side, short_side) if height >= width else (short_side, long_side)


def fit_area(height: int, width: int, *, patch: int, side: int) -> tuple[int, int]:
    """Compute the size to which EVEv2 resizes an image: an area of about `side` squared, whole patches.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        patch: Side of a patch.
        side: Root of the area.

    Returns:
        Height and width, multiples of `patch`.
    """
    scale = side / math.sqrt(height * width)
    rounded = [math.ceil(int(length * scale) / patch) * patch for length in (height, width)]
    return max(rounded[0], patch), max(rounded[1], patch)


def image_to_patches(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    patch: int,
    mean: Sequence[float],
    std: Sequence[float],
    is_bicubic: bool = False,
) -> Tensor:
    """Resize an image and split it into normalised patches.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: Height and width after resizing, multiples of `patch`.
        patch: Side of a patch.
        mean: Channel means.
        std: Channel deviations.
        is_bicubic: Whether Pillow's bicubic filter is used, else its bilinear one.

    Returns:
        (h * w, 3 * p * p) float32 in raster order; each row has the order (channel, row, column).
    """
    height, width = size
    resampling = Image.Resampling.BICUBIC if is_bicubic else Image.Resampling.BILINEAR
    pixels = np.array(Image.fromarray(image).resize((width, height), resampling))
    values = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
    values = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    grid = values.reshape(3, height // patch, patch, width // patch, patch)
    return grid.permute(1, 3, 0, 2, 4).reshape(-1, 3 * patch * patch).contiguous()


def mask_to_cells(mask: NDArray[np.bool_], size: tuple[int, int], *, patch: int) -> NDArray[np.bool_]:
    """Return the cells (h, w) of a patch grid that a mask touches.

    The mask is resized like its image, by nearest neighbour; a cell is covered if any of its pixels is.

    Args:
        mask: (H, W) at the size of the image.
        size: Height and width after resizing, multiples of `patch`.
        patch: Side of a patch.
    """
    values = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    resized = np.asarray(values.resize((size[1], size[0]), Image.Resampling.NEAREST))
    rows, columns = size[0] // patch, size[1] // patch
    return np.asarray(resized.reshape(rows, patch, columns, patch).any(axis=(1, 3)), dtype=np.bool_)


@dataclass(frozen=True)
class RegionPrompt:
    """A region of an image with its id, which questions name as `<PromptK>`.

    Attributes:
        prompt_id: From 0 to 14.
        mask: (H, W) at the size of the image, non-zero on the region.
    """

    prompt_id: int
    mask: NDArray[np.generic]


def prompt_index_map(
    prompts: Sequence[RegionPrompt],
    size: tuple[int, int],
    *,
    patch: int,
    num_prompts: int,
    image_size: tuple[int, int],
    order: PromptOrder = "area",
) -> Tensor:
    """Assign every cell of a patch grid to the prompt that covers it.

    Where prompts overlap, the one that is drawn last has the cell.

    Args:
        prompts: Regions with their ids.
        size: Height and width of the resized image, multiples of `patch`.
        patch: Side of a patch.
        num_prompts: Number of prompt ids.
        image_size: (H, W) of the image before resizing.
        order: `area` draws the largest region first, as in training, so that small ones stay visible; `given` draws
            them as they come and loses prompts without a cell silently, as the published inference does.

    Returns:
        (h * w,) int64: the id of the prompt on each cell, `NO_PROMPT` elsewhere.

    Raises:
        ValueError: There are too many prompts, an id is out of range or used twice, a mask is empty or of another
            size, or a prompt has no cell (order `area`).
    """
    _check_prompts(prompts, num_prompts=num_prompts, image_size=image_size)
    masks = {prompt.prompt_id: np.asarray(prompt.mask) != 0 for prompt in prompts}
    ids = list(masks)
    if order == "area":
        ids.sort(key=lambda prompt_id: -int(masks[prompt_id].sum()))
    index = np.full((size[0] // patch, size[1] // patch), NO_PROMPT, dtype=np.int64)
    for prompt_id in ids:
        cells = mask_to_cells(masks[prompt_id], size, patch=patch)
        if not cells.any() and order == "area":
            raise ValueError(
                f"the mask of prompt {prompt_id} has {int(masks[prompt_id].sum())} pixels and disappears when the "
                f"image of {image_size[1]} x {image_size[0]} pixels is resized to {size[1]} x {size[0]}: mark a larger "
                "region, or crop the image"
            )
        index[cells] = prompt_id
    if order == "area" and (hidden := sorted(set(ids) - set(index.flatten().tolist()))):
        raise ValueError(
            f"prompt {hidden[0]} has no cell of {patch} x {patch} pixels for itself, smaller prompts cover all of "
            "them: ask about it without the others"
        )
    return torch.from_numpy(index.reshape(-1))


def _check_prompts(prompts: Sequence[RegionPrompt], *, num_prompts: int, image_size: tuple[int, int]) -> None:
    if len(prompts) > num_prompts:
        raise ValueError(f"{len(prompts)} prompts were given for an image: at most {num_prompts} are allowed")
    ids = [prompt.prompt_id for prompt in prompts]
    for prompt in prompts:
        if not 0 <= prompt.prompt_id < num_prompts:
            raise ValueError(f"prompt id {prompt.prompt_id} is out of range: allowed are 0 to {num_prompts - 1}")
        if ids.count(prompt.prompt_id) > 1:
            raise ValueError(f"prompt id {prompt.prompt_id} is used twice: unite its masks, or give another id")
        mask = np.asarray(prompt.mask)
        if mask.shape != image_size:
            raise ValueError(
                f"the mask of prompt {prompt.prompt_id} has shape {mask.shape}, the image has (H, W) = {image_size}"
            )
        if not mask.any():
            raise ValueError(f"the mask of prompt {prompt.prompt_id} is empty: mark at least one pixel")
