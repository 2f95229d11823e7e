"""Who works when: a few at once, the others in a line, where each knows his place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unipixel.demos.sessions.errors import BusyError

_LOOK_SECONDS = 0.2


class WorkQueue:
    """Slots for work that is heavy, and a bounded line before them; first come, first served."""

    def __init__(self, *, num_slots: int, max_waiting: int) -> None:
        """Open with all slots free.

        Args:
            num_slots: How many work at once.
            max_waiting: How many may stand in line.
        """
        self._num_slots, self._max_waiting = num_slots, max_waiting
        self._changed = threading.Condition()
        self._line: list[object] = []
        self._num_working = 0

    @property
    def num_waiting(self) -> int:
        """How many stand in line."""
        with self._changed:
            return len(self._line)

    @contextmanager
    def slot(
        self, *, on_place: Callable[[int], None] | None = None, should_stop: Callable[[], bool] | None = None
    ) -> Iterator[bool]:
        """Wait for a slot and hold it for the block; yields whether there is one, False where waiting was stopped.

        Args:
            on_place: Told the place in line, 1 is next, at first and whenever it changes.
            should_stop: Asked several times a second; True leaves the line.

        Raises:
            BusyError: The line is full.
        """
        has_slot = self._wait(on_place, should_stop)
        try:
            yield has_slot
        finally:
            if has_slot:
                with self._changed:
                    self._num_working -= 1
                    self._changed.notify_all()

    def _wait(self, on_place: Callable[[int], None] | None, should_stop: Callable[[], bool] | None) -> bool:
        ticket, told = object(), 0
        with self._changed:
            is_free = not self._line and self._num_working < self._num_slots
            if not is_free and len(self._line) >= self._max_waiting:
                raise BusyError(f"the server is busy, and {len(self._line)} others wait already: try again in a minute")
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or self._num_working >= self._num_slots:
                    place = self._line.index(ticket) + 1
                    if on_place is not None and place != told:
                        on_place(place)
                        told = place
                    if should_stop is not None and should_stop():
                        return False
                    self._changed.wait(_LOOK_SECONDS)
                self._num_working += 1
                return True
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
