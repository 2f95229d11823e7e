"""Frames as the two vision encoders read them: patches for Qwen2.5-VL, squares for SAM 2.1.

Shape letters: n frames, t frame pairs, h, w rows and columns of patches, H, W frame size, S SAM image size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# Channel statistics of the data that CLIP (Qwen2.5-VL's vision encoder) and SAM 2.1 were trained with.
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MAX_ASPECT_RATIO = 200
FRAMES_PER_PAIR = 2
"""Frames that Qwen2.5-VL joins in one patch; the prompts' `<1>-<2>` rest on it."""
BUDGET_FILE = "unipixel_processor.json"
"""Written beside config.json where a model's budget is not the published one."""


@dataclass(frozen=True)
class FrameBudget:
    """How many frames the language model sees, and how finely.

    Attributes:
        num_frames: Frames chosen from a clip at most.
        min_tokens: Least merged tokens per frame pair.
        max_tokens: Most merged tokens per frame pair of a clip with `num_frames`; shorter clips get a
            multiple of it, an image `num_frames` times as many.
        is_still: Whether each frame fills a pair alone, as an image does. Two frames that lie apart share the
            cells of a pair as two exposures share a picture, which a small model does not take apart.
    """

    num_frames: int = 16
    min_tokens: int = 128
    max_tokens: int = 256
    is_still: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.is_still, bool):
            raise ValueError(f"is_still must be true or false, got {self.is_still!r}")
        for name in ("num_frames", "min_tokens", "max_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens must be at most max_tokens, got {self.min_tokens} and {self.max_tokens}")

    def max_tokens_of(self, num_frames: int) -> int:
        """Return the most merged tokens per frame pair of a clip of `num_frames`."""
        return self.max_tokens * max(1, self.num_frames // num_frames)

    @classmethod
    def read(cls, folder: str | Path) -> FrameBudget:
        """Read the budget that lies beside a checkpoint; without one it is the published budget.

        Raises:
            ValueError: The file holds something else.
        """
        file = Path(folder) / BUDGET_FILE
        if not file.is_file():
            return cls()
        fields: Any = json.loads(file.read_text(encoding="utf-8"))
        allowed = set(asdict(cls()))
        if not isinstance(fields, dict) or not set(fields) <= allowed:
            raise ValueError(f"{file} must hold an object with the fields {sorted(allowed)}")
        return cls(**fields)

    def write(self, folder: str | Path) -> None:
        """Write the budget beside a checkpoint."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        (Path(folder) / BUDGET_FILE).write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class PatchSizes:
    """How Qwen2.5-VL's vision transformer cuts a clip.

    Attributes:
        patch: Side of a patch in pixels.
        merge: Patches that make one token along each side.
    """

    patch: int = 14
    merge: int = 2

    @property
    def cell(self) -> int:
        """Side of a merged token in pixels."""
        return self.patch * self.merge


def fit_size(height: int, width: int, *, cell: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Choose the size to which a frame is resized, in whole tokens and close to its aspect ratio.

    The rule of Qwen2-VL (arXiv:2409.12191): round each side; where the area is out of bounds, scale
    both sides and round down, or up, so that it falls inside.

    Args:
        height: Pixels of the frame.
        width: Pixels of the frame.
        cell: Side of a merged token in pixels.
        min_tokens: Least number of tokens.
        max_tokens: Most tokens.

    Returns:
        Height and width, multiples of `cell`.

    Raises:
        ValueError: One side is more than 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(f"a frame's sides may differ {_MAX_ASPECT_RATIO} times, got {width} x {height} pixels")
    rows, columns = round(height / cell), round(width / cell)
    if rows * columns > max_tokens:
        shrink = math.sqrt(height * width / (max_tokens * cell**2))
        rows, columns = (max(1, math.floor(side / shrink / cell)) for side in (height, width))
    elif rows * columns < min_tokens:
        grow = math.sqrt(min_tokens * cell**2 / (height * width))
        rows, columns = (math.ceil(side * grow / cell) for side in (height, width))
    return rows * cell, columns * cell


def resize_frame(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a frame (H, W, 3) to (height, width) with Pillow's bicubic filter, as the published code does."""
    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def to_patches(frames: Sequence[NDArray[np.uint8]], sizes: PatchSizes) -> tuple[Tensor, tuple[int, int, int]]:
    """Cut resized frames into normalised patches in the order of Qwen2.5-VL.

    The last frame is repeated until the frames fill their pairs. The patches of one merged token
    follow each other.

    Args:
        frames: (H, W, 3) arrays whose sides are whole tokens.
        sizes: Sizes of the patches.

    Returns:
        (t*h*w, 6 * patch * patch) float32 patches, and the grid (t, h, w).
    """
    pixels = normalise_pixels(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))
    if missing := -len(pixels) % FRAMES_PER_PAIR:
        pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
    t, h, w = len(pixels) // FRAMES_PER_PAIR, pixels.shape[2] // sizes.patch, pixels.shape[3] // sizes.patch
    split = pixels.view(
        t, FRAMES_PER_PAIR, 3, h // sizes.merge, sizes.merge, sizes.patch, w // sizes.merge, sizes.merge, sizes.patch
    )
    patches = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return patches.reshape(t * h * w, 3 * FRAMES_PER_PAIR * sizes.patch**2), (t, h, w)


def normalise_pixels(pixels: Tensor) -> Tensor:
    """Normalise frames (n, 3, H, W) uint8 for the vision transformer, as float32 on their device."""
    # Scaling folded into the statistics: equal to the published figures to the last bit.
    mean, std = (255 * torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (_CLIP_MEAN, _CLIP_STD))
    return (pixels.float() - mean) / std


def check_frames(frames: Sequence[Any]) -> tuple[int, int]:
    """Check that frames are pictures of one size, and return it as (H, W).

    Raises:
        TypeError: A frame is not a uint8 array.
        ValueError: There is no frame, or a frame's shape is not (H, W, 3) or differs from the first's.
    """
    if len(frames) == 0:
        raise ValueError("no frame was given: a clip has at least one")
    for index, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
            raise TypeError(f"frame {index} must be a uint8 array (H, W, 3), got {kind}")
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"frame {index} must have the shape (H, W, 3), RGB, got {frame.shape}")
        if frame.shape != frames[0].shape:
            raise ValueError(f"frames must be of one size: frame {index} is {frame.shape}, frame 0 {frames[0].shape}")
    return int(frames[0].shape[0]), int(frames[0].shape[1])
