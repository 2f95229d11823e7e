"""Resizing and patching of frames for the vision transformer of Qwen2.5-VL.

Shape letters: n frames, t frame pairs, h, w rows and columns of patches, H, W frame size.
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

# Channel statistics of the training data of CLIP, which Qwen2.5-VL uses too.
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MAX_ASPECT_RATIO = 200
FRAMES_PER_PAIR = 2
"""Frames that Qwen2.5-VL merges in one patch; prompts name them as `<1>-<2>`."""
BUDGET_FILE = "unipixel_processor.json"
"""Written beside config.json if a model's budget is not the published one."""


@dataclass(frozen=True)
class FrameBudget:
    """Number of frames that are sampled, and of visual tokens per frame.

    Attributes:
        num_frames: Maximum number of frames sampled from a clip.
        min_tokens: Minimum of merged tokens per frame pair.
        max_tokens: Maximum of merged tokens per frame pair of a clip with `num_frames`; shorter clips get a
            multiple of it, an image `num_frames` times as many.
        is_still: Whether each frame forms a pair with itself, as an image does, instead of with the next frame. A
            small model does not learn to separate two distant frames that share one patch.
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
        """Return the maximum of merged tokens per frame pair of a clip of `num_frames`."""
        return self.max_tokens * max(1, self.num_frames // num_frames)

    @classmethod
    def read(cls, folder: str | Path) -> FrameBudget:
        """Read the budget of a checkpoint; the published budget if it has none.

        Raises:
            ValueError: The file has other content.
        """
        file = Path(folder) / BUDGET_FILE
        if not file.is_file():
            return cls()
        fields: Any = json.loads(file.read_text(encoding="utf-8"))
        allowed = set(asdict(cls()))
        if not isinstance(fields, dict) or not set(fields) <= allowed:
            raise ValueError(f"{file} must be an object with some of the fields {sorted(allowed)}")
        return cls(**fields)

    def write(self, folder: str | Path) -> None:
        """Write the budget beside a checkpoint."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        (Path(folder) / BUDGET_FILE).write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class PatchSizes:
    """Sizes of the patches and merged tokens of Qwen2.5-VL's vision transformer.

    Attributes:
        patch: Side of a patch in pixels.
        merge: Patches merged into one token along each side.
    """

    patch: int = 14
    merge: int = 2

    @property
    def cell(self) -> int:
        """Side of a merged token in pixels."""
        return self.patch * self.merge


def fit_size(height: int, width: int, *, cell: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Compute the size to which a frame is resized: whole tokens, close to its aspect ratio.

    As in Qwen2-VL (arXiv:2409.12191): round each side; if the area is out of bounds, scale both sides and
    round down or up.

    Args:
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.
        cell: Side of a merged token in pixels.
        min_tokens: Minimum number of tokens.
        max_tokens: Maximum number of tokens.

    Returns:
        Height and width, multiples of `cell`.

    Raises:
        ValueError: One side is more than 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"one side of a frame may be up to {_MAX_ASPECT_RATIO} times the other, got {width} x {height} pixels"
        )
    rows, columns = round(height / cell), round(width / cell)
    if rows * columns > max_tokens:
        shrink = math.sqrt(height * width / (max_tokens * cell**2))
        rows, columns = (max(1, math.floor(side / shrink / cell)) for side in (height, width))
    elif rows * columns < min_tokens:
        grow = math.sqrt(min_tokens * cell**2 / (height * width))
        rows, columns = (math.ceil(side * grow / cell) for side in (height, width))
    return rows * cell, columns * cell


def resize_frame(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a frame (H, W, 3) to (height, width) with Pillow's bicubic filter, as in the published code."""
    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def to_patches(frames: Sequence[NDArray[np.uint8]], sizes: PatchSizes) -> tuple[Tensor, tuple[int, int, int]]:
    """Split resized frames into normalised patches in the order of Qwen2.5-VL.

    The last frame of an odd number is repeated. The patches of one merged token are adjacent.

    Args:
        frames: (H, W, 3) uint8 arrays whose sides are multiples of a merged token.
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
    # Scaled statistics instead of scaled pixels: bit-exact with the recorded figures of the published code.
    mean, std = (255 * torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (_CLIP_MEAN, _CLIP_STD))
    return (pixels.float() - mean) / std


def check_frames(frames: Sequence[Any]) -> tuple[int, int]:
    """Check that frames are RGB images of one size, and return it as (H, W).

    Raises:
        TypeError: A frame is not a uint8 array.
        ValueError: There is no frame, or a frame's shape is not (H, W, 3) or differs from the first's.
    """
    if len(frames) == 0:
        raise ValueError("no frame was given: a clip has at least one frame")
    for index, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
            raise TypeError(f"frame {index} must be a uint8 array (H, W, 3), got {kind}")
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"frame {index} must have the shape (H, W, 3), RGB, got {frame.shape}")
        if frame.shape != frames[0].shape:
            raise ValueError(f"frames must have one size: frame {index} is {frame.shape}, frame 0 {frames[0].shape}")
    return int(frames[0].shape[0]), int(frames[0].shape[1])
