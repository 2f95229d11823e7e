"""Receives tracked frames: copies them to the snapshot, appends them to a journal, and emits events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from unipixel.demos.errors import StorageError
from unipixel.demos.sessions.events import Event, FrameMasked
from unipixel.demos.sessions.loaded_session import LoadedSession
from unipixel.demos.storage.mask_journal import MaskJournal
from unipixel.session.video_tracker import TrackedVideoFrame

_NUM_RECENT_FRAMES = 4
# The rate of the latest frames tells how long the rest takes.
_NUM_TIMES = 20


class FrameSink:
    """Called with each tracked frame, after its masks were stored in the object memory."""

    def __init__(
        self,
        loaded: LoadedSession,
        notify: Callable[[Event], None],
        *,
        num_frames: int,
        journal: MaskJournal | None = None,
    ) -> None:
        """Create a sink for one piece of work.

        Args:
            loaded: The session.
            notify: Receives the events.
            num_frames: Number of frames of one pass.
            journal: Where masks are appended before they are acknowledged; None if they are saved at the end.
        """
        self._loaded, self._notify, self._num_frames, self._journal = loaded, notify, num_frames, journal
        self._done: set[int] = set()
        self._times: deque[float] = deque([time.monotonic()], maxlen=_NUM_TIMES + 1)

    def __call__(self, tracked: TrackedVideoFrame) -> None:
        """Process one frame.

        Raises:
            StorageError: The journal cannot be written.
        """
        loaded, index = self._loaded, tracked.frame.index
        if index in self._done and len(self._done) >= self._num_frames:
            self._done.clear()  # another pass, for other objects
        self._done.add(index)
        self._times.append(time.monotonic())
        loaded.snapshot.update_frame(loaded.session.objects, index)
        loaded.recent_frames = (*loaded.recent_frames[1 - _NUM_RECENT_FRAMES :], tracked.frame)
        loaded.revision += 1
        known = loaded.snapshot.records_at(index)
        masks = {key: known[key] for key in sorted(tracked.objects) if key in known}
        if self._journal is not None:
            try:
                self._journal.append(index, masks)
            except OSError as error:
                raise StorageError from error
        seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        num_left = max(0, self._num_frames - len(self._done))
        counts = {key: mask.counts for key, mask in masks.items()}
        self._notify(FrameMasked(index, tuple(masks), len(self._done), self._num_frames, num_left * seconds, counts))
