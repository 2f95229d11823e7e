"""A bounded number of frames, spread over all that a stream has shown."""

from __future__ import annotations

from unipixel.video.frame import Frame

# Times of a steady stream differ by rounding; they still count as one spacing apart.
_STEADINESS = 0.95
_LEAST_SPACING = 1e-3


class FrameBuffer:
    """At most `capacity` frames of a stream: its newest, its first, and others between them, spread in time.

    A frame that stops being the newest is kept if it is one spacing away from the one kept before it,
    else it leaves. The spacing is at first that of the stream. When one too many is kept, the earliest
    leaves whose neighbours are two spacings apart, and when there is none, the spacing doubles. So
    distances lie between one and two spacings, however long the stream is, and the number of frames
    stays at `capacity`. What left does not come back.
    """

    def __init__(self, capacity: int) -> None:
        """Start empty.

        Args:
            capacity: Frames that are kept at most; one keeps the newest alone.

        Raises:
            ValueError: It is below 1.
        """
        if capacity < 1:
            raise ValueError(f"at least 1 frame must be kept, got {capacity}")
        self._capacity = capacity
        self._spread: list[Frame] = []
        self._newest: Frame | None = None
        self._spacing = 0.0

    @property
    def newest(self) -> Frame | None:
        """The newest frame; None before the first."""
        return self._newest

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The kept frames in order; the last is the newest."""
        return (*self._spread, self._newest) if self._newest else ()

    @property
    def indices(self) -> tuple[int, ...]:
        """The index of each kept frame."""
        return tuple(frame.index for frame in self.frames)

    def add(self, frame: Frame) -> None:
        """Take in the next frame, and let one go where they are too many.

        Raises:
            ValueError: Its index does not follow the one before.
        """
        before = self._newest
        if before is not None:
            if frame.index <= before.index:
                raise ValueError(f"frame {frame.index} came after frame {before.index}: indices must rise in a stream")
            self._keep(before)
        self._newest = frame

    def _keep(self, frame: Frame) -> None:
        """Keep a frame that is no longer the newest, if it is far enough from the one kept before it."""
        room = self._capacity - 1
        if room == 0:
            return
        if self._spread:
            gap = frame.timestamp_seconds - self._spread[-1].timestamp_seconds
            self._spacing = self._spacing or max(gap, _LEAST_SPACING)
            if gap < self._spacing * _STEADINESS:
                return
        self._spread.append(frame)
        if len(self._spread) > room:
            del self._spread[self._redundant()]

    def _redundant(self) -> int:
        """Position of the earliest frame that may leave without a gap of more than twice the spacing."""
        times = [frame.timestamp_seconds for frame in self._spread]
        while True:
            for place in range(1, len(times) - 1):
                if times[place + 1] - times[place - 1] <= 2 * self._spacing / _STEADINESS:
                    return place
            # No pair is left at this spacing: the next ones are twice as far apart.
            self._spacing *= 2
            if times[-1] - times[-2] < self._spacing * _STEADINESS:
                return len(times) - 1
