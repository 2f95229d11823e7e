"""Frames as SAM 2.1 takes them, and clips that are encoded one frame at a time.

Shape letters: H/W size of the video, S side of the square SAM input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import FrameFeatures

# Mean and deviation of ImageNet's colours, for which SAM 2 was trained (sam2/utils/misc.py).
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Frame = NDArray[np.uint8] | Tensor
"""A raw frame uint8 (H, W, 3), RGB, or a normalised one float (3, S, S)."""


class FrameSequence(Protocol):
    """Frames with a length, read by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame_index: int, /) -> Frame: ...


def normalise_frame(frame: Frame, *, image_size: int, device: torch.device | str | None = None) -> Tensor:
    """Turn a raw frame into SAM input: 0..1, resized with antialiasing to a square, ImageNet colours.

    Args:
        frame: uint8 (H, W, 3), RGB.
        image_size: Side S of the square.
        device: Where to compute; by default where the frame is.

    Returns:
        (3, S, S) float32.

    Raises:
        TypeError: The frame does not hold uint8.
        ValueError: The frame is not (H, W, 3).
    """
    # A copy where the memory is read-only or runs backwards, which torch cannot wrap.
    pixels = frame if isinstance(frame, Tensor) else torch.from_numpy(np.require(frame, requirements=["C", "W"]))
    if pixels.dtype != torch.uint8:
        raise TypeError(f"a raw frame must hold uint8 values 0..255, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"a raw frame must be (H, W, 3) RGB, got {tuple(pixels.shape)}")
    values = pixels.to(device).permute(2, 0, 1)[None].float() / 255
    square = F.interpolate(values, size=(image_size, image_size), mode="bilinear", antialias=True)[0]
    mean, deviation = square.new_tensor(_MEAN), square.new_tensor(_DEVIATION)
    return (square - mean[:, None, None]) / deviation[:, None, None]


def encode_frame(segmenter: Segmenter, frame: Frame) -> tuple[FrameFeatures, tuple[int, int]]:
    """Encode one frame.

    Args:
        segmenter: SAM 2.1.
        frame: Raw or normalised.

    Returns:
        Its features, N = 1, and its size (H, W); that of a normalised frame is (S, S).

    Raises:
        TypeError: The frame holds neither uint8 nor floating-point values.
        ValueError: The frame has another shape.
    """
    device = segmenter.no_mem_embed.device
    if isinstance(frame, Tensor) and frame.is_floating_point():
        square, size = frame.to(device), (int(frame.shape[-2]), int(frame.shape[-1]))
    else:
        square = normalise_frame(frame, image_size=segmenter.config.image_size, device=device)
        size = (int(frame.shape[0]), int(frame.shape[1]))
    return segmenter.encode(square[None]), size


class EncodedClip:
    """A finite clip whose frames are read and encoded when they are asked for; the last ones are kept.

    Attributes:
        num_encoded: How often the image encoder ran.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        frames: FrameSequence | Callable[[int], Frame],
        *,
        num_frames: int | None = None,
        size: tuple[int, int] | None = None,
        max_cache_bytes: int = 0,
    ) -> None:
        """Wrap a source of frames.

        Args:
            segmenter: SAM 2.1.
            frames: Something with a length that is indexed by frame, or a function of the frame index.
            num_frames: Length of the clip; needed for a function.
            size: (H, W) of the video; by default that of the first frame that is read.
            max_cache_bytes: Memory for the features of frames that were encoded, the newest of them; the
                last one is always kept.

        Raises:
            ValueError: The length is unknown or not positive.
        """
        length = num_frames if callable(frames) else len(frames)
        if length is None:
            raise ValueError("a clip given as a function of the frame index needs num_frames")
        if length < 1:
            raise ValueError(f"a clip needs at least one frame, got {length}")
        self._segmenter = segmenter
        self._read: Callable[[int], Frame] = frames if callable(frames) else frames.__getitem__
        self._num_frames = length
        self._size = size
        self._kept: dict[int, FrameFeatures] = {}
        self._max_kept_bytes = max_cache_bytes
        self.num_encoded = 0

    def __len__(self) -> int:
        return self._num_frames

    @property
    def num_cache_bytes(self) -> int:
        """Memory that the features of kept frames take."""
        return sum(features.num_bytes for features in self._kept.values())

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the video; reads the first frame where none was read yet."""
        if self._size is None:
            self[0]
        return self._size or (0, 0)

    def __getitem__(self, frame_index: int) -> FrameFeatures:
        """Return the features of a frame, N = 1.

        Raises:
            IndexError: The frame is not in the clip.
        """
        self.check_index(frame_index)
        if frame_index not in self._kept:
            features, size = encode_frame(self._segmenter, self._read(frame_index))
            self._size = self._size or size
            self.num_encoded += 1
            self._kept[frame_index] = features
            # All frames take the same memory, so counting them is enough.
            if len(self._kept) > max(1, self._max_kept_bytes // features.num_bytes):
                del self._kept[next(iter(self._kept))]
        return self._kept[frame_index]

    def check_index(self, frame_index: int) -> None:
        """Check that a frame is in the clip.

        Raises:
            IndexError: It is not.
        """
        if not 0 <= frame_index < self._num_frames:
            raise IndexError(f"frame {frame_index} is outside the clip: allowed are 0 to {self._num_frames - 1}")
