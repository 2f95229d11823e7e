"""Clips whose pixels show the frame index, for tests of decoding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TIME_BASE = Fraction(1, 1000)


def numbered_frame(index: int, *, width: int = 64, height: int = 48) -> np.ndarray:
    """Return a grey frame whose brightness encodes its index, with a white upper left quarter."""
    image = np.full((height, width, 3), 10 + 8 * index, dtype=np.uint8)
    image[: height // 2, : width // 2] = 255
    return image


def write_numbered_clip(
    path: Path | Any,
    *,
    times_ms: list[int] | None = None,
    num_frames: int = 12,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    is_mirrored: bool = False,
    options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> list[int]:
    """Write a clip and return the presentation times of its frames in milliseconds."""
    times = times_ms if times_ms is not None else [100 * index for index in range(num_frames)]
    with av.open(path if not isinstance(path, Path) else str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.options = {"g": "5", **(options or {})} if codec == "libx264" else options or {}
        if rotation or is_mirrored:
            stream.set_display_rotation(rotation, hflip=is_mirrored)
        for index, milliseconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index, width=size[0], height=size[1]), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = milliseconds, TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return times
