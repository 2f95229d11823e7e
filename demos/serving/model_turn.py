"""The use of the model by one request, between the uses by others."""

from __future__ import annotations

import threading
import time

from unipixel.demos.sessions.work_queue import WorkSlot

# Sessions that are in memory at the same time, because other clients were let in between.
_MAX_SESSIONS = 4


class ModelTurn:
    """The use of the model by one request, within its time limit.

    After some seconds other clients are let in between two steps, while the sessions in memory are few.
    """

    def __init__(self, slot: WorkSlot, stopped: threading.Event, sessions: set[ModelTurn], max_seconds: float) -> None:
        """Begin the use.

        Args:
            slot: The slot of the model.
            stopped: Set when the client has disconnected.
            sessions: The uses that have begun; this one is added.
            max_seconds: Time limit.
        """
        self._slot, self._stopped, self._sessions, self._max_seconds = slot, stopped, sessions, max_seconds
        self._start, self._waited_seconds = time.monotonic(), 0.0
        sessions.add(self)

    def should_stop(self) -> bool:
        """Return whether the work should end; called between two tokens or frames."""
        if len(self._sessions) < _MAX_SESSIONS:
            start = time.monotonic()
            self._slot.share(should_stop=self._stopped.is_set)
            self._waited_seconds += time.monotonic() - start
        return not self._slot or self._stopped.is_set() or self._work_seconds() > self._max_seconds

    def end(self) -> float:
        """End the use; return its seconds."""
        self._sessions.discard(self)
        return self._work_seconds()

    def _work_seconds(self) -> float:
        return time.monotonic() - self._start - self._waited_seconds
