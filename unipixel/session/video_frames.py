"""Frames of a finite video by index, for tracking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unipixel.video.frame import Frame
from unipixel.video.open import Video

# Frames that are decoded together when a clip is read backwards, since decoding runs forwards only.
_BACKWARD_BLOCK = 16
# With at most this many frames to skip, a pass is faster than decoding from the keyframe before each frame.
_MAX_SKIPPED = 256


class VideoFrames:
    """Frames of a finite video by index, decoded sequentially where they are read in order."""

    def __init__(self, video: Video) -> None:
        """Wrap a video.

        Raises:
            ValueError: It is a stream, whose length is unknown.
        """
        if video.is_stream or not video.info.num_frames:
            raise ValueError(f"{video.info.path} is a stream: use a live session, a clip must be finite")
        self._video = video
        self._iterator: Iterator[Frame] | None = None
        self._next_index = 0
        self._last_index = -1
        self._cache: dict[int, Frame] = {}

    def __len__(self) -> int:
        return int(self._video.info.num_frames or 0)

    def __getitem__(self, frame_index: int) -> NDArray[np.uint8]:
        return self.frame(frame_index).image

    def frame(self, frame_index: int) -> Frame:
        """Return a frame with its time; the frames that were decoded last are cached.

        Raises:
            OSError: The video is damaged before this frame.
        """
        if frame_index not in self._cache:
            last, self._last_index = self._last_index, frame_index
            if frame_index < last <= frame_index + _BACKWARD_BLOCK:
                self._cache = self._read_block(range(max(0, frame_index + 1 - _BACKWARD_BLOCK), frame_index + 1))
            elif self._is_within_reach(frame_index, last):
                self._cache = {frame_index: self._read_next(frame_index)}
            elif frame_index == last + 1:
                end = min(frame_index + _BACKWARD_BLOCK, len(self))
                self._cache = self._read_block(range(frame_index, end))
            else:
                self._cache = self._read_block([frame_index])
        self._last_index = frame_index
        return self._cache[frame_index]

    def _is_within_reach(self, frame_index: int, last: int) -> bool:
        """Return whether a pass in order, which has begun or begins now, soon arrives at a frame."""
        if not last < frame_index <= last + _BACKWARD_BLOCK:
            return False
        position = self._next_index if self._iterator is not None and self._next_index <= frame_index else 0
        return frame_index - position <= _MAX_SKIPPED

    def _read_block(self, indices: range | list[int]) -> dict[int, Frame]:
        return {frame.index: frame for frame in self._video.read(indices)}

    def _read_next(self, frame_index: int) -> Frame:
        """Read the next frame of a pass; a pass that is already beyond it is started again."""
        if self._iterator is None or self._next_index > frame_index:
            self._iterator, self._next_index = iter(self._video), 0
        for frame in self._iterator:
            self._next_index = frame.index + 1
            if frame.index == frame_index:
                return frame
        raise OSError(f"{self._video.info.path} ends before frame {frame_index}: the file is damaged there")
