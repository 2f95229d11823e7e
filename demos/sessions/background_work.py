"""Work for a user session in a background thread: reports events and can be cancelled at any time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

from unipixel.demos.errors import BusyError, DemoError, QuestionError, UploadError
from unipixel.demos.sessions.events import Event, Started, Waiting, WorkCancelled
from unipixel.demos.sessions.work_queue import WorkQueue
from unipixel.session.callbacks import Cancelled

_LOG = logging.getLogger(__name__)
THREAD_NAME = "unipixel-session"


class StopFlag:
    """Whether a piece of work should stop, and why; thread-safe.

    Attributes:
        reason: Why, as shown to the user.
    """

    def __init__(self, *, max_seconds: float) -> None:
        """Create an unset flag.

        Args:
            max_seconds: Time limit of the work, from `start_timer` on.
        """
        self.reason = "cancelled by the user"
        self._max_seconds = max_seconds
        self._deadline: float | None = None
        self._is_set = threading.Event()

    def start_timer(self) -> None:
        """Start the time limit."""
        self._deadline = time.monotonic() + self._max_seconds

    def stop(self, reason: str | None = None) -> None:
        """Request that the work stops."""
        self.reason = reason or self.reason
        self._is_set.set()

    def __call__(self) -> bool:
        """Return whether to stop now."""
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


def run_in_background(
    work: Callable[[Callable[[Event], None]], Event],
    *,
    stop_flag: StopFlag,
    work_queue: WorkQueue,
    on_end: Callable[[], None],
) -> Iterator[Event]:
    """Start a piece of work in a thread and return its events; closing the iterator stops the work.

    The work does not wait for the reader of the events.

    Args:
        work: Receives a function that emits events, and returns the last event.
        stop_flag: Stops the work.
        work_queue: Where the work waits for a slot.
        on_end: Called when the work has ended for any reason, before the last event.

    Raises:
        BusyError: No further thread can be started.
    """
    events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
    last: list[Event | BaseException] = []

    def run() -> None:
        outcome: Event | BaseException
        try:
            with work_queue.slot(
                on_position=lambda position: events.put(Waiting(position)), should_stop=stop_flag
            ) as has_slot:
                if has_slot:
                    stop_flag.start_timer()
                    events.put(Started())
                    outcome = work(events.put)
                else:
                    outcome = WorkCancelled(stop_flag.reason)
        except Cancelled:
            outcome = WorkCancelled(stop_flag.reason)
        # Every error is raised in the thread that reads the events.
        except BaseException as error:  # noqa: BLE001
            outcome = public_error(error)
        try:
            on_end()
        # The reader must receive an outcome even when the session cannot be saved.
        except BaseException as error:  # noqa: BLE001
            outcome = public_error(error)
        last.append(outcome)
        events.put(outcome)

    thread = threading.Thread(target=run, name=THREAD_NAME, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        on_end()
        raise BusyError("the server is overloaded: try again in a minute") from error
    return _read_events(events, last, stop_flag)


def public_error(error: BaseException) -> BaseException:
    """Convert an error of the library to one that may be shown to the user; others are returned unchanged."""
    if isinstance(error, DemoError):
        return error
    if isinstance(error, OSError):
        _LOG.warning("a file could not be read or written: %s", error)
        public: DemoError = UploadError("the video is damaged, or the disk of the server is full")
    elif isinstance(error, ValueError | LookupError):
        public = QuestionError(str(error.args[0]) if error.args else str(error))
    else:
        return error
    public.__cause__ = error
    return public


def _read_events(
    events: queue.SimpleQueue[Event | BaseException], last: list[Event | BaseException], stop_flag: StopFlag
) -> Iterator[Event]:
    try:
        while True:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if last and event is last[0]:
                return
    finally:
        if not last:
            stop_flag.stop("the page was closed")
