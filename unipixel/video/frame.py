"""Frames, properties of a video, and the interface of frame sources.

Images are uint8 arrays (H, W, 3), RGB, as displayed: rotated and with alpha composited on black. Pixels are
assumed to be square.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 89_478_485
"""Default maximum of width times height; above it Pillow warns of a decompression bomb."""

UNTIMED_FPS = 24.0
"""Frame rate of folders and arrays, which have no timestamps; that of the DAVIS sequences."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: Position in presentation order, from 0.
        timestamp_seconds: Presentation time, from the start of the video stream.
        image: uint8 array (H, W, 3), RGB.
    """

    index: int
    timestamp_seconds: float
    image: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        path: Path or address, without passwords.
        width: Width in pixels, as displayed (after rotation).
        height: Height in pixels, as displayed.
        num_frames: Exact number of readable frames; None for a stream.
        fps: Mean frame rate; None if unknown.
        duration_seconds: From the start of the first frame to the end of the last; None for a stream.
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
    """A source of frames; each kind of medium is a subclass.

    Attributes:
        info: Properties of the video; updated when a pass finds that damage makes it shorter.
        is_repeatable: Whether `frames` can be called several times, and `read` is supported.
    """

    info: VideoInfo
    is_repeatable: bool = True

    @abc.abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield every frame in order, one in memory at a time."""

    @abc.abstractmethod
    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the frames at checked indices, in the order asked for."""

    def timestamps(self) -> list[float]:
        """Return the presentation times of all frames in seconds, without decoding them.

        Sources without timestamps have a constant frame rate.
        """
        fps = self.info.fps or UNTIMED_FPS
        return [index / fps for index in range(self.info.num_frames or 0)]

    def close(self) -> None:  # noqa: B027 - optional: most sources keep nothing open
        """Release open files, devices and connections; nothing by default."""


def read_in_order(frames: Iterator[Frame], indices: Sequence[int], *, name: str) -> list[Frame]:
    """Return frames by index, reading a source from its start.

    Args:
        frames: A source's frames, from index 0.
        indices: Wanted indices, in any order, repeats allowed.
        name: Name of the source for error messages.

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
    """Convert an array of pixels to uint8 (H, W, 3), RGB.

    Args:
        pixels: uint8 array (H, W) grey, (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGB and alpha,
            which is composited on black.
        name: Name of the array for error messages.

    Raises:
        TypeError: The pixels are not uint8.
        ValueError: The array has another shape.
    """
    if pixels.dtype != np.uint8:
        is_unit = np.issubdtype(pixels.dtype, np.floating) and bool((pixels <= 1.0).all())  # type: ignore[operator]
        values, frames = ("0..1", "(frames * 255)") if is_unit else ("0..255", "frames")
        raise TypeError(
            f"{name} must hold uint8 pixels, not {pixels.dtype}: convert values of {values} with "
            f"{frames}.astype(np.uint8), or {frames}.to(torch.uint8) of a tensor"
        )
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
    """Composite pixels (H, W, 4) with straight alpha on black, so that pixels with alpha 0 are not visible."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    return ((rgba[:, :, :3] * alpha + 127) // 255).astype(np.uint8)


def warn_damaged(name: str, num_frames: int, reason: object) -> None:
    """Warn that a source ends early; called for all sources, so that Python shows each message once."""
    warnings.warn(
        f"{name}: damaged after {num_frames} frame(s), the rest is skipped ({reason})",
        RuntimeWarning,
        stacklevel=2,
    )


def check_pixels(width: int, height: int, *, max_pixels: int, name: str) -> None:
    """Check the size of an image.

    Raises:
        OSError: Width times height is above `max_pixels`, or zero.
    """
    if width < 1 or height < 1:
        raise OSError(f"{name}: the image has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise OSError(f"{name}: {width}x{height} pixels are more than the allowed {max_pixels}")
