"""A bounded first-in, first-out queue before a number of slots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unipixel.demos.errors import BusyError

_POLL_SECONDS = 0.2


class WorkQueue:
    """Slots for expensive work and a bounded queue before them; first come, first served."""

    def __init__(self, *, num_slots: int, max_waiting: int) -> None:
        """Create a queue with all slots free.

        Args:
            num_slots: How many callers work at the same time.
            max_waiting: How many callers may wait.
        """
        self._num_slots, self._max_waiting = num_slots, max_waiting
        self._changed = threading.Condition()
        self._waiting: list[object] = []
        self._num_working = 0

    @property
    def num_waiting(self) -> int:
        """How many callers wait."""
        with self._changed:
            return len(self._waiting)

    @contextmanager
    def slot(
        self, *, on_position: Callable[[int], None] | None = None, should_stop: Callable[[], bool] | None = None
    ) -> Iterator[bool]:
        """Wait for a slot and occupy it for the block.

        Args:
            on_position: Called with the position in the queue, from 1, at first and whenever it changes.
            should_stop: Polled several times a second; True ends the waiting.

        Yields:
            Whether a slot was obtained; False after `should_stop` returned True.

        Raises:
            BusyError: The queue is full.
        """
        has_slot = self._wait(on_position, should_stop)
        try:
            yield has_slot
        finally:
            if has_slot:
                with self._changed:
                    self._num_working -= 1
                    self._changed.notify_all()

    def _wait(self, on_position: Callable[[int], None] | None, should_stop: Callable[[], bool] | None) -> bool:
        ticket, reported = object(), 0
        with self._changed:
            is_free = not self._waiting and self._num_working < self._num_slots
            if not is_free and len(self._waiting) >= self._max_waiting:
                raise BusyError(f"the server is busy and its queue of {len(self._waiting)} is full: try again later")
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._num_working >= self._num_slots:
                    position = self._waiting.index(ticket) + 1
                    if on_position is not None and position != reported:
                        on_position(position)
                        reported = position
                    if should_stop is not None and should_stop():
                        return False
                    self._changed.wait(_POLL_SECONDS)
                self._num_working += 1
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
