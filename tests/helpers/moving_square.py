"""A clip of a moving square, its frames, masks and files, small enough for tests of whole commands."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

NUM_FRAMES, HEIGHT, WIDTH, FPS = 6, 40, 56, 10


def clip_frame(index: int, *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """Return a frame (H, W, 3) uint8 of a bright square that moves right over a dark background."""
    width, height = size
    frame = np.full((height, width, 3), 30, dtype=np.uint8)
    left = 4 + 4 * (index % 8)
    frame[8:24, left : left + 16] = (200, 60, 40)
    return frame


def clip_frames() -> list[np.ndarray]:
    """Return the frames of the clip, (H, W, 3) uint8."""
    return [clip_frame(index) for index in range(NUM_FRAMES)]


def write_clip(
    path: Path, *, num_frames: int = NUM_FRAMES, size: tuple[int, int] = (WIDTH, HEIGHT), codec: str = "libx264"
) -> Path:
    """Write the moving square as a video; the suffix selects the container."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(clip_frame(index, size=size), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


def write_mask(path: Path, *, size: tuple[int, int] = (WIDTH, HEIGHT), is_empty: bool = False) -> Path:
    """Write a mask image with a rectangle, or an empty one."""
    width, height = size
    values = np.zeros((height, width), dtype=np.uint8)
    values[height // 4 : height // 2, width // 4 : width // 2] = 0 if is_empty else 255
    Image.fromarray(values).save(path)
    return path


def probe_video(path: Path) -> tuple[int, tuple[int, int]]:
    """Return the number and the size (width, height) of the frames of a video."""
    with av.open(str(path)) as container:
        frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    return len(frames), frames[0]


def write_audio(path: Path) -> Path:
    """Write a container with an audio stream and no video stream."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 8000, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path
