"""The latest frame of a live source: frames that arrive while another one is processed are dropped."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType

from unipixel.video.frame import Frame


class LatestFrame:
    """Reads a source in a thread and stores only its latest frame.

    Iterating yields the latest frame that was not yielded yet, and waits if there is none. Errors of the
    source are raised there. Use it in a `with` block, which stops the thread.

    Attributes:
        num_dropped: Number of frames that were dropped.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        """Start reading.

        Args:
            frames: A live source, such as a `Video`; it must not be read elsewhere.
        """
        self.num_dropped = 0
        self._frames = frames
        self._changed = threading.Condition()
        self._latest: Frame | None = None
        self._error: BaseException | None = None
        self._has_ended = self._is_stopped = False
        # A daemon, so that a blocked camera does not keep the process alive.
        self._thread = threading.Thread(target=self._read, name="unipixel-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the latest frame repeatedly, until the source ends.

        Raises:
            OSError: The source can no longer be read.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._latest is not None or self._has_ended)
                frame, self._latest = self._latest, None
            if frame is not None:
                yield frame
            elif self._error is not None:
                raise self._error
            else:
                return

    def close(self, *, timeout_seconds: float = 1.0) -> bool:
        """Stop reading after the current frame, and return whether the thread has ended."""
        self._is_stopped = True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def __enter__(self) -> LatestFrame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self.num_dropped += self._latest is not None
                    self._latest = frame
                    self._changed.notify_all()
                if self._is_stopped:
                    break
        # Every error is raised again in the thread that iterates.
        except BaseException as error:  # noqa: BLE001
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
