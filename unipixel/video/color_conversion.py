"""Conversion of decoded frames to upright RGB pixels with increasing timestamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from unipixel.video.frame import UNTIMED_FPS, check_pixels, composite_on_black


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Size and orientation of the first decoded frame, which apply to the whole video.

    Prompts and masks refer to these pixels, so later frames of another resolution are scaled to it.

    Attributes:
        coded_width: Width as decoded.
        coded_height: Height as decoded.
        is_transposed: Whether rows and columns are exchanged, before mirroring.
        is_mirrored_x: Whether left and right are exchanged.
        is_mirrored_y: Whether top and bottom are exchanged.
    """

    coded_width: int
    coded_height: int
    is_transposed: bool = False
    is_mirrored_x: bool = False
    is_mirrored_y: bool = False

    @classmethod
    def of(cls, frame: Any) -> FrameGeometry:
        """Read the size and display matrix of a decoded frame; angles are rounded to multiples of 90 degrees."""
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls(frame.width, frame.height)
        a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
        # The displayed x is a * column + c * row, the displayed y is b * column + d * row.
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(frame.width, frame.height, True, c < 0, b < 0)
        return cls(frame.width, frame.height, False, a < 0, d < 0)

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height after transposition."""
        size = (self.coded_width, self.coded_height)
        return size[::-1] if self.is_transposed else size

    def upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Transpose and mirror an image (H, W, C) for display."""
        transposed = image.transpose(1, 0, 2) if self.is_transposed else image
        return transposed[:: -1 if self.is_mirrored_y else 1, :: -1 if self.is_mirrored_x else 1]


class FrameConverter:
    """Converts decoded frames to upright RGB arrays; each pass needs its own, because it has a scaler."""

    def __init__(self, geometry: FrameGeometry, *, max_pixels: int, name: str) -> None:
        self._geometry, self._max_pixels, self._name = geometry, max_pixels, name
        self._reformatter = VideoReformatter()
        check_pixels(geometry.coded_width, geometry.coded_height, max_pixels=max_pixels, name=name)

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Return a frame as uint8 (H, W, 3); alpha is composited on black.

        Raises:
            OSError: The frame is larger than allowed, or its pixel format cannot be converted.
        """
        check_pixels(frame.width, frame.height, max_pixels=self._max_pixels, name=self._name)
        has_alpha = any(component.is_alpha for component in frame.format.components)
        try:
            pixels: Any = self._reformatter.reformat(
                frame,
                width=self._geometry.coded_width,
                height=self._geometry.coded_height,
                format="rgba" if has_alpha else "rgb24",
                threads=1,
            ).to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise OSError(f"{self._name}: {frame.format.name} pixels cannot be converted") from error
        image = composite_on_black(pixels) if has_alpha else pixels
        return np.ascontiguousarray(self._geometry.upright(image))


class Clock:
    """Presentation times in seconds since the first frame, strictly increasing."""

    def __init__(self, stream: Any) -> None:
        self._time_base = stream.time_base
        rate = stream.average_rate or stream.guessed_rate
        self._gap = 1.0 / float(rate) if rate else 1.0 / UNTIMED_FPS
        self._origin: int | None = None
        self._last: float | None = None

    def seconds(self, pts: int | None) -> float:
        """Return the time of the next frame, given its presentation time in time-base units."""
        if pts is not None and self._origin is None:
            self._origin = pts
        now = None if pts is None or self._origin is None else float((pts - self._origin) * self._time_base)
        # Without a time, or with one that is not above the previous one, the mean frame rate is used.
        if self._last is not None and (now is None or now <= self._last):
            now = self._last + self._gap
        self._last = now or 0.0
        return self._last
