"""A bounded number of frames, spread over all frames of a stream."""

from __future__ import annotations

from unipixel.video.frame import Frame

# Intervals of a stream with a constant rate differ by rounding; they still count as one spacing.
_TOLERANCE = 0.95
_MIN_SPACING_SECONDS = 1e-3


class FrameBuffer:
    """At most `capacity` frames of a stream: its latest, its first, and others between them, spread in time.

    A frame that is no longer the latest is stored if its distance from the previously stored one is at least
    the spacing, and dropped otherwise. The spacing starts as the frame interval of the stream. When there are
    too many frames, the earliest one is dropped whose neighbours are at most two spacings apart; if there is
    none, the spacing doubles. Distances therefore stay between one and two spacings for a stream of any
    length. Dropped frames cannot be restored.
    """

    def __init__(self, capacity: int) -> None:
        """Create an empty buffer.

        Args:
            capacity: Maximum number of frames; 1 stores the latest frame only.

        Raises:
            ValueError: It is below 1.
        """
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self._capacity = capacity
        self._earlier: list[Frame] = []
        self._latest: Frame | None = None
        self._spacing = 0.0

    @property
    def latest(self) -> Frame | None:
        """The latest frame; None before the first."""
        return self._latest

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The stored frames in order; the last one is the latest."""
        return (*self._earlier, self._latest) if self._latest else ()

    @property
    def indices(self) -> tuple[int, ...]:
        """The index of each stored frame."""
        return tuple(frame.index for frame in self.frames)

    def add(self, frame: Frame) -> None:
        """Add the next frame, and drop one if there are too many.

        Raises:
            ValueError: Its index is not above that of the latest frame.
        """
        previous = self._latest
        if previous is not None:
            if frame.index <= previous.index:
                raise ValueError(f"frame {frame.index} came after frame {previous.index}: indices must increase")
            self._store(previous)
        self._latest = frame

    def _store(self, frame: Frame) -> None:
        """Store a frame that is no longer the latest, if it is far enough from the previously stored one."""
        max_earlier = self._capacity - 1
        if max_earlier == 0:
            return
        if self._earlier:
            gap = frame.timestamp_seconds - self._earlier[-1].timestamp_seconds
            self._spacing = self._spacing or max(gap, _MIN_SPACING_SECONDS)
            if gap < self._spacing * _TOLERANCE:
                return
        self._earlier.append(frame)
        if len(self._earlier) > max_earlier:
            del self._earlier[self._redundant_position()]

    def _redundant_position(self) -> int:
        """Return the earliest position that can be dropped without a gap of more than two spacings."""
        times = [frame.timestamp_seconds for frame in self._earlier]
        while True:
            for position in range(1, len(times) - 1):
                if times[position + 1] - times[position - 1] <= 2 * self._spacing / _TOLERANCE:
                    return position
            self._spacing *= 2
            if times[-1] - times[-2] < self._spacing * _TOLERANCE:
                return len(times) - 1
