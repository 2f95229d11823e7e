"""What a video is made of: frames, the facts about the whole, and where frames come from.

Shapes: images are uint8 arrays (H, W, 3), RGB, as a viewer sees them: rotation applied, alpha
composited on black. Pixels are taken as square.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 89_478_485
"""Default ceiling on width times height; the size at which Pillow starts to suspect a bomb."""

UNTIMED_FPS = 24.0
"""Rate given to folders and arrays, which carry none; that of the DAVIS sequences."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video.

    Attributes:
        index: Position in presentation order, from 0.
        timestamp_seconds: When it is shown, counted from the start of the video stream.
        image: uint8 array (H, W, 3), RGB.
    """

    index: int
    timestamp_seconds: float
    image: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video before its frames are read.

    Attributes:
        path: Path or address as given; passwords in an address are left out.
        width: Pixels across, as shown (after rotation).
        height: Pixels down, as shown.
        num_frames: How many frames can be read, exactly; None for a stream.
        fps: Mean number of frames per second; None where nothing tells.
        duration_seconds: From the first frame's start to the last one's end; None for a stream.
        is_image: Whether the source is a single still image.
    """

    path: str
    width: int
    height: int
    num_frames: int | None
    fps: float | None
    duration_seconds: float | None
    is_image: bool = False


class FrameSource(abc.ABC):
    """Something that yields frames; each kind of medium is one subclass.

    Attributes:
        info: The facts about the whole; replaced when a pass shows that damage makes it shorter.
        is_repeatable: Whether `frames` can be called again, and `read` at all.
    """

    info: VideoInfo
    is_repeatable: bool = True

    @abc.abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield every frame in order, one in memory at a time."""

    @abc.abstractmethod
    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the frames at checked indices, in the order asked for."""

    def close(self) -> None:  # noqa: B027 - a choice: most sources hold nothing open between passes
        """Give back what the source holds open; nothing by default."""


def read_in_order(frames: Iterator[Frame], indices: Sequence[int], *, name: str) -> list[Frame]:
    """Pick frames by walking through a source from its beginning.

    Args:
        frames: A source's frames, from index 0.
        indices: Wanted indices, in any order, repeats allowed.
        name: What to call the source in an error.

    Raises:
        OSError: The source ended before the last wanted frame.
    """
    wanted = set(indices)
    found: dict[int, Frame] = {}
    for frame in frames:
        if frame.index in wanted:
            found[frame.index] = frame
            if len(found) == len(wanted):
                break
    if missing := sorted(wanted - found.keys()):
        raise OSError(f"{name}: frame {missing[0]} cannot be decoded; the file is damaged before it")
    return [found[index] for index in indices]


def as_rgb(pixels: NDArray[np.generic], *, name: str) -> NDArray[np.uint8]:
    """Bring an array of pixels to uint8 (H, W, 3), RGB.

    Args:
        pixels: uint8 array (H, W) grey, (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGB and alpha,
            the last composited on black.
        name: What to call the array in an error.

    Raises:
        TypeError: The pixels are not uint8.
        ValueError: The shape is none of those above.
    """
    if pixels.dtype != np.uint8:
        raise TypeError(f"{name} must hold uint8 pixels, not {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ValueError(f"{name} must have shape (H, W), (H, W, 3) or (H, W, 4), not {pixels.shape}")
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2).astype(np.uint8, copy=False)
    if pixels.shape[2] == 4:
        return composite_on_black(pixels.astype(np.uint8, copy=False))
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def composite_on_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show straight-alpha pixels (H, W, 4) before black: what hides behind alpha 0 must not show."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    return ((rgba[:, :, :3] * alpha + 127) // 255).astype(np.uint8)


def warn_damaged(name: str, num_frames: int, reason: object) -> None:
    """Warn that a source ends early; one place, so that Python shows each message once."""
    warnings.warn(
        f"{name}: damaged after {num_frames} frame(s), the rest is left out ({reason})",
        RuntimeWarning,
        stacklevel=2,
    )


def check_pixels(width: int, height: int, *, max_pixels: int, name: str) -> None:
    """Refuse pictures too large to decode.

    Raises:
        OSError: Width times height is above `max_pixels`, or nothing.
    """
    if width < 1 or height < 1:
        raise OSError(f"{name}: the picture has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise OSError(f"{name}: {width}x{height} pixels are more than the allowed {max_pixels}")
