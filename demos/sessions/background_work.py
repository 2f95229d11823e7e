"""Work for a user session in a background thread: reports events and can be cancelled at any time."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unipixel.demos.errors import DemoError, QuestionError, ServerFullError, UploadError
from unipixel.demos.sessions.events import Event, Started, Waiting, WorkCancelled
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.work_queue import WorkSlot
from unipixel.demos.worker_threads import WorkerThreads
from unipixel.session.callbacks import Cancelled

_LOG = logging.getLogger(__name__)
_BACKGROUND_NICENESS = 5


class StopFlag:
    """Whether a piece of work should stop, and why; thread-safe.

    Attributes:
        reason: Why, as shown to the user.
        between_steps: Called with every check, to let other work in between.
    """

    def __init__(self, *, max_seconds: float) -> None:
        """Create an unset flag.

        Args:
            max_seconds: Time limit of the work, from `start_timer` on.
        """
        self.reason = "cancelled by the user"
        self._max_seconds = max_seconds
        self.between_steps: Callable[[], None] | None = None
        self._deadline: float | None = None
        self._is_set = threading.Event()

    def start_timer(self) -> None:
        """Start the time limit."""
        self._deadline = time.monotonic() + self._max_seconds

    def stop(self, reason: str | None = None) -> None:
        """Request that the work stops."""
        self.reason = reason or self.reason
        self._is_set.set()

    def is_set(self) -> bool:
        """Return whether to stop."""
        return self._is_set.is_set()

    def __call__(self) -> bool:
        """Let other work in between, then return whether to stop now."""
        if self.between_steps is not None and not self._is_set.is_set():
            self.between_steps()
        if self._deadline is not None and time.monotonic() > self._deadline and not self._is_set.is_set():
            self.stop(f"it exceeded the time limit of {self._max_seconds:g} seconds")
        return self._is_set.is_set()

    def check(self) -> None:
        """Raise if the work should stop.

        Raises:
            Cancelled: It should.
        """
        if self():
            raise Cancelled(self.reason)


@dataclass(frozen=True)
class _Last:
    outcome: Event | BaseException


class EventStream(Iterator[Event]):
    """The events of a piece of work; the last one is its outcome, an error is raised."""

    def __init__(self, events: queue.SimpleQueue[Event | _Last], on_close: Callable[[str], None] | None) -> None:
        """Read events; called by `run_in_thread`.

        Args:
            events: The events.
            on_close: Stops the work, with a reason, when the stream is closed; None for work that goes on.
        """
        self._events, self._on_close = events, on_close
        self.is_ended = False

    def __next__(self) -> Event:
        """Wait for the next event."""
        if self.is_ended:
            raise StopIteration
        return self._open(self._events.get())

    def poll(self) -> Event | None:
        """Return the next event; None if there is none at present, or after the last one."""
        if self.is_ended:
            return None
        try:
            event = self._events.get_nowait()
        except queue.Empty:
            return None
        return self._open(event)

    def close(self) -> None:
        """Read no more events, and stop the work if it does not go on without a reader."""
        if not self.is_ended and self._on_close is not None:
            self._on_close("the page was closed")
        self.is_ended = True

    def __del__(self) -> None:
        self.close()

    def _open(self, event: Event | _Last) -> Event:
        if not isinstance(event, _Last):
            return event
        self.is_ended = True
        if isinstance(event.outcome, BaseException):
            raise event.outcome
        return event.outcome


def run_in_background(
    work: Callable[[Callable[[Event], None]], Event],
    *,
    stop_flag: StopFlag,
    context: ServerContext,
    client: str,
    on_end: Callable[[], None],
    stops_when_closed: bool = True,
) -> EventStream:
    """Start a piece of work in a thread and return its events.

    The work does not wait for the reader of the events. Between its steps, it gives way to clicks and to other clients.

    Args:
        work: Receives a function that emits events, and returns the last event.
        stop_flag: Stops the work.
        context: Contains the queue in which the work waits for a slot.
        client: Whose work it is.
        on_end: See `run_in_thread`.
        stops_when_closed: Whether closing the stream stops the work.

    Raises:
        ServerFullError: No further thread can be started.
    """

    def run(notify: Callable[[Event], None]) -> Event:
        lower_priority()
        try:
            with context.queue.slot(
                client=client, on_position=lambda position: notify(Waiting(position)), should_stop=stop_flag
            ) as slot:
                if not slot:
                    return WorkCancelled(stop_flag.reason)
                stop_flag.start_timer()
                stop_flag.between_steps = lambda: _give_way(context, slot, stop_flag)
                notify(Started())
                return work(notify)
        except Cancelled:
            return WorkCancelled(stop_flag.reason)

    on_close = stop_flag.stop if stops_when_closed else None
    return run_in_thread(run, threads=context.threads, on_end=on_end, on_close=on_close)


def run_in_thread(
    work: Callable[[Callable[[Event], None]], Event],
    *,
    threads: WorkerThreads,
    on_end: Callable[[], None] | None = None,
    on_close: Callable[[str], None] | None = None,
) -> EventStream:
    """Start a piece of work in a thread and return its events.

    Args:
        work: Receives a function that emits events, and returns the last event.
        threads: Starts the thread.
        on_end: Called when the work has ended for any reason, before the last event.
        on_close: See `EventStream`.

    Raises:
        ServerFullError: No further thread can be started.
    """
    events: queue.SimpleQueue[Event | _Last] = queue.SimpleQueue()

    def run() -> None:
        outcome: Event | BaseException
        try:
            outcome = work(events.put)
        # Every error is raised in the thread that reads the events.
        except BaseException as error:  # noqa: BLE001
            outcome = public_error(error)
        try:
            if on_end is not None:
                on_end()
        # The reader must receive an outcome even when the session cannot be saved.
        except BaseException as error:  # noqa: BLE001
            outcome = public_error(error)
        events.put(_Last(outcome))

    try:
        threads.start(run)
    except RuntimeError as error:
        if on_end is not None:
            on_end()
        raise ServerFullError("the server is overloaded: try again in a minute") from error
    return EventStream(events, on_close)


def lower_priority() -> None:
    """Let the threads that answer short requests go first; the threads that this one starts inherit it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICENESS)


def _give_way(context: ServerContext, slot: WorkSlot, stop_flag: StopFlag) -> None:
    context.interactive.give_way()
    slot.share(should_stop=stop_flag.is_set)


def public_error(error: BaseException) -> BaseException:
    """Convert an error to one that may be shown to the user; the text of an unexpected one is only logged."""
    if isinstance(error, DemoError):
        return error
    if isinstance(error, OSError):
        _LOG.warning("a file could not be read or written: %s", error)
        public: DemoError = UploadError("the video is damaged, or the disk of the server is full")
    elif isinstance(error, ValueError | LookupError):
        public = QuestionError(str(error.args[0]) if error.args else str(error))
    elif isinstance(error, Exception):
        _LOG.error("unexpected error during the work of a session", exc_info=error)
        public = DemoError("an unexpected error occurred: try again, or ask the operator of the server")
    else:
        return error
    public.__cause__ = error
    return public
