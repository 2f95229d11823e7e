"""Normalises frames for SAM 2.1 and encodes clips one frame at a time.

Shape letters: H/W size of the video, S side of the square SAM input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unipixel.tracking.precision import upload
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import FrameFeatures

# Mean and standard deviation of ImageNet colours, as in sam2/utils/misc.py.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

FramePixels = NDArray[np.uint8] | Tensor | Image.Image
"""A raw frame uint8 (H, W, 3), RGB, a normalised frame float (3, S, S), or a PIL image."""


class FrameSequence(Protocol):
    """Frames of known number, read by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame_index: int, /) -> FramePixels: ...


def normalise_frame(frame: FramePixels, *, image_size: int, device: torch.device | str | None = None) -> Tensor:
    """Resize a raw frame with antialiasing to SAM's square input and normalise its colours.

    Args:
        frame: uint8 (H, W, 3), RGB.
        image_size: Side S of the square.
        device: Device of the computation; by default that of the frame.

    Returns:
        (3, S, S) float32.

    Raises:
        TypeError: The frame is not uint8.
        ValueError: The frame is not (H, W, 3).
    """
    if not isinstance(frame, Tensor | np.ndarray):
        raise TypeError(f"a frame is a uint8 array (H, W, 3), got {type(frame).__name__}: give its pixels as an array")
    if frame.dtype not in (torch.uint8, np.uint8):
        raise TypeError(
            f"a raw frame must be uint8, got {frame.dtype}: convert values of 0..1 with (frame * 255).astype(np.uint8)"
        )
    # torch cannot wrap read-only arrays and negative strides; such arrays are copied.
    pixels = frame if isinstance(frame, Tensor) else torch.from_numpy(np.require(frame, requirements=["C", "W"]))
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"a raw frame must be (H, W, 3) RGB, got {tuple(pixels.shape)}")
    values = upload(pixels, device=torch.device(device or pixels.device)).permute(2, 0, 1)[None].float().div_(255)
    return normalise_colours(F.interpolate(values, size=(image_size, image_size), mode="bilinear", antialias=True)[0])


def normalise_colours(frames: Tensor) -> Tensor:
    """Normalise the colours of frames (..., 3, H, W) in [0, 1]."""
    mean, std = _colour_statistics(frames.device)
    return (frames - mean) / std


@functools.lru_cache(maxsize=8)
def _colour_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation (3, 1, 1) of the colours."""
    # Cached for later calls that may need gradients, so they must not be inference tensors.
    with torch.inference_mode(False):
        mean, std = torch.tensor(_MEAN, device=device), torch.tensor(_STD, device=device)
        return mean[:, None, None], std[:, None, None]


def encode_frame(segmenter: Segmenter, frame: FramePixels) -> tuple[FrameFeatures, tuple[int, int]]:
    """Encode one frame.

    Args:
        segmenter: SAM 2.1.
        frame: Raw or normalised.

    Returns:
        The features, N = 1, and the size (H, W) of the frame; that of a normalised frame is (S, S).

    Raises:
        TypeError: The frame is neither uint8 nor floating-point.
        ValueError: The frame has another shape.
    """
    device = segmenter.no_mem_embed.device
    if isinstance(frame, Image.Image):
        frame = np.asarray(frame.convert("RGB"))
    if isinstance(frame, Tensor) and frame.is_floating_point():
        side = segmenter.config.image_size
        if tuple(frame.shape) != (3, side, side):
            raise ValueError(f"a normalised frame must be (3, {side}, {side}), got {tuple(frame.shape)}")
        square, size = frame.to(device), (side, side)
    else:
        square = normalise_frame(frame, image_size=segmenter.config.image_size, device=device)
        size = (int(frame.shape[0]), int(frame.shape[1]))
    return segmenter.encode(square[None]), size


class EncodedClip:
    """A finite clip whose frames are read and encoded on access, with a cache of the newest features.

    Attributes:
        num_encoded: Number of runs of the image encoder.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        frames: FrameSequence | Callable[[int], FramePixels],
        *,
        num_frames: int | None = None,
        size: tuple[int, int] | None = None,
        max_cache_bytes: int = 0,
    ) -> None:
        """Wrap a source of frames.

        Args:
            segmenter: SAM 2.1.
            frames: A sequence of frames, or a function of the frame index.
            num_frames: Length of the clip; required for a function.
            size: (H, W) of the video; by default that of the first frame read.
            max_cache_bytes: Size of the cache of frame features; the features of the last frame encoded are always
                cached.

        Raises:
            ValueError: The length is unknown or not positive.
        """
        length = num_frames if callable(frames) else len(frames)
        if length is None:
            raise ValueError("a clip given as a function of the frame index needs num_frames")
        if length < 1:
            raise ValueError(f"a clip needs at least one frame, got {length}")
        self._segmenter = segmenter
        self._read: Callable[[int], FramePixels] = frames if callable(frames) else frames.__getitem__
        self._num_frames = length
        self._size = size
        self._cache: dict[int, FrameFeatures] = {}
        self._max_cache_bytes = max_cache_bytes
        self.num_encoded = 0

    def __len__(self) -> int:
        return self._num_frames

    @property
    def num_cache_bytes(self) -> int:
        """Size of the cached features in bytes."""
        return sum(features.num_bytes for features in self._cache.values())

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the video; reads the first frame if none has been read."""
        if self._size is None:
            self[0]
        return self._size or (0, 0)

    def __getitem__(self, frame_index: int) -> FrameFeatures:
        """Return the features of a frame, N = 1.

        Raises:
            IndexError: The frame is not in the clip.
        """
        self.check_index(frame_index)
        if frame_index not in self._cache:
            features, size = encode_frame(self._segmenter, self._read(frame_index))
            self._size = self._size or size
            self.num_encoded += 1
            self._cache[frame_index] = features
            # All frames have features of the same size.
            if len(self._cache) > max(1, self._max_cache_bytes // features.num_bytes):
                del self._cache[next(iter(self._cache))]
        return self._cache[frame_index]

    def is_encoded(self, frame_index: int) -> bool:
        """Return whether the features of a frame are cached."""
        return frame_index in self._cache

    def check_index(self, frame_index: int) -> None:
        """Check that a frame is in the clip.

        Raises:
            IndexError: It is not.
        """
        if not 0 <= frame_index < self._num_frames:
            raise IndexError(f"frame {frame_index} is outside the clip: allowed are 0 to {self._num_frames - 1}")


class FrameSelection:
    """Some frames of a clip as a clip of their own, in which they are numbered from 0; features are shared.

    Attributes:
        frame_indices: Ascending indices of the frames in the whole clip.
    """

    def __init__(self, clip: EncodedClip, frame_indices: Sequence[int]) -> None:
        """Select frames.

        Raises:
            IndexError: A frame is not in the clip.
            ValueError: There are no frames, or they are not ascending.
        """
        self.frame_indices = tuple(frame_indices)
        if not self.frame_indices or list(self.frame_indices) != sorted(set(self.frame_indices)):
            raise ValueError(f"give at least one frame, in ascending order, got {list(frame_indices)[:8]}")
        for frame_index in self.frame_indices:
            clip.check_index(frame_index)
        self._clip = clip

    def __len__(self) -> int:
        return len(self.frame_indices)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the video."""
        return self._clip.size

    def __getitem__(self, position: int) -> FrameFeatures:
        """Return the features of a selected frame, N = 1.

        Raises:
            IndexError: There is no such position.
        """
        self.check_index(position)
        return self._clip[self.frame_indices[position]]

    def check_index(self, position: int) -> None:
        """Check that a position is in the selection.

        Raises:
            IndexError: It is not.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} is outside the selection: allowed are 0 to {len(self) - 1}")
