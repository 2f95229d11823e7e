"""One piece of work for a visitor: done in a thread, told as events, stopped at any moment."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

from unipixel.demos.sessions.errors import BusyError, DemoError, QuestionError, UploadError
from unipixel.demos.sessions.events import Event, Started, Waiting, WorkCancelled
from unipixel.demos.sessions.work_queue import WorkQueue
from unipixel.session.callbacks import Cancelled

_LOG = logging.getLogger(__name__)


class StopFlag:
    """Whether a piece of work should stop, and why; safe to use from any thread.

    Attributes:
        reason: Why, in plain words.
    """

    def __init__(self, *, max_seconds: float) -> None:
        """Begin unstopped.

        Args:
            max_seconds: How long the work may take once it has begun.
        """
        self.reason = "you stopped it"
        self._max_seconds = max_seconds
        self._deadline: float | None = None
        self._is_stopped = threading.Event()

    def begin(self) -> None:
        """Let the time run."""
        self._deadline = time.monotonic() + self._max_seconds

    def stop(self, reason: str | None = None) -> None:
        """Ask the work to stop."""
        self.reason = reason or self.reason
        self._is_stopped.set()

    def __call__(self) -> bool:
        """Whether to stop now."""
        if self._deadline is not None and time.monotonic() > self._deadline and not self._is_stopped.is_set():
            self.stop(f"it took more than the {self._max_seconds:g} seconds that one visitor is given")
        return self._is_stopped.is_set()

    def check(self) -> None:
        """Go on, unless the work should stop.

        Raises:
            Cancelled: It should.
        """
        if self():
            raise Cancelled(self.reason)


def run_work(
    work: Callable[[Callable[[Event], None]], Event],
    *,
    flag: StopFlag,
    line: WorkQueue,
    at_end: Callable[[], None],
) -> Iterator[Event]:
    """Start a piece of work, and return its events; closing the iterator stops it.

    The work goes on whether or not anybody listens; events are small, so that none waits for a listener.

    Args:
        work: Receives a function to tell events with, and returns the last one.
        flag: Stops it.
        line: Where it waits for its turn.
        at_end: Called when it has ended in whatever way, before the last event is told.

    Raises:
        BusyError: The system gives no further thread.
    """
    events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
    last: list[Event | BaseException] = []

    def run() -> None:
        outcome: Event | BaseException
        try:
            with line.slot(on_place=lambda place: events.put(Waiting(place)), should_stop=flag) as has_slot:
                if has_slot:
                    flag.begin()
                    events.put(Started())
                    outcome = work(events.put)
                else:
                    outcome = WorkCancelled(flag.reason)
        except Cancelled:
            outcome = WorkCancelled(flag.reason)
        # Whatever it is, it belongs to the thread that listens.
        except BaseException as error:  # noqa: BLE001
            outcome = public_error(error)
        try:
            at_end()
        # A disk that is full must not leave the listener waiting.
        except BaseException as error:  # noqa: BLE001
            outcome = public_error(error)
        last.append(outcome)
        events.put(outcome)

    thread = threading.Thread(target=run, name="unipixel-visitor", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        at_end()
        raise BusyError("the server has too much to do: try again in a minute") from error
    return _listen(events, last, flag)


def public_error(error: BaseException) -> BaseException:
    """Turn what the library refuses into what a visitor is told; an error of another kind stays what it is."""
    if isinstance(error, DemoError):
        return error
    if isinstance(error, OSError):
        _LOG.warning("a file could not be read or written: %s", error)
        told: DemoError = UploadError("the video cannot be read any further: it is damaged, or the server's disk full")
    elif isinstance(error, ValueError | LookupError):
        told = QuestionError(str(error.args[0]) if error.args else str(error))
    else:
        return error
    told.__cause__ = error
    return told


def _listen(
    events: queue.SimpleQueue[Event | BaseException], last: list[Event | BaseException], flag: StopFlag
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
            flag.stop("the page was closed")
