"""A bounded queue before a number of slots that serves its clients in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from unipixel.demos.errors import QuotaError, ServerFullError

_POLL_SECONDS = 0.2
# After so long, work lets that of another client in between.
_TURN_SECONDS = 5.0


@dataclass(eq=False)
class _Ticket:
    client: str
    number: int


class WorkSlot:
    """A slot of a `WorkQueue`, or the knowledge that none was obtained.

    Attributes:
        is_granted: Whether the slot was obtained; False after the waiting was ended.
    """

    def __init__(self, work_queue: WorkQueue, client: str, *, is_granted: bool) -> None:
        """Wrap a slot; called by `WorkQueue.slot`."""
        self.is_granted = is_granted
        self._queue, self._client, self._since = work_queue, client, time.monotonic()

    def __bool__(self) -> bool:
        return self.is_granted

    def share(self, *, should_stop: Callable[[], bool] | None = None) -> None:
        """Let the work of other clients in between, if it waits and this work has had its turn.

        Called between two steps of long work. When `should_stop` ends the waiting, the slot is lost.
        """
        if (
            not self.is_granted
            or time.monotonic() - self._since < _TURN_SECONDS
            or not self._queue.has_other(self._client)
        ):
            return
        self._queue.release()
        self.is_granted = self._queue.wait(self._client, None, should_stop, is_continued=True)
        self._since = time.monotonic()


class WorkQueue:
    """Slots for expensive work, and a bounded queue before them.

    The clients take turns: the next slot goes to the client whose latest turn is the longest ago, and within a client
    to the caller that came first.
    """

    def __init__(self, *, num_slots: int, max_waiting: int, max_waiting_per_client: int | None = None) -> None:
        """Create a queue with all slots free.

        Args:
            num_slots: How many callers work at the same time.
            max_waiting: How many callers may wait.
            max_waiting_per_client: How many callers of one client may wait; None for `max_waiting`.
        """
        self._num_slots, self._max_waiting = num_slots, max_waiting
        self._max_per_client = max_waiting_per_client or max_waiting
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._num_working = self._num_turns = self._num_tickets = 0
        # Number of the latest turn of each client that works or waits.
        self._turns: dict[str, int] = {}

    @property
    def num_waiting(self) -> int:
        """How many callers wait."""
        with self._changed:
            return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether all slots are free and nobody waits."""
        with self._changed:
            return not self._num_working and not self._waiting

    def has_other(self, client: str) -> bool:
        """Return whether work of another client waits."""
        with self._changed:
            return any(ticket.client != client for ticket in self._waiting)

    @contextmanager
    def slot(
        self,
        *,
        client: str = "",
        on_position: Callable[[int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[WorkSlot]:
        """Wait for a slot and occupy it for the block.

        Args:
            client: Who waits.
            on_position: Called with the position in the queue, from 1, at first and whenever it changes.
            should_stop: Polled several times a second; True ends the waiting.

        Yields:
            The slot; false after `should_stop` returned True.

        Raises:
            ServerFullError: The queue is full.
            QuotaError: Too many callers of the client wait.
        """
        slot = WorkSlot(self, client, is_granted=self.wait(client, on_position, should_stop))
        try:
            yield slot
        finally:
            if slot:
                self.release()

    def release(self) -> None:
        """Free a slot."""
        with self._changed:
            self._num_working -= 1
            self._changed.notify_all()

    def wait(
        self,
        client: str,
        on_position: Callable[[int], None] | None,
        should_stop: Callable[[], bool] | None,
        *,
        is_continued: bool = False,
    ) -> bool:
        """Wait for a slot and occupy it; see `slot`.

        Args:
            client: Who waits.
            on_position: See `slot`.
            should_stop: See `slot`.
            is_continued: Whether work that has begun waits again; the limits do not apply to it.

        Returns:
            Whether the slot was obtained.
        """
        reported = 0
        with self._changed:
            if not is_continued:
                self._check_limits(client)
            self._num_tickets += 1
            ticket = _Ticket(client, self._num_tickets)
            self._waiting.append(ticket)
            try:
                while (position := self._position(ticket)) > 1 or self._num_working >= self._num_slots:
                    if on_position is not None and position != reported:
                        on_position(position)
                        reported = position
                    if should_stop is not None and should_stop():
                        return False
                    self._changed.wait(_POLL_SECONDS)
                self._num_working += 1
                self._num_turns += 1
                self._turns[client] = self._num_turns
                if len(self._turns) > 4 * (self._max_waiting + self._num_slots):
                    del self._turns[min(self._turns, key=lambda name: self._turns[name])]
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _check_limits(self, client: str) -> None:
        is_free = not self._waiting and self._num_working < self._num_slots
        if is_free:
            return
        if len(self._waiting) >= self._max_waiting:
            raise ServerFullError(f"the server is busy and its queue of {len(self._waiting)} is full: try again later")
        own = sum(ticket.client == client for ticket in self._waiting)
        if own >= self._max_per_client:
            raise QuotaError(f"{own} requests of yours wait for the model already, the maximum: wait for one to end")

    def _position(self, ticket: _Ticket) -> int:
        """Return the position of a ticket in the order in which the clients take turns, from 1."""
        # In simulated turns, so that the second ticket of a client comes after the first of all others.
        turns = dict(self._turns)
        next_turn = self._num_turns + 1
        left = sorted(self._waiting, key=lambda each: each.number)
        for position in range(1, len(left) + 1):
            chosen = min(left, key=lambda each: (turns.get(each.client, 0), each.number))
            if chosen is ticket:
                return position
            turns[chosen.client] = next_turn
            next_turn += 1
            left.remove(chosen)
        return len(self._waiting)


class InteractiveAccess:
    """Access to the model for short requests, before which long work pauses at its next step.

    One request is served at a time, the clients in turn.
    """

    def __init__(self, *, max_waiting: int, max_waiting_per_client: int, max_pause_seconds: float = 1.0) -> None:
        """Create the access without requests.

        Args:
            max_waiting: How many requests may wait.
            max_waiting_per_client: How many requests of one client may wait.
            max_pause_seconds: How long one step of long work waits for requests, so that it goes on in any case.
        """
        self._queue = WorkQueue(num_slots=1, max_waiting=max_waiting, max_waiting_per_client=max_waiting_per_client)
        self._changed = threading.Condition()
        self._num_requests = 0
        self._max_pause_seconds = max_pause_seconds

    @property
    def is_idle(self) -> bool:
        """Whether no request is waiting or served."""
        with self._changed:
            return not self._num_requests

    @contextmanager
    def __call__(self, client: str) -> Iterator[None]:
        """Occupy the access for the block.

        Raises:
            ServerFullError: Too many requests wait.
            QuotaError: Too many requests of the client wait.
        """
        with self._changed:
            self._num_requests += 1
        try:
            with self._queue.slot(client=client):
                yield
        finally:
            with self._changed:
                self._num_requests -= 1
                self._changed.notify_all()

    def give_way(self) -> None:
        """Wait until no request is waiting or served, at most for the time limit; called between steps of long work."""
        deadline = time.monotonic() + self._max_pause_seconds
        with self._changed:
            while self._num_requests and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
