"""Synthetic video for benchmarks: discs that circle over a noisy backbackground, in a seamless loop."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


class MovingDiscs:
    """A loop of precomputed frames.

    Attributes:
        frames: (T, H, W, 3) uint8.
        masks: (T, O, H, W) bool, masks of the discs.
    """

    def __init__(self, num_objects: int, *, width: int, height: int, num_frames: int = 60, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        background = np.stack([x / width, y / height, 1 - x / width], axis=-1) * 120 + 40
        self._middles = rng.uniform(0.3, 0.7, (num_objects, 2)) * (width, height)
        self._radius, self._orbit = 0.12 * height, 0.15 * height
        colours = rng.uniform(0, 255, (num_objects, 3))
        self.frames = np.empty((num_frames, height, width, 3), np.uint8)
        self.masks = np.empty((num_frames, num_objects, height, width), bool)
        for index in range(num_frames):
            image = background + rng.normal(0, 3, (height, width, 1)).astype(np.float32)
            for row, (left, top) in enumerate(self.centres(index)):
                self.masks[index, row] = (x - left) ** 2 + (y - top) ** 2 < self._radius**2
                image[self.masks[index, row]] = colours[row]
            self.frames[index] = np.clip(image, 0, 255)

    def centres(self, index: int) -> NDArray[np.float64]:
        """Return x, y of every disc on a frame, (O, 2)."""
        angle = 2 * np.pi * index / len(self.frames)
        return self._middles + self._orbit * np.array([np.cos(angle), np.sin(angle)])

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return a frame of the endless loop."""
        return self.frames[index % len(self.frames)]

    def write(self, path: Path, *, num_frames: int, fps: int) -> None:
        """Write the first `num_frames` frames as an H.264 file."""
        height, width = self.frames.shape[1:3]
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "21"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for index in range(num_frames):
                frame = av.VideoFrame.from_ndarray(self.frame(index), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
